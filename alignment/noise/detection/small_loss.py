"""Small loss: train on, or keep, what is learnt most easily."""

from __future__ import annotations

import jax.numpy as jnp

from alignment.losses.numerics import check_range
from alignment.types import Array


def smallest(losses: Array, weights: Array, share: Array | float) -> Array:
  """Weights of the share of rows with the smallest losses; 0 for the rest.

    kept[b] = weights[b]·[rank of losses[b] < ⌊share·rows⌋]

  rows counts weights > 0; the earlier of equal losses is kept, and a loss that
  is NaN goes first overboard. With a true flip rate ε, share = 1 − ε.

  Args:
    losses: `[B]`.
    weights: `[B]` ≥ 0, 0 in empty slots.
    share: in [0, 1], may be traced.

  Returns:
    `[B]`; no gradient flows through the choice.

  Raises:
    ValueError: share, known at trace time, is outside [0, 1].

  Source: Jiang et al., MentorNet, 2018, arXiv 1712.05055 (self-paced choice);
  Liang et al., Robust Preference Optimization, 2024, arXiv 2404.04102.
  """
  check_range('share', share, 0.0, 1.0)
  is_present = weights > 0
  ordered = jnp.where(is_present & ~jnp.isnan(losses), losses, jnp.inf)
  # Empty slots behind every row, whatever its loss.
  rank = jnp.argsort(jnp.lexsort((ordered, ~is_present)))
  # .7 · 10 is 7.000000000000001 or 6.999…, by precision; both mean 7.
  count = jnp.floor(share * jnp.sum(is_present) + 1e-4)
  return jnp.where(rank < count, weights, 0.0)

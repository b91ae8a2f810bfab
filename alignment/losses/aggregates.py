"""Aggregates: unreduced losses and weights to one term.

Every aggregate takes losses `[B]` and weights `[B]` ≥ 0 (multiplicities: weight
2 is the pair twice, weight 0 an empty slot whose loss is ignored) and returns a
`Term`, whose value is the scalar to minimise. All but `mean` couple the batch
and are defined on the global one.
"""

from __future__ import annotations

import jax.numpy as jnp

from alignment.types import Array, Term


def mean(losses: Array, weights: Array) -> Term:
  """The weighted mean.

  value = Σ w·ℓ / Σ w
  """
  losses = jnp.where(weights > 0, losses, 0.0)
  return Term(jnp.sum(weights * losses), jnp.sum(weights))


AGGREGATES = {
  'mean': mean,
}

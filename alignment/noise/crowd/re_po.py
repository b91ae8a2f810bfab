"""RE-PO: reliabilities of annotators from the pair probabilities of any loss.

A model says with which probability P a pair is as labelled; an annotator is
right with probability η. Their product decides how far the label is believed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from alignment.losses.numerics import check_range
from alignment.types import Array


def label_weights(win_probs: Array, reliability: Array) -> Array:
  """E step: P(label is right | model, annotator).

    w = P·η / (P·η + (1 − P)·(1 − η))

  The loss w·ℓ(as labelled) + (1 − w)·ℓ(swapped), w without gradient, has the
  gradient of the forward correction with ε = 1 − η. ½ where P = 1 − η.

  Args:
    win_probs: `[B]` in [0, 1], P(as labelled); for a loss ℓ of a pair it is
      σ(ℓ(swapped) − ℓ(as labelled)), which is σ(z) for DPO.
    reliability: `[B]` (or scalar) in (0, 1), η of each pair's annotator.

  Returns:
    `[B]` in [0, 1].

  Source: RE-PO (robust preference optimisation with annotator reliabilities),
  2025, arXiv 2509.24159.
  """
  check_range('win_probs', win_probs, 0.0, 1.0)
  check_range('reliability', reliability, 0.0, 1.0, '()')
  right = win_probs * reliability
  return right / (right + (1 - win_probs) * (1 - reliability))


def update_reliability(
  reliability: Array,
  weights: Array,
  annotator_id: Array,
  *,
  rate: Array | float = 0.1,
) -> Array:
  """M step on a batch: η[a] moves towards the mean weight of a's pairs.

    η[a] ← (1 − rate)·η[a] + rate·mean of w over the pairs of a

  Args:
    reliability: `[A]`; the paper starts at .9.
    weights: `[B]` of `label_weights`.
    annotator_id: `[B]` int in [0, A); negative for unknown, which is left out.
    rate: in (0, 1]; 1 replaces.

  Returns:
    `[A]`; annotators without pairs in the batch stay.

  Source: as `label_weights`.
  """
  check_range('rate', rate, 0.0, 1.0, '(]')
  size = len(reliability)
  place = jnp.where(annotator_id < 0, size, annotator_id)
  total = jnp.zeros(size + 1).at[place].add(weights)[:size]
  count = jnp.zeros(size + 1).at[place].add(1.0)[:size]
  mean = total / jnp.maximum(count, 1)
  moved = reliability + rate * (mean - reliability)
  return jnp.where(count > 0, moved, reliability)


def fixed_point(
  win_probs: Array,
  annotator_id: Array,
  num_annotators: int,
  *,
  tolerance: float = 1e-6,
  max_iterations: int = 10_000,
) -> tuple[Array, Array]:
  """Reliabilities that explain the labels, at a fixed model: η = mean of w.

  The maximum of Π [P·η + (1 − P)·(1 − η)], concave in η, so there is one; with
  calibrated P it is the share of right labels. Where P says ½ throughout, any
  η explains the labels and the start, ½, is returned.

  Args:
    win_probs: `[B]` in [0, 1], P(as labelled), by a model that did not learn
      from these labels: one that did has P near 1 and reports η near 1.
    annotator_id: `[B]` int in [0, A); negative for unknown.
    num_annotators: A.
    tolerance: largest change of an η at which it stops.
    max_iterations: ≥ 1.

  Returns:
    η `[A]` (½ without pairs), w `[B]` (with η = ½ for unknown annotators).

  Source: as `label_weights`.
  """

  def of_pairs(reliability: Array) -> Array:
    known = annotator_id >= 0
    eta = jnp.where(known, reliability[jnp.maximum(annotator_id, 0)], 0.5)
    right = win_probs * eta
    total = right + (1 - win_probs) * (1 - eta)
    return right / jnp.where(total > 0, total, 1)

  def step(carry):
    old, _, count = carry
    new = update_reliability(old, of_pairs(old), annotator_id, rate=1.0)
    return new, jnp.max(jnp.abs(new - old)), count + 1

  def goes_on(carry):
    _, change, count = carry
    return (change > tolerance) & (count < max_iterations)

  start = jnp.full(num_annotators, 0.5), jnp.inf, 0
  reliability, _, _ = jax.lax.while_loop(goes_on, step, start)
  return reliability, of_pairs(reliability)

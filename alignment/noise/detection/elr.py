"""ELR's running targets: what the model said of each example while it learnt.

A learner fits right labels first. A running mean of its predictions therefore
still holds the true class when the wrong label is being memorised; the loss
`CLASSIFICATION['elr']` holds the prediction near it. The table is arrays only,
by stable index, so it lives in `TrainState.extra` and is checkpointed there.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from alignment.losses.numerics import check_range
from alignment.types import Array

SMALLEST_PROB = 1e-4


def start(num_examples: int, num_classes: int) -> Array:
  """`[num_examples, num_classes]` float32 zeros: nothing was said yet."""
  return jnp.zeros((num_examples, num_classes), jnp.float32)


def update(
  targets: Array,
  index: Array,
  probs: Array,
  weights: Array,
  *,
  momentum: Array | float = 0.7,
) -> Array:
  """Moves the targets of a batch towards what the model says now.

    targets[index] ← momentum·targets[index] + (1 − momentum)·p / Σ_c p

  p is probs clipped to [1e-4, 1 − 1e-4]. A row of targets sums to
  1 − momentum^(updates): it is no distribution until it has been seen often.

  Args:
    targets: `[I, C]`.
    index: `[B]` int, stable ids in [0, I), each at most once among the rows of
      weight > 0.
    probs: `[B, C]`; no gradient flows into the table.
    weights: `[B]`, 0 in empty slots, whose index is not read.
    momentum: in [0, 1].

  Returns:
    `[I, C]`, other rows untouched.

  Raises:
    ValueError: momentum, known at trace time, is outside [0, 1].

  Source: Liu et al., Early-Learning Regularization Prevents Memorization of
  Noisy Labels, 2020, arXiv 2007.00151.
  """
  check_range('momentum', momentum, 0.0, 1.0)
  probs = jnp.clip(probs, SMALLEST_PROB, 1.0 - SMALLEST_PROB)
  said = probs / jnp.sum(probs, axis=-1, keepdims=True)
  moved = momentum * targets[index] + (1.0 - momentum) * said
  # Out of range, hence dropped.
  place = jnp.where(weights > 0, index, targets.shape[0])
  return targets.at[place].set(moved.astype(targets.dtype), mode='drop')


def suspicion(targets: np.ndarray, label: np.ndarray) -> np.ndarray:
  """1 − the share of the running target on the label, `[I]` in [0, 1].

  ½ for an example that was never seen.

  Args:
    targets: `[I, C]` after training.
    label: `[I]` int in [0, C).
  """
  targets = np.asarray(targets, np.float64)
  total = targets.sum(axis=1)
  own = targets[np.arange(len(label)), label]
  return 1.0 - np.divide(
    own, total, out=np.full(len(own), 0.5), where=total > 0
  )

"""Best-of-n: what a reward does to a policy whose completions are all known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def best_of_n(
  scores: np.ndarray, probs: np.ndarray, counts: Sequence[int]
) -> np.ndarray:
  """Distribution of the best of n draws, exactly.

    q_n(c) = probs(c) · [F(c)ⁿ − F⁻(c)ⁿ] / [F(c) − F⁻(c)]

  F(c) and F⁻(c) are the probabilities of a score ≤ and < that of c; draws of
  equal score are equally likely to be taken.

  Args:
    scores: `[..., C]`, by which the best is chosen.
    probs: `[..., C]` ≥ 0, each row sums to 1: the policy drawn from.
    counts: N values of n, each ≥ 1.

  Returns:
    `[N, ..., C]`, each row sums to 1.

  Raises:
    ValueError: shapes differ, a count below 1, or rows that do not sum to 1.
  """
  scores, probs = np.asarray(scores, float), np.asarray(probs, float)
  if scores.shape != probs.shape or not scores.size:
    raise ValueError(
      f'scores has shape {scores.shape} and probs {probs.shape}; both must be '
      '[..., C]'
    )
  if min(counts, default=0) < 1:
    raise ValueError(f'counts={list(counts)} must be >= 1')
  if np.any(probs < 0) or not np.allclose(probs.sum(axis=-1), 1):
    raise ValueError('probs must be >= 0 and sum to 1')
  order = np.argsort(scores, axis=-1, kind='stable')
  ordered = np.take_along_axis(scores, order, axis=-1)
  mass = np.take_along_axis(probs, order, axis=-1)
  above = np.cumsum(mass, axis=-1)
  below = np.concatenate([np.zeros_like(above[..., :1]), above[..., :-1]], -1)
  # A run of equal scores shares the bounds of the whole run.
  new = np.ones(scores.shape, bool)
  new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
  last = np.ones(scores.shape, bool)
  last[..., :-1] = new[..., 1:]
  low = np.maximum.accumulate(np.where(new, below, 0.0), axis=-1)
  high = np.where(last, above, np.inf)[..., ::-1]
  high = np.minimum.accumulate(high, axis=-1)[..., ::-1]
  high = np.minimum(high, 1.0)
  width = np.where(high > low, high - low, 1.0)
  n = np.reshape(np.asarray(counts, float), (-1,) + (1,) * scores.ndim)
  gain = high**n - low**n
  found = np.zeros((len(n), *scores.shape))
  spread = mass / width * gain
  np.put_along_axis(found, np.broadcast_to(order, found.shape), spread, -1)
  return found / found.sum(axis=-1, keepdims=True)

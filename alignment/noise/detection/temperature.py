"""One number that sets right how sure a model is."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

SMALLEST_PROB = 1e-8
GRID = np.geomspace(0.01, 1000.0, 51)


def sharpness(
  probs: np.ndarray,
  targets: np.ndarray,
  rate: np.ndarray | float = 0.0,
) -> float:
  """Inverse temperature s ≥ 0 at which probs predict the targets best.

    p = sharpen(probs, s)
    s maximises Σ_b Σ_c targets[b, c]·log[(1 − rate)·p_c + other·(1 − p_c)]
    other = rate/(C − 1)

  At rate 0 this is temperature scaling. Above, p is read as the probability of
  the *true* class and the targets as labels that were flipped: probabilities
  that were fitted to flipped labels are drawn towards ½, and s undoes it.

  Args:
    probs: `[B, C]`, predictions of rows the model was not trained on.
    targets: `[B, C]` ≥ 0: one-hot labels, or shares of votes.
    rate: flip rate of the targets, a number or `[B]`, in [0, (C − 1)/C).

  Returns:
    Found on a grid of 51 values over five decades around the scale of probs,
    then refined; 0 where no positive value is better.

  Source: Guo et al., On Calibration of Modern Neural Networks, 2017,
  arXiv 1706.04599; with forward correction as Patrini et al., 2017,
  arXiv 1609.03683.
  """
  targets = np.asarray(targets, np.float64)
  log_probs = _log_probs(probs)
  scale = np.sqrt(np.mean(np.var(log_probs, axis=1)))
  if scale < 1e-12:
    return 0.0
  other = np.asarray(rate, np.float64) / (targets.shape[1] - 1)
  slope = np.asarray(1.0 - rate - other)[..., None]
  other = other[..., None]

  def cost(s: float) -> float:
    p = special.softmax(s / scale * log_probs, axis=1)
    return -np.sum(special.xlogy(targets, slope * p + other))

  grid = np.concatenate([[0.0], GRID])
  costs = [cost(s) for s in grid]
  best = int(np.argmin(costs))
  if best == 0 and cost(GRID[0] / 100) >= costs[0]:
    return 0.0
  low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
  found = optimize.minimize_scalar(
    cost, bounds=(low, high), method='bounded', options={'xatol': 1e-9}
  )
  return float(found.x / scale)


def sharpen(probs: np.ndarray, s: float) -> np.ndarray:
  """probs^s, normalised over the classes; zeros count as 1e-8.

  Args:
    probs: `[B, C]`.
    s: ≥ 0; 1 leaves the probabilities, 0 makes all classes alike.
  """
  return special.softmax(s * _log_probs(probs), axis=1)


def _log_probs(probs: np.ndarray) -> np.ndarray:
  return np.log(np.maximum(np.asarray(probs, np.float64), SMALLEST_PROB))

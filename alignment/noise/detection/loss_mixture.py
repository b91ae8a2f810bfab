"""Two kinds of loss: the probability that a row belongs to the smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special, stats

SMALLEST_MASS = 1e-12
BETA_EDGE = 1e-4


class LossMixture(NamedTuple):
  """Two components fitted to losses scaled to [0, 1]; smaller mean first.

  Attributes:
    clean: `[B]` posterior of the component with the smaller mean.
    means, variances, shares: `[2]` of the two components.
    iterations: of EM.
  """

  clean: np.ndarray
  means: np.ndarray
  variances: np.ndarray
  shares: np.ndarray
  iterations: int


def gaussian_mixture(
  losses: np.ndarray,
  *,
  max_iterations: int = 10,
  tolerance: float = 1e-2,
  variance_floor: float = 5e-4,
) -> LossMixture:
  """DivideMix: two normals by EM, from the best division into two clusters.

    loss' = (loss − min)/(max − min)
    clean = shares[0]·N(loss'; means[0], variances[0]) / Σ of both

  The posterior need not fall with the loss: far below both means the wider
  component wins. The share of the second component is a flip rate only where
  losses of right and wrong labels are normal and do not overlap much.

  Args:
    losses: `[B]` finite, B ≥ 2.
    max_iterations: ≥ 1.
    tolerance: rise of the mean log-likelihood at which EM stops.
    variance_floor: added to the variances.

  Returns:
    The mixture; where all losses are alike every row is clean.

  Raises:
    ValueError: fewer than two losses, or one that is not finite.

  Source: Li, Socher and Hoi, DivideMix, 2020, arXiv 2002.07394, with the
  settings of its code.
  """

  def log_density(x, means, variances):
    return stats.norm.logpdf(x, means, np.sqrt(variances))

  return _fit(
    losses, log_density, max_iterations, tolerance, variance_floor, 0.0
  )


def beta_mixture(
  losses: np.ndarray,
  *,
  max_iterations: int = 10,
  tolerance: float = 0.0,
) -> LossMixture:
  """Two beta densities by EM with moments: losses are skewed, normals are not.

    a = m·(m(1 − m)/v − 1),   b = a·(1 − m)/m

  m, v the weighted mean and variance of a component. Losses are scaled to
  [1e-4, 1 − 1e-4]. Otherwise as `gaussian_mixture`.

  Source: Arazo et al., Unsupervised Label Noise Modeling and Loss Correction,
  2019, arXiv 1904.11238.
  """

  def log_density(x, means, variances):
    # A variance of m(1 − m) or more belongs to no beta density.
    spread = means * (1.0 - means)
    size = np.maximum(spread / np.maximum(variances, 1e-6) - 1.0, 1e-3)
    return stats.beta.logpdf(x, means * size, (1.0 - means) * size)

  return _fit(losses, log_density, max_iterations, tolerance, 0.0, BETA_EDGE)


def _fit(
  losses: np.ndarray,
  log_density: Callable[..., np.ndarray],
  max_iterations: int,
  tolerance: float,
  variance_floor: float,
  edge: float,
) -> LossMixture:
  losses = np.asarray(losses, np.float64)
  if losses.ndim != 1 or len(losses) < 2 or not np.all(np.isfinite(losses)):
    raise ValueError('losses must be [B], B >= 2, all finite')
  low, high = losses.min(), losses.max()
  if low == high:
    zeros = np.zeros(2)
    return LossMixture(
      np.ones(len(losses)), zeros, zeros, np.array([1.0, 0.0]), 0
    )
  x = np.clip((losses - low) / (high - low), edge, 1.0 - edge)[:, None]
  parameters, before = _moments(x, _two_clusters(x[:, 0]), variance_floor), 0.0
  for iteration in range(1, max_iterations + 1):
    member, level = _posterior(x, parameters, log_density)
    parameters = _moments(x, member, variance_floor)
    if iteration > 1 and abs(level - before) < tolerance:
      break
    before = level
  member, _ = _posterior(x, parameters, log_density)
  means, variances, shares = parameters
  order = np.argsort(means)
  return LossMixture(
    member[:, order[0]],
    means[order],
    variances[order],
    shares[order],
    iteration,
  )


def _two_clusters(x: np.ndarray) -> np.ndarray:
  """Division of numbers into two with least squares within, `[B, 2]`."""
  order = np.argsort(x, kind='stable')
  count, total = np.arange(1, len(x)), np.cumsum(x[order])
  left, right = total[:-1], total[-1] - total[:-1]
  # Least within is most between.
  between = left**2 / count + right**2 / (len(x) - count)
  cut = int(np.argmax(between)) + 1
  is_small = np.zeros(len(x), bool)
  is_small[order[:cut]] = True
  return np.stack([is_small, ~is_small], axis=1).astype(np.float64)


def _moments(
  x: np.ndarray, member: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  mass = member.sum(axis=0) + SMALLEST_MASS
  means = (member * x).sum(axis=0) / mass
  variances = (member * (x - means) ** 2).sum(axis=0) / mass + floor
  return means, variances, mass / mass.sum()


def _posterior(
  x: np.ndarray,
  parameters: tuple[np.ndarray, np.ndarray, np.ndarray],
  log_density: Callable[..., np.ndarray],
) -> tuple[np.ndarray, float]:
  """Memberships `[B, 2]` and the mean log-likelihood."""
  means, variances, shares = parameters
  joint = np.log(shares) + log_density(x, means, variances)
  total = special.logsumexp(joint, axis=1, keepdims=True)
  return np.exp(joint - total), float(np.mean(total))

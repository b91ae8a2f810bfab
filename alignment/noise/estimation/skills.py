"""Skills of annotators from the products of their votes, by least distance.

The distance of skills s to products c_p of pairs p = (a, b) is
Q(s) = (c − s_a · s_b)ᵀ covariance⁻¹ (c − s_a · s_b) with s in (0, 1). An
interval of a weighted mean of skills is where Q, minimised over all skills of
that mean, stays near its minimum: no expansion around skills that may be 0.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import special

# Outweighs any product, yet leaves the normal equations solvable.
_HOLD, _STEPS = 30.0, 40
# Shares of the way from the estimate to 0 or 1: first near it, where an end
# mostly is, then evenly.
_FIRST = np.array([0, 0.001, 0.004, 0.015, 0.05, 0.15, 0.4, 1])
_THEN, _ROUNDS = np.linspace(0, 1, len(_FIRST)), 2


@dataclasses.dataclass(frozen=True, eq=False)
class Products:
  """How pairs of A annotators agree.

  Attributes:
    first, second: `[P]` the pairs, annotators counted from 0.
    mean: `[P]` of y_a · y_b.
    covariance: `[P, P]` of `mean`, positive definite.
  """

  first: np.ndarray
  second: np.ndarray
  mean: np.ndarray
  covariance: np.ndarray

  @property
  def size(self) -> int:
    return int(self.second.max()) + 1

  @property
  def signal(self) -> float:
    """The smallest product, in units of its standard error."""
    return float(np.min(self.mean / np.sqrt(np.diagonal(self.covariance))))


def fit_skills(products: Products) -> tuple[np.ndarray, float]:
  """`[A]` skills of least distance, and that distance, ~ χ²(P − A)."""
  starts = np.repeat([[0.1], [0.5], [0.9]], products.size, axis=1)
  skills, distance = _minimise(products, starts)
  best = int(np.argmin(distance))
  return skills[best], float(distance[best])


def mean_skill_interval(
  products: Products, weight: np.ndarray, limit: float
) -> tuple[float, float, float]:
  """A weighted mean of skills and where its profile distance is ≤ `limit`.

  Args:
    products: of the pairs.
    weight: `[A]` ≥ 0, sums to 1.
    limit: > 0, a quantile of χ², above the least distance.

  Returns:
    The mean and its lower and upper end, in [0, 1].
  """
  skills, least = fit_skills(products)
  value = float(weight @ skills)

  def profile(means: np.ndarray) -> np.ndarray:
    starts = [skills * (means / max(value, 1e-3))[:, None]]
    if products.signal < 4:
      # Skills from weak products may lie in a corner, far from those of the
      # profile.
      starts.append(np.repeat(means[:, None], len(skills), axis=1))
    _, distance = _minimise(
      products, np.concatenate(starts), weight, np.tile(means, len(starts))
    )
    return distance.reshape(len(starts), -1).min(axis=0) - least

  # Both ends at once: a bracket each, narrowed to a step of a grid.
  near, far = np.full(2, value), np.array([0.0, 1.0])
  is_open = np.ones(2, bool)
  for shares in (_FIRST, *[_THEN] * _ROUNDS):
    grid = near[:, None] + (far - near)[:, None] * shares
    beyond = profile(grid[:, 1:].reshape(-1)).reshape(2, -1) > limit
    # An end that is never reached stays at 0 or 1.
    is_open &= beyond.any(axis=1)
    first, both = np.argmax(beyond, axis=1), np.arange(2)
    near = np.where(is_open, grid[both, first], far)
    far = np.where(is_open, grid[both, first + 1], far)
  low, high = (near + far) / 2
  return value, float(low), float(high)


def _minimise(
  products: Products,
  starts: np.ndarray,
  weight: np.ndarray | None = None,
  means: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Levenberg-Marquardt from `[M, A]` starts at once.

  Skills are σ(t); where `means` `[M]` are given, `weight` · skills is held
  there by a stiff residual, which the distance returned leaves out.
  """
  root = np.linalg.inv(np.linalg.cholesky(products.covariance))
  first, second = products.first, products.second
  pair, size = np.arange(len(first)), products.size
  hold = _HOLD * np.max(np.abs(root))

  def residual(skills: np.ndarray) -> np.ndarray:
    apart = (skills[:, first] * skills[:, second] - products.mean) @ root.T
    if means is None:
      return apart
    held = hold * (skills @ weight - means)
    return np.concatenate([apart, held[:, None]], axis=1)

  def slope(skills: np.ndarray) -> np.ndarray:
    jacobian = np.zeros((len(skills), len(first), size))
    jacobian[:, pair, first] = skills[:, second]
    jacobian[:, pair, second] = skills[:, first]
    jacobian = root @ jacobian
    if means is not None:
      held = np.broadcast_to(hold * weight, (len(skills), 1, size))
      jacobian = np.concatenate([jacobian, held], axis=1)
    return jacobian * (skills * (1 - skills))[:, None, :]

  t = special.logit(np.clip(starts, 1e-3, 1 - 1e-3))
  skills = special.expit(t)
  apart = residual(skills)
  value = np.sum(apart**2, axis=1)
  damping = np.full(len(t), 1e-3)
  for _ in range(_STEPS):
    jacobian = slope(skills)
    normal = np.swapaxes(jacobian, 1, 2) @ jacobian
    scale = damping * np.trace(normal, axis1=1, axis2=2) / size + 1e-12
    pull = np.swapaxes(jacobian, 1, 2) @ apart[..., None]
    step = np.linalg.solve(normal + scale[:, None, None] * np.eye(size), -pull)
    tried = np.clip(t + np.clip(step[..., 0], -3, 3), -12, 12)
    tried_skills = special.expit(tried)
    tried_apart = residual(tried_skills)
    tried_value = np.sum(tried_apart**2, axis=1)
    better = tried_value < value
    gain = np.where(better, value - tried_value, 0)
    keep = better[:, None]
    t, skills = np.where(keep, tried, t), np.where(keep, tried_skills, skills)
    apart = np.where(keep, tried_apart, apart)
    value = value - gain
    damping = np.where(better, damping / 5, damping * 8)
    is_still = np.max(np.abs(step[..., 0]), axis=1) < 1e-4
    if np.all(is_still | (better & (gain < 1e-6))):
      break
  return skills, np.sum(apart[:, : len(first)] ** 2, axis=1)

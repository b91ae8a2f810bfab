"""How well margins separate rows: an index, no flip rate."""

from __future__ import annotations

import dataclasses

import numpy as np

from alignment.losses.numerics import check_range
from alignment.metrics.intervals import check_values

NOT_A_RATE = (
  'an index of separation, no flip rate: calibrated probabilities without one '
  'flip can give .16, and four flips in ten under margins of scale 1 give .20'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Separation:
  """What Hölder-DPO reports as contamination, and what it is not.

  Attributes:
    index: 1 − mean(p) · mean(p^γ) / mean(p^(1 + γ)), in [0, 1); 0 where all p
      are alike.
    low, high: 95 % percentile interval over groups; None of a single group.
    count: groups.
    caveat: to be read beside the number.
  """

  index: float
  low: float | None
  high: float | None
  count: int
  caveat: str = NOT_A_RATE


def separation_index(
  margin: np.ndarray,
  group: np.ndarray,
  rng: np.random.Generator,
  *,
  gamma: float = 2.0,
  resamples: int = 1000,
) -> Separation:
  """1 − ξ with ξ = mean(p) · mean(p^γ) / mean(p^(1 + γ)), p = σ(margin).

  It equals the share of flips only if every p is 0 or 1, at which point
  counting would do.

  Args:
    margin: `[B]` of the labels at hand under some model.
    group: `[B]` what is drawn together.
    rng: numpy generator.
    gamma: > 0.
    resamples: bootstrap samples of groups.

  Raises:
    ValueError: gamma out of range, or margins that are not finite.

  Source: Fujisawa et al., Hölder-DPO, 2025, 2505.17859.
  """
  check_range('gamma', gamma, 0.0, np.inf, '()')
  log_p = -np.logaddexp(0, -check_values(margin))
  powers = np.exp(log_p[:, None] * np.array([0, 1, gamma, 1 + gamma]))
  _, place = np.unique(group, return_inverse=True)
  sums = np.zeros((place.max() + 1, 4))
  np.add.at(sums, place, powers)
  size = len(sums)
  if size == 1:
    return Separation(index=_index(sums[0]), low=None, high=None, count=1)
  times = rng.multinomial(size, np.full(size, 1 / size), resamples)
  low, high = np.quantile(_index(times @ sums), (0.025, 0.975))
  return Separation(
    index=float(_index(sums.sum(axis=0))),
    low=float(low),
    high=float(high),
    count=size,
  )


def _index(sums: np.ndarray) -> np.ndarray:
  """From `[..., 4]` sums of 1, p, p^γ and p^(1 + γ)."""
  rows, first, power, both = np.moveaxis(sums, -1, 0)
  return 1 - first * power / (rows * both)

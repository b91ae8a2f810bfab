"""Estimates with intervals: over seeds, over rows, over clusters of rows.

An interval speaks for what was redrawn. Over seeds it covers new data, noise,
starts and orders; over rows or clusters it covers new test rows for the same
trained models. With a single seed there is no interval, and none is made up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special, stats


class Estimate(NamedTuple):
  """A number and its interval.

  Attributes:
    value: the point estimate.
    low: lower end, or None where the data allow no interval.
    high: upper end, or None.
    count: how many independent units it rests on: seeds, rows or clusters.
  """

  value: float
  low: float | None
  high: float | None
  count: int


def covers(estimate: Estimate, value: float) -> bool:
  """True if `value` cannot be ruled out; so also where there is no interval."""
  if estimate.low is None:
    return True
  return estimate.low <= value <= estimate.high


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> Estimate:
  """Mean over seeds with a Student-t interval.

  mean ± t(S − 1) · std / √S. Exact for normal values; with five seeds and
  skewed values it covers somewhat less than stated.

  Args:
    values: `[S]` finite, one per seed (or other independent unit).
    confidence: in (0, 1).

  Returns:
    Without an interval where S = 1.

  Raises:
    ValueError: no values, a non-finite one, or a bad confidence.
  """
  values = check_values(values)
  check_confidence(confidence)
  size, mean = len(values), float(np.mean(values))
  if size == 1:
    return Estimate(mean, None, None, 1)
  error = np.std(values, ddof=1) / np.sqrt(size)
  half = float(stats.t.ppf((1 + confidence) / 2, size - 1) * error)
  return Estimate(mean, mean - half, mean + half, size)


def paired_difference(
  first: np.ndarray, second: np.ndarray, confidence: float = 0.95
) -> Estimate:
  """Mean of first − second by seed, with a Student-t interval.

  What the seeds share (data, noise, start, order) cancels, so the interval is
  about the methods and mostly much narrower than either one's own.

  Args:
    first: `[S]`, one per seed.
    second: `[S]`, the same seeds in the same order.
    confidence: in (0, 1).

  Raises:
    ValueError: the shapes differ, or as `mean_interval`.
  """
  first, second = check_paired(first, second)
  return mean_interval(first - second, confidence)


def clustered_mean(
  values: np.ndarray, groups: np.ndarray, confidence: float = 0.95
) -> Estimate:
  """Mean over rows with an interval that treats whole groups as drawn.

  error² = G / (G − 1) · Σ_g (Σ_{i in g} (values[i] − mean))² / B², and t with
  G − 1 degrees of freedom. Use it with few clusters, where a bootstrap of
  clusters is too coarse; with very unequal sizes it covers less than stated.

  Args:
    values: `[B]` finite; for a comparison, the per-row differences.
    groups: `[B]` what was held out together (title, first turn, …).
    confidence: in (0, 1).

  Returns:
    `count` is the number of groups; no interval where there is only one.

  Raises:
    ValueError: shapes differ, or as `mean_interval`.

  Source: Liang and Zeger, Longitudinal data analysis using generalized linear
  models, 1986 (the sandwich for a mean).
  """
  check_confidence(confidence)
  sums, counts = _by_group(values, groups)
  size, mean = len(sums), float(sums.sum() / counts.sum())
  if size == 1:
    return Estimate(mean, None, None, 1)
  squares = np.sum((sums - counts * mean) ** 2)
  error = np.sqrt(size / (size - 1) * squares) / counts.sum()
  half = float(stats.t.ppf((1 + confidence) / 2, size - 1) * error)
  return Estimate(mean, mean - half, mean + half, size)


def percentile_bootstrap(
  values: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray] = np.mean,
  *,
  confidence: float = 0.95,
  resamples: int = 2000,
) -> Estimate:
  """Percentile interval of a statistic over resampled rows.

  Args:
    values: `[B]` finite, independent rows.
    rng: numpy generator.
    statistic: called as `statistic(x, axis=-1)`.
    confidence: in (0, 1).
    resamples: number of bootstrap samples.

  Returns:
    Without an interval where B = 1.

  Raises:
    ValueError: as `mean_interval`.

  Source: Efron, Bootstrap methods: another look at the jackknife, 1979.
  """
  values = check_values(values)
  check_confidence(confidence)
  value = float(statistic(values, axis=-1))
  if len(values) == 1:
    return Estimate(value, None, None, 1)
  draws = _resample(values, rng, statistic, resamples)
  tail = (1 - confidence) / 2
  low, high = np.quantile(draws, (tail, 1 - tail))
  return Estimate(value, float(low), float(high), len(values))


def bca_bootstrap(
  values: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray] = np.mean,
  *,
  confidence: float = 0.95,
  resamples: int = 2000,
) -> Estimate:
  """Bias-corrected and accelerated bootstrap interval over rows.

  Shifts the percentiles by the median bias of the resamples and by the skew
  of the jackknife values; second-order accurate where the percentile interval
  is first-order. Where the resamples do not vary it is the point itself.

  Args:
    values: `[B]` finite, independent rows.
    rng: numpy generator.
    statistic: smooth, called as `statistic(x, axis=-1)`.
    confidence: in (0, 1).
    resamples: number of bootstrap samples.

  Raises:
    ValueError: as `mean_interval`.

  Source: Efron, Better bootstrap confidence intervals, 1987.
  """
  values = check_values(values)
  check_confidence(confidence)
  value, size = float(statistic(values, axis=-1)), len(values)
  if size == 1:
    return Estimate(value, None, None, 1)
  draws = _resample(values, rng, statistic, resamples)
  # Ties with the point count half, or a discrete statistic looks biased.
  below = np.mean(draws < value) + np.mean(draws == value) / 2
  edge = 1 / (2 * resamples)
  bias = special.ndtri(np.clip(below, edge, 1 - edge))
  left_out = np.array(
    [statistic(np.delete(values, i), axis=-1) for i in range(size)]
  )
  skew = left_out.mean() - left_out
  spread = np.sum(skew**2) ** 1.5
  acceleration = np.sum(skew**3) / (6 * spread) if spread > 0 else 0.0
  shifted = bias + special.ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
  tails = special.ndtr(bias + shifted / (1 - acceleration * shifted))
  low, high = np.quantile(draws, tails)
  return Estimate(value, float(low), float(high), size)


def cluster_bootstrap(
  values: np.ndarray,
  groups: np.ndarray,
  rng: np.random.Generator,
  *,
  confidence: float = 0.95,
  resamples: int = 2000,
) -> Estimate:
  """Percentile interval of the mean over rows, whole groups resampled.

  A resample draws G groups with replacement and takes Σ sums / Σ counts. The
  percentiles are widened to those of t with G − 1 degrees of freedom times
  √(G / (G − 1)), which a plain percentile interval lacks with few groups. For
  a paired comparison pass the per-row differences.

  Args:
    values: `[B]` finite.
    groups: `[B]` what was held out together.
    rng: numpy generator.
    confidence: in (0, 1).
    resamples: number of bootstrap samples.

  Returns:
    `count` is the number of groups; no interval where there is only one.

  Raises:
    ValueError: shapes differ, or as `mean_interval`.

  Source: Davison and Hinkley, Bootstrap methods and their application, 1997,
  section 3.8; the widening from Hesterberg, What teachers should know about
  the bootstrap, 2015, 1411.5279.
  """
  check_confidence(confidence)
  sums, counts = _by_group(values, groups)
  size, mean = len(sums), float(sums.sum() / counts.sum())
  if size == 1:
    return Estimate(mean, None, None, 1)
  times = rng.multinomial(size, np.full(size, 1 / size), resamples)
  draws = (times @ sums) / (times @ counts)
  quantile = stats.t.ppf((1 + confidence) / 2, size - 1)
  tail = special.ndtr(-np.sqrt(size / (size - 1)) * quantile)
  low, high = np.quantile(draws, (tail, 1 - tail))
  return Estimate(mean, float(low), float(high), size)


def wilson(successes: float, count: int, confidence: float = 0.95) -> Estimate:
  """Wilson score interval of a share of independent rows.

  Stays inside [0, 1] and has width at 0 and at `count` successes.

  Args:
    successes: in [0, count]; half counts (ties) are allowed.
    count: ≥ 1, rows.
    confidence: in (0, 1).

  Raises:
    ValueError: a range above is violated.

  Source: Wilson, Probable inference, the law of succession, and statistical
  inference, 1927.
  """
  check_confidence(confidence)
  if count < 1 or not 0 <= successes <= count:
    raise ValueError(
      f'successes={successes} must lie in [0, count={count}], count >= 1'
    )
  share, z = successes / count, special.ndtri((1 + confidence) / 2)
  scale = 1 + z**2 / count
  centre = (share + z**2 / (2 * count)) / scale
  half = (
    z / scale * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
  )
  low, high = max(0.0, centre - half), min(1.0, centre + half)
  # At the ends rounding would leave the point just outside.
  return Estimate(share, min(share, low), max(share, high), count)


def check_confidence(confidence: float) -> None:
  """Raises ValueError unless `confidence` lies in (0, 1)."""
  if not 0 < confidence < 1:
    raise ValueError(f'confidence={confidence} must lie in (0, 1)')


def check_values(values: np.ndarray) -> np.ndarray:
  """Returns `values` as float64 `[S]`; raises ValueError unless all finite."""
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size or not np.all(np.isfinite(values)):
    raise ValueError(
      f'values of shape {values.shape} must be [S], S >= 1, all finite'
    )
  return values


def check_paired(
  first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns both as float64 `[S]`; raises ValueError unless S is the same."""
  first, second = check_values(first), check_values(second)
  if first.shape != second.shape:
    raise ValueError(
      f'first has shape {first.shape}, second {second.shape}: pairs need the '
      'same seeds (or rows) in the same order'
    )
  return first, second


def _by_group(
  values: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Sum and count of the rows of each group."""
  values, groups = check_values(values), np.asarray(groups)
  if groups.shape != values.shape:
    raise ValueError(
      f'groups has shape {groups.shape}; it must be {values.shape}'
    )
  _, place = np.unique(groups, return_inverse=True)
  return np.bincount(place, values), np.bincount(place).astype(np.float64)


def _resample(
  values: np.ndarray,
  rng: np.random.Generator,
  statistic: Callable[..., np.ndarray],
  resamples: int,
) -> np.ndarray:
  size = len(values)
  # At most about 4 million numbers at a time.
  chunk = max(1, 4_000_000 // size)
  parts = []
  for start in range(0, resamples, chunk):
    rows = min(chunk, resamples - start)
    parts.append(
      statistic(values[rng.integers(0, size, (rows, size))], axis=-1)
    )
  return np.concatenate(parts)

"""Comparing methods: what is best, what cannot be told from it, recovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from alignment.metrics.intervals import (
  Estimate,
  check_confidence,
  check_paired,
  check_values,
  clustered_mean,
  covers,
  paired_difference,
)


class Best(NamedTuple):
  """The best method by mean, and what the data cannot tell from it.

  Attributes:
    name: the method with the best mean.
    indistinguishable: the others whose paired difference to it covers 0.
    differences: best − other for every other method, in the units of the
      scores (its sign follows them: ≤ 0 where lower is better).
  """

  name: str
  indistinguishable: tuple[str, ...]
  differences: dict[str, Estimate]


def best_of(
  scores: Mapping[str, np.ndarray],
  *,
  groups: np.ndarray | None = None,
  higher_is_better: bool = True,
  confidence: float = 0.95,
) -> Best:
  """Names the best method and those not distinguishable from it.

  Each interval has the stated confidence by itself, without correction for
  the number of methods or for having chosen the best by the same data. Both
  make "distinguishable" too easy to earn; "not distinguishable" is the safe
  reading. With one seed nothing is distinguishable.

  Args:
    scores: method -> `[S]` by seed, or `[B]` by row with `groups`; the same
      seeds or rows in the same order.
    groups: `[B]` clusters of the rows, for an interval clustered by them.
    higher_is_better: the direction of the metric.
    confidence: of each paired interval.

  Raises:
    ValueError: no methods, different shapes, or a non-finite score.
  """
  if not scores:
    raise ValueError('scores={} must hold at least one method')
  sign = 1.0 if higher_is_better else -1.0
  means = {name: np.mean(check_values(x)) for name, x in scores.items()}
  best = max(means, key=lambda name: sign * means[name])
  differences = {}
  for name in scores:
    if name == best:
      continue
    if groups is None:
      gap = paired_difference(scores[best], scores[name], confidence)
    else:
      rows = np.subtract(*check_paired(scores[best], scores[name]))
      gap = clustered_mean(rows, groups, confidence)
    differences[name] = gap
  close = tuple(name for name, gap in differences.items() if covers(gap, 0))
  return Best(best, close, differences)


class Recovery(NamedTuple):
  """How much of the damage of noise a method undoes.

  Attributes:
    estimate: (method − noisy) / (clean − noisy); None where undefined.
    gap: clean − noisy, the denominator, paired by seed. The estimate is
      undefined where the gap is 0 or its interval covers 0.
  """

  estimate: Estimate | None
  gap: Estimate


def recovery(
  method: np.ndarray,
  noisy: np.ndarray,
  clean: np.ndarray,
  confidence: float = 0.95,
) -> Recovery:
  """Ratio of paired mean differences with Fieller's interval.

  recovery = mean(method − noisy) / mean(clean − noisy): 0 is plain training
  on noisy labels, 1 on clean ones; below 0 and above 1 are possible. The
  interval holds every ratio ρ for which mean(method − noisy − ρ (clean −
  noisy)) has a Student-t interval that covers 0. It is bounded exactly where
  the interval of the gap excludes 0; elsewhere any ratio would do, and none
  is given.

  Args:
    method: `[S]` scores by seed.
    noisy: `[S]` the baseline on noisy labels, same seeds.
    clean: `[S]` the baseline on clean labels, same seeds.
    confidence: in (0, 1).

  Returns:
    With one seed, the ratio without an interval.

  Raises:
    ValueError: the shapes differ or a score is not finite.

  Source: Fieller, Some problems in interval estimation, 1954.
  """
  check_confidence(confidence)
  gain = np.subtract(*check_paired(method, noisy))
  loss = np.subtract(*check_paired(clean, noisy))
  check_paired(gain, loss)
  gap = paired_difference(clean, noisy, confidence)
  size = len(gain)
  if gap.value == 0 or (size > 1 and covers(gap, 0)):
    return Recovery(None, gap)
  ratio = float(gain.mean() / gap.value)
  if size == 1:
    return Recovery(Estimate(ratio, None, None, 1), gap)
  # (gain − ρ loss)² ≤ t² Var(gain − ρ loss), a quadratic in ρ.
  spread = np.cov(gain, loss) / size
  factor = stats.t.ppf((1 + confidence) / 2, size - 1) ** 2
  a = gap.value**2 - factor * spread[1, 1]
  b = gain.mean() * gap.value - factor * spread[0, 1]
  c = gain.mean() ** 2 - factor * spread[0, 0]
  root = np.sqrt(max(b**2 - a * c, 0.0))
  low, high = float((b - root) / a), float((b + root) / a)
  return Recovery(Estimate(ratio, min(low, ratio), max(high, ratio), size), gap)

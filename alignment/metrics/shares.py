"""Intervals of shares: exact for independent rows, Wilson's for clusters."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special, stats

from alignment.metrics.intervals import Estimate, check_confidence


def clopper_pearson(
  successes: int, count: int, confidence: float = 0.95
) -> Estimate:
  """Exact binomial interval of a share of independent rows.

  Covers at least as often as stated, whatever the share; at 0 and `count`
  successes it is one-sided with half the error, so also valid there.

  Args:
    successes: in [0, count].
    count: ≥ 1, rows.
    confidence: in (0, 1).

  Raises:
    ValueError: a range above is violated.

  Source: Clopper and Pearson, The use of confidence or fiducial limits
  illustrated in the case of the binomial, 1934.
  """
  check_confidence(confidence)
  if count < 1 or not 0 <= successes <= count:
    raise ValueError(
      f'successes={successes} must lie in [0, count={count}], count >= 1'
    )
  tail, failures = (1 - confidence) / 2, count - successes
  low = special.betaincinv(successes, failures + 1, tail) if successes else 0
  high = special.betainccinv(successes + 1, failures, tail) if failures else 1
  return Estimate(successes / count, float(low), float(high), count)


def mid_p(successes: int, count: int, confidence: float = 0.95) -> Estimate:
  """Binomial interval from exact tails that count the observed number half.

  P(X > successes) + ½ · P(X = successes) is half the error at the lower end,
  and likewise at the upper one. Clopper and Pearson count it whole and cover
  more often than stated; this covers about as often, a little less for some
  shares. At 0 successes the upper end is about 3 / count.

  Args:
    successes: in [0, count].
    count: ≥ 1, rows.
    confidence: in (0, 1).

  Raises:
    ValueError: a range above is violated.

  Source: Lancaster, Significance tests in discrete distributions, 1961; as an
  interval, Berry and Armitage, Mid-P confidence intervals: a brief review,
  1995.
  """
  widest = clopper_pearson(successes, count, confidence)
  tail = (1 - confidence) / 2

  def below(share: float) -> float:
    most = special.bdtr(successes, count, share)
    fewer = special.bdtr(successes - 1, count, share) if successes else 0.0
    return (most + fewer) / 2

  low, high = 0.0, 1.0
  if successes:
    low = optimize.brentq(
      lambda share: below(share) - (1 - tail), widest.low, widest.value
    )
  if successes < count:
    high = optimize.brentq(
      lambda share: below(share) - tail, widest.value, widest.high
    )
  return Estimate(widest.value, float(low), float(high), count)


def clustered_wilson(
  successes: np.ndarray,
  counts: np.ndarray,
  groups: np.ndarray,
  confidence: float = 0.95,
) -> Estimate:
  """Wilson interval of Σ successes / Σ counts with whole groups as drawn.

  The sandwich variance over groups, error², turns into a number of independent
  trials, share · (1 − share) / error², at most Σ counts, and Wilson's formula
  is taken at that number with t(G − 1) for its quantile. Unlike mean ± t ·
  error it stays inside [0, 1]. A share of 0 or 1 has no variance between
  groups; every group then counts as one trial.

  Args:
    successes: `[B]` ≥ 0, of every row.
    counts: `[B]` ≥ successes, trials of every row; their sum ≥ 1.
    groups: `[B]` what is drawn together.
    confidence: in (0, 1).

  Returns:
    `count` is G, the groups with a trial; no interval where there is only one.

  Raises:
    ValueError: a shape or range above is violated.

  Source: Wilson, 1927; with an effective number of trials, Korn and Graubard,
  Confidence intervals for proportions with small expected number of positive
  counts estimated from survey data, 1998.
  """
  check_confidence(confidence)
  successes = np.asarray(successes, np.float64)
  counts = np.asarray(counts, np.float64)
  if successes.ndim != 1 or not (
    successes.shape == counts.shape == np.shape(groups)
  ):
    raise ValueError(
      f'successes, counts and groups have shapes {successes.shape}, '
      f'{counts.shape} and {np.shape(groups)}; all are [B]'
    )
  if np.any(successes < 0) or np.any(successes > counts) or not counts.sum():
    raise ValueError('successes must lie in [0, counts], counts not all 0')
  used = counts > 0
  _, place = np.unique(np.asarray(groups)[used], return_inverse=True)
  hits, trials = (np.bincount(place, x[used]) for x in (successes, counts))
  size, total = len(trials), trials.sum()
  share = float(hits.sum() / total)
  if size == 1:
    return Estimate(share, None, None, 1)
  error = size / (size - 1) * np.sum((hits - share * trials) ** 2) / total**2
  spread = share * (1 - share)
  effective = size if not spread else min(total, spread / max(error, 1e-300))
  quantile = stats.t.ppf((1 + confidence) / 2, size - 1)
  return wilson_ends(share, effective, float(quantile), size)


def wilson_ends(
  share: float, trials: float, quantile: float, count: int
) -> Estimate:
  """Wilson's interval at any number of trials and any quantile."""
  scale = 1 + quantile**2 / trials
  centre = (share + quantile**2 / (2 * trials)) / scale
  half = quantile / scale
  half *= np.sqrt(share * (1 - share) / trials + (quantile / 2 / trials) ** 2)
  low, high = max(0.0, centre - half), min(1.0, centre + half)
  return Estimate(share, float(min(share, low)), float(max(share, high)), count)

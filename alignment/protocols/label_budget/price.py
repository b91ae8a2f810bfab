"""How many clean labels a noisy one is worth: theory, and by learning curves.

A judgement of a pair with margin m is Bradley-Terry, σ(m), and then flipped at
rate ε, so that P(first) = p = ε + (1 − 2ε)·σ(m). With v = σ(m)·σ(−m) the
Fisher information about m in a clean judgement is v, and in a flipped one

  ((1 − 2ε)·v)² / (p·(1 − p)),   p·(1 − p) = ε(1 − ε) + (1 − 2ε)²·v

Their ratio is (1 − 2ε)² at m = 0 exactly, and falls with |m|: on an easy pair
nearly all that a flipped judgement says is that it was flipped. Where clean
labels always name the better completion there is no such rate: they separate
the pairs, and their error falls faster with N than that of flipped ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from alignment.metrics.intervals import Estimate


def rule_of_thumb(flip_rate: float) -> float:
  """(1 − 2ε)²: the variance of a mean of flipped ±1 labels of even odds.

  An unbiased estimate from one flipped label divides it by 1 − 2ε, so N of
  them are worth N·(1 − 2ε)² clean ones where the labels themselves are close
  to even odds. An upper bound of `information_ratio`.

  Source: Natarajan et al., Learning with noisy labels, 2013 (the correction);
  derived here for its variance.
  """
  return (1 - 2 * flip_rate) ** 2


def information_ratio(margin: np.ndarray, flip_rate: float) -> np.ndarray:
  """(1 − 2ε)²·v / (ε(1 − ε) + (1 − 2ε)²·v), v = σ(m)·σ(−m), by margin.

  The clean Bradley-Terry judgements that carry the Fisher information of one
  flipped judgement of the same pair.

  Args:
    margin: `[...]`, |margin| ≤ 700.
    flip_rate: ε in [0, ½).
  """
  kept = rule_of_thumb(flip_rate)
  # 1 / v = 2 + 2·cosh(m)
  return kept / (flip_rate * (1 - flip_rate) * (2 + 2 * np.cosh(margin)) + kept)


def forward_rate(margin: np.ndarray, flip_rate: float) -> float:
  """Clean labels per flipped one, fitted by a loss that knows the rate.

    Σ v·information_ratio / Σ v

  Exact, for many labels, for the direction of a linear reward on spherical
  features: the information about every direction across the reward is the mean
  of v (or of v·ratio), as those features are independent of the margin. For
  other features an average weighted by where clean labels inform.

  Args:
    margin: `[B]` of the pairs that are labelled.
    flip_rate: ε in [0, ½).
  """
  v = special.expit(margin) * special.expit(-np.asarray(margin))
  return float(np.sum(v * information_ratio(margin, flip_rate)) / np.sum(v))


def plain_rate(margin: np.ndarray, flip_rate: float) -> float:
  """Clean labels per flipped one, fitted by the plain logistic loss.

  On spherical features the plain fit tends to c times the reward, c solving
  mean(m·(p − σ(c·m))) = 0; the variance of its direction is the sandwich
  b / (a·c)², a = mean(σ(cm)·σ(−cm)), b = mean(p(1−σ(cm))² + (1−p)σ(cm)²),
  against 1 / mean(v) of clean labels:

    rate = (a·c)² / (b · mean(v))

  Args:
    margin: `[B]` of the pairs that are labelled; not all 0.
    flip_rate: ε in [0, ½).

  Source: White, Maximum likelihood estimation of misspecified models, 1982
  (the sandwich); Li and Duan, Regression analysis under link violation, 1989
  (the direction is kept); derived here for flips.
  """
  margin = np.asarray(margin, np.float64)
  p = flip_rate + (1 - 2 * flip_rate) * special.expit(margin)

  def pull(c: float) -> float:
    return float(np.mean(margin * (p - special.expit(c * margin))))

  c = optimize.brentq(pull, 0.0, 1.0 + 1e-9)
  guess = special.expit(c * margin)
  a = np.mean(guess * (1 - guess))
  b = np.mean(p * (1 - guess) ** 2 + (1 - p) * guess**2)
  v = np.mean(special.expit(margin) * special.expit(-margin))
  return float((a * c) ** 2 / (b * v))


def equivalents(
  clean_sizes: Sequence[int],
  clean: np.ndarray,
  noisy: np.ndarray,
) -> np.ndarray:
  """How many clean labels score what noisy ones do, by learning curves.

  The mean clean curve is made monotone by isotonic regression and inverted,
  linearly in log size; outside of what it reached there is no answer.

  Args:
    clean_sizes: n sizes, increasing.
    clean: `[S, n]` scores by seed.
    noisy: `[S, k]` scores of the same seeds.

  Returns:
    `[k]` clean labels; NaN below the first or above the last point.
  """
  return _invert(np.log(clean_sizes), clean.mean(axis=0), noisy.mean(axis=0))


def equivalents_interval(
  clean_sizes: Sequence[int],
  clean: np.ndarray,
  noisy: np.ndarray,
  rng: np.random.Generator,
  *,
  confidence: float = 0.95,
  resamples: int = 1000,
) -> list[Estimate]:
  """`equivalents` with percentile intervals over resampled seeds.

  Both curves are resampled together. Where a resample leaves the clean curve
  it counts as its end, so an interval that touches the first or last size is
  open on that side.

  Args:
    clean_sizes, clean, noisy: as `equivalents`.
    rng: numpy generator.
    confidence: in (0, 1).
    resamples: number of bootstrap samples.

  Returns:
    k estimates in clean labels; without an interval from one seed, NaN where
    there is no answer.
  """
  points = equivalents(clean_sizes, clean, noisy)
  seeds = len(clean)
  if seeds == 1:
    return [Estimate(float(x), None, None, 1) for x in points]
  logs, draws = np.log(clean_sizes), []
  for rows in rng.integers(0, seeds, (resamples, seeds)):
    draws.append(
      _invert(logs, clean[rows].mean(axis=0), noisy[rows].mean(axis=0), True)
    )
  tail = (1 - confidence) / 2
  low, high = np.quantile(draws, (tail, 1 - tail), axis=0)
  return [
    Estimate(float(x), float(a), float(b), seeds)
    for x, a, b in zip(points, low, high, strict=True)
  ]


def _invert(
  logs: np.ndarray, curve: np.ndarray, scores: np.ndarray, ends: bool = False
) -> np.ndarray:
  """exp(the log size) at which a monotone version of `curve` has `scores`."""
  rising = optimize.isotonic_regression(curve).x
  # A hair of slope: a flat stretch would have no inverse.
  rising = rising + 1e-12 * np.arange(len(rising))
  outside = (None, None) if ends else (np.nan, np.nan)
  return np.exp(
    np.interp(scores, rising, logs, left=outside[0], right=outside[1])
  )

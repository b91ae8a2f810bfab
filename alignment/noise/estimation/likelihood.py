"""Profile-likelihood intervals of a rate, also where rows come in groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

from alignment.noise.estimation.estimate import RateEstimate, bounded
from alignment.noise.evidence import Evidence

FARTHEST = -1e9


def profile_interval(
  profile: Callable[[float], float],
  best: float,
  limits: tuple[float, float],
  *,
  design_effect: float = 1.0,
  num_groups: int | None = None,
  confidence: float = 0.95,
) -> tuple[float, float]:
  """Rates whose log-likelihood is close enough to the largest one.

  {rate: 2 · (profile(best) − profile(rate)) ≤ design_effect · q²}, q the
  normal quantile, or that of t(num_groups − 1).

  Args:
    profile: the log-likelihood, nats, maximised over all but the rate; falling
      away from `best` on both sides, −∞ allowed.
    best: where it is largest.
    limits: what a rate can be; an end that cannot be ruled out is the limit.
    design_effect: > 0, of the score, 1 for independent rows.
    num_groups: ≥ 2, where rows come in groups; None where they do not.
    confidence: in (0, 1).

  Source: Wilks, The large-sample distribution of the likelihood ratio, 1938;
  rescaled for groups as in Chandler and Bate, Inference for clustered data
  using the independence loglikelihood, 2007.
  """
  tail = (1 + confidence) / 2
  quantile = special.ndtri(tail)
  if num_groups is not None:
    quantile = stats.t.ppf(tail, num_groups - 1)
  floor = profile(best) - design_effect * quantile**2 / 2

  def excess(rate: float) -> float:
    return max(profile(rate) - floor, FARTHEST)

  ends = []
  for limit in limits:
    if limit == best or excess(limit) >= 0:
      ends.append(limit)
    else:
      ends.append(optimize.brentq(excess, *sorted((limit, best)), xtol=1e-5))
  return ends[0], ends[1]


def score_design_effect(scores: np.ndarray, group: np.ndarray) -> float:
  """How much more the rate's score varies over groups than over rows.

    u = scores[:, 0] − its regression on scores[:, 1:]
    G / (G − 1) · Σ_g (Σ_{i in g} u_i)² / Σ_i u_i²

  Args:
    scores: `[B, P]` derivatives of a row's log-likelihood at the maximum, of
      the rate first, then of the nuisance parameters.
    group: `[B]` what is drawn together.

  Returns:
    1 where every row is its own group, or nothing varies.
  """
  _, place = np.unique(group, return_inverse=True)
  size = place.max() + 1
  own, rest = scores[:, 0], scores[:, 1:]
  own = own - rest @ np.linalg.lstsq(rest, own)[0]
  total = np.sum(own**2)
  if size in (1, len(own)) or not total:
    return 1.0
  sums = np.bincount(place, own)
  return float(size / (size - 1) * np.sum(sums**2) / total)


def count_groups(group: np.ndarray) -> int | None:
  """Number of groups; None where every row is its own."""
  size = len(np.unique(group))
  return None if size == len(group) else size


def estimate_with_profile(
  name: str,
  assumption: str,
  evidence: Evidence,
  profile: Callable[[float], float],
  rate: float,
  scores: np.ndarray,
  *,
  upper: float,
  caution: float = 1.0,
) -> RateEstimate:
  """A rate with its profile-likelihood interval over [0, upper].

  Args:
    name, assumption: of the estimate.
    evidence: whose groups of rows are drawn.
    profile, scores: as in `profile_interval` and `score_design_effect`.
    rate: where `profile` is largest.
    upper: the largest rate that is considered.
    caution: ≥ 1, what the design effect is multiplied by.
  """
  num_groups = count_groups(evidence.group)
  count, unit = num_groups or len(evidence), evidence.group_name
  if count == 1:
    return bounded(name, assumption, rate, None, None, count=1, unit=unit)
  low, high = profile_interval(
    profile,
    rate,
    (0.0, upper),
    design_effect=caution * score_design_effect(scores, evidence.group),
    num_groups=num_groups,
  )
  return bounded(name, assumption, rate, low, high, count=count, unit=unit)

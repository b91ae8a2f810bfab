"""Money: experts and crowd votes bought together, and the cheapest way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import optimize

from alignment.metrics.intervals import Estimate
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Labels

CLEAN_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the money that go to experts."""


def buy_mix(
  clean: Pool,
  noisy: Pool,
  *,
  money: float,
  clean_share: float,
  cost_clean: float,
  cost_vote: float,
) -> Labels | None:
  """Spends a share of the money on expert labels, the rest on single votes.

  Experts judge the first pairs, the crowd those that follow.

  Args:
    clean, noisy: the same pairs, judged by experts and by the crowd.
    money: > 0.
    clean_share: of the money, in [0, 1].
    cost_clean, cost_vote: > 0, per judgement, in the unit of `money`.

  Returns:
    Labels whose loss assumes `clean.flip_rate` of experts and
    `noisy.flip_rate` of the crowd; None where the pool is too small or the
    money buys nothing.
  """
  experts = int(clean_share * money / cost_clean + 1e-9)
  votes = int((1 - clean_share) * money / cost_vote + 1e-9)
  if not 0 < experts + votes <= len(clean):
    return None
  first = np.where(
    np.arange(len(clean)) < experts, clean.votes[:, 0], noisy.votes[:, 0]
  )
  by_expert = np.arange(len(clean)) < experts
  return Labels(
    (first > 0).astype(float),
    (np.arange(len(clean)) < experts + votes).astype(float),
    np.where(by_expert, clean.flip_rate, noisy.flip_rate),
  )


def cost_to_reach(
  target: float, money: np.ndarray, scores: np.ndarray
) -> float:
  """Least money at which a monotone version of the curve has the target.

  Args:
    target: the score wanted.
    money: `[n]` > 0, increasing.
    scores: `[n]`.

  Returns:
    Money, interpolated in its logarithm; infinite where the curve does not get
    there, `money[0]` where it is there from the start.
  """
  rising = optimize.isotonic_regression(scores).x
  if rising[-1] < target:
    return np.inf
  at = int(np.argmax(rising >= target))
  if at == 0:
    return float(money[0])
  low, high = rising[at - 1], rising[at]
  share = (target - low) / (high - low)
  return float(money[at - 1] ** (1 - share) * money[at] ** share)


def cheapest(
  target: float,
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
  rng: np.random.Generator,
  *,
  confidence: float = 0.95,
  resamples: int = 1000,
) -> dict[str, tuple[Estimate, float]]:
  """What each way costs to the target, and how surely it is the cheapest.

  Args:
    target: the score wanted.
    curves: way -> (money `[n]`, scores `[S, n]` by seed, the same seeds).
    rng: numpy generator.
    confidence: of the percentile intervals over resampled seeds.
    resamples: number of bootstrap samples.

  Returns:
    way -> (its cost, share of resamples in which it is the cheapest). The cost
    is infinite where the target was not reached, without an interval from one
    seed; its upper end is infinite where some resamples did not reach it.
  """
  seeds = len(next(iter(curves.values()))[1])
  points = {
    way: cost_to_reach(target, money, scores.mean(axis=0))
    for way, (money, scores) in curves.items()
  }
  if seeds == 1:
    best = min(points, key=points.get)
    return {
      way: (Estimate(x, None, None, 1), float(way == best))
      for way, x in points.items()
    }
  draws = np.array(
    [
      [
        cost_to_reach(target, money, scores[rows].mean(axis=0))
        for money, scores in curves.values()
      ]
      for rows in rng.integers(0, seeds, (resamples, seeds))
    ]
  )
  wins = np.bincount(draws.argmin(axis=1), minlength=len(curves)) / resamples
  tail = (1 - confidence) / 2
  low, high = np.quantile(draws, (tail, 1 - tail), axis=0, method='nearest')
  return {
    way: (Estimate(x, float(low[i]), float(high[i]), seeds), float(wins[i]))
    for i, (way, x) in enumerate(points.items())
  }

"""One seed's measurements: what was bought, what it cost, what it taught.

Every function returns points, JSON objects that say what was done and how the
reward fitted to it scores; `select` and `by_unit` read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from alignment.protocols.label_budget import mixes, queries
from alignment.protocols.label_budget.aggregation import (
  AGGREGATIONS,
  is_meant_for,
  votes,
)
from alignment.protocols.label_budget.allocation import ALLOCATIONS, spread
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import (
  Labels,
  Validation,
  fit_reward,
)

Point = dict[str, Any]
CEILING, FLOOR = 'ceiling', 'floor'
"""Names that controls bear in place of an allocation."""
Reading = tuple[int, Callable[[Pool, np.ndarray], Labels]]


class Judge(Protocol):
  """Held-out pairs: a world, embedded or recorded."""

  def scores(self, weights: np.ndarray) -> dict[str, float]: ...


def allocation_points(
  pool: Pool, validation: Validation, judge: Judge, budgets: Sequence[int]
) -> list[Point]:
  """Every allocation of every budget, under every aggregation meant for it.

  Args:
    pool: what can be bought.
    validation: the same for all.
    judge: held-out pairs.
    budgets: votes.
  """

  def fit(labels: Labels) -> np.ndarray:
    return fit_reward(pool.features, labels, validation)

  points = []
  for budget in budgets:
    for allocation, (buy, fewest, most) in ALLOCATIONS.items():
      taken = buy(pool, budget, fit)
      for aggregation, aggregate in AGGREGATIONS.items():
        if not is_meant_for(aggregation, fewest, most):
          continue
        weights = fit(aggregate(pool, taken))
        points.append(
          {
            'budget': budget,
            'allocation': allocation,
            'aggregation': aggregation,
            'votes': int(taken.sum()),
            'pairs': int(np.sum(taken > 0)),
            'scores': judge.scores(weights),
          }
        )
  return points


def control_point(
  pool: Pool, validation: Validation, judge: Judge, budget: int, depth: int
) -> Point:
  """What to hold beside an allocation: `depth` votes a pair, at their word.

  Args:
    pool: of clean labels, or with a budget that buys all there is.
    validation, judge: as for the allocations.
    budget: votes.
    depth: votes of a pair.
  """
  taken = spread(pool, budget, depth=depth)
  weights = fit_reward(pool.features, votes(pool, taken), validation)
  return {
    'budget': budget,
    'votes': int(taken.sum()),
    'pairs': int(np.sum(taken > 0)),
    'scores': judge.scores(weights),
  }


def curve_points(
  pool: Pool,
  validation: Validation,
  judge: Judge,
  sizes: Sequence[int],
  readings: Mapping[str, Reading],
) -> list[Point]:
  """Learning curves in the number of labelled pairs.

  Args:
    pool: pairs are taken from the first on.
    validation, judge: the same for all that is compared.
    sizes: of the curve.
    readings: name -> (votes of a pair that are read, how).
  """
  points = []
  for size in sizes:
    for name, (depth, read) in readings.items():
      taken = np.minimum(pool.num_votes, depth) * (np.arange(len(pool)) < size)
      weights = fit_reward(pool.features, read(pool, taken), validation)
      points.append(
        {'reading': name, 'size': size, 'scores': judge.scores(weights)}
      )
  return points


def query_points(
  pool: Pool,
  validation: Validation,
  judge: Judge,
  seed: int,
  *,
  batch: int,
  rounds: int,
) -> list[Point]:
  """The course of every query policy; each starts from the same batch."""
  points = []
  for policy in queries.QUERY_POLICIES:
    rng = np.random.default_rng([seed, 1])
    course = queries.ask(
      policy, pool, validation, rng, start=batch, batch=batch, rounds=rounds
    )
    points += [
      {'policy': policy, 'votes': bought, 'scores': judge.scores(weights)}
      for bought, weights in course
    ]
  return points


def mix_points(
  clean: Pool,
  noisy: Pool,
  validation: Validation,
  judge: Judge,
  *,
  money: Sequence[float],
  cost_clean: float,
  cost_vote: float,
) -> list[Point]:
  """Every mix of experts and crowd at every amount of money it can spend."""
  points = []
  for share in mixes.CLEAN_SHARES:
    for amount in money:
      labels = mixes.buy_mix(
        clean,
        noisy,
        money=amount,
        clean_share=share,
        cost_clean=cost_clean,
        cost_vote=cost_vote,
      )
      if labels is None:
        continue
      weights = fit_reward(clean.features, labels, validation)
      points.append(
        {
          'clean_share': share,
          'money': amount,
          'scores': judge.scores(weights),
        }
      )
  return points


def halvings(largest: int, count: int) -> list[int]:
  """largest, largest / 2, …: `count` sizes, ascending."""
  return [largest >> power for power in reversed(range(count))]


def select(points: Sequence[Point], **wanted: Any) -> list[Point]:
  """The points that have all of `wanted`."""
  return [
    p for p in points if all(p.get(key) == x for key, x in wanted.items())
  ]


def by_unit(points: Sequence[Point], metric: str | None) -> np.ndarray:
  """`[U]` scores by the unit that an interval is over.

  Args:
    points: of one thing that was done, by seed.
    metric: units are seeds and this is what is read; None: scores are by
      title, units are titles, each the mean over the seeds that held it out.
  """
  values: dict[Any, list[float]] = {}
  for point in points:
    scores: Mapping[str, float] = point['scores']
    if metric is not None:
      scores = {point['seed']: scores[metric]}
    for unit, score in scores.items():
      values.setdefault(unit, []).append(score)
  return np.array([np.mean(values[unit]) for unit in sorted(values)])


def area(points: Sequence[Point], metric: str | None) -> np.ndarray:
  """`[U]` mean score over votes: the area under a course, over its width.

  Args:
    points: of one policy.
    metric: as in `by_unit`.
  """
  votes_seen = sorted({point['votes'] for point in points})
  rows = [by_unit(select(points, votes=v), metric) for v in votes_seen]
  width = votes_seen[-1] - votes_seen[0]
  return np.trapezoid(rows, votes_seen, axis=0) / width

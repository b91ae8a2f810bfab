"""A budget of votes, spread wide or deep.

`buy` is `(pool, budget, fit) -> taken`: how many votes of each pair are bought,
from the left. It never exceeds the budget, and asks no pair for a vote that it
lacks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from alignment.protocols.label_budget import aggregation
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Labels

Fit = Callable[[Labels], np.ndarray]
"""labels -> the weights `[D]` of a reward fitted to them."""


def spread(
  pool: Pool, budget: int, fit: Fit | None = None, *, depth: int
) -> np.ndarray:
  """`depth` votes on each of the first budget / depth pairs."""
  del fit
  return _within(np.minimum(pool.num_votes, depth), budget)


def disagree(pool: Pool, budget: int, fit: Fit) -> np.ndarray:
  """Two votes on each pair, and a third where they are not the same."""
  del fit
  pairs = np.minimum(pool.num_votes, 2)
  differ = (pairs == 2) & (pool.votes[:, 0] != pool.votes[:, 1])
  return _within(np.minimum(pool.num_votes, pairs + differ), budget)


def unsure(pool: Pool, budget: int, fit: Fit) -> np.ndarray:
  """Half the budget wide; the rest where a reward fitted to it is least sure.

  A pair that is among the smallest |scores| gets two more votes.
  """
  taken = spread(pool, budget - budget // 2, depth=1)
  if not np.any(taken):
    return taken
  weights = fit(aggregation.votes(pool, taken))
  score = np.where(taken > 0, np.abs(pool.features @ weights), np.inf)
  order = np.argsort(score, kind='stable')
  more = np.minimum(pool.num_votes, 3) - taken
  more[taken == 0] = 0
  extra = np.zeros_like(taken)
  extra[order] = _within(more[order], budget - int(taken.sum()))
  return taken + extra


class Allocation(NamedTuple):
  """How to buy, and how many votes a pair gets that is bought at all.

  The last pair may get fewer, and one that lacks votes gets what it has.
  """

  buy: Callable[[Pool, int, Fit], np.ndarray]
  fewest: int
  most: int


ALLOCATIONS: Mapping[str, Allocation] = {
  '1 each': Allocation(functools.partial(spread, depth=1), 1, 1),
  '3 each': Allocation(functools.partial(spread, depth=3), 3, 3),
  '5 each': Allocation(functools.partial(spread, depth=5), 5, 5),
  '3rd if 2 disagree': Allocation(disagree, 2, 3),
  '3 where unsure': Allocation(unsure, 1, 3),
}


def _within(wanted: np.ndarray, budget: int) -> np.ndarray:
  """What of `wanted` `[B]` the budget buys, from the first pair on."""
  before = np.cumsum(wanted) - wanted
  return np.clip(budget - before, 0, wanted)

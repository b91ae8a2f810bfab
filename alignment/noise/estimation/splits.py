"""How votes on two classes divide: 5-0, 4-1, 3-2, without saying which won."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from alignment.noise.crowd.table import VoteTable


class Splits(NamedTuple):
  """Rows with at least two votes, by number of votes and size of minority.

  As the order of classes carries no meaning, which class won tells nothing
  of flips, and these cells hold all that anonymous votes tell.

  Attributes:
    votes: `[K]` votes V of a cell's rows.
    minority: `[K]` votes m of the smaller side, 0 ≤ m ≤ V / 2.
    count: `[K]` rows of the cell, zeros included.
    row: `[B]` positions of the rows in the vote table.
    cell: `[B]` the cell of each.
  """

  votes: np.ndarray
  minority: np.ndarray
  count: np.ndarray
  row: np.ndarray
  cell: np.ndarray


def vote_splits(votes: VoteTable, *, at_least: int = 2) -> Splits:
  """Tabulates the splits of the rows with `at_least` votes or more."""
  total = votes.counts.sum(axis=1)
  row = np.flatnonzero(total >= at_least)
  minority = votes.counts[row].min(axis=1)
  sizes = np.unique(total[row])
  cells = [(v, m) for v in sizes for m in range(v // 2 + 1)]
  first = np.cumsum([0, *(sizes // 2 + 1)])
  cell = first[np.searchsorted(sizes, total[row])] + minority
  pairs = np.array(cells, np.int64).reshape(-1, 2)
  count = np.bincount(cell, minlength=len(pairs))
  return Splits(pairs[:, 0], pairs[:, 1], count, row, cell)


def log_equal(splits: Splits, rate: float) -> np.ndarray:
  """`[K]` log P(minority | votes) if every row has the same flip rate.

  log C(V, m) · [rate^m · (1 − rate)^(V − m) + rate^(V − m) · (1 − rate)^m],
  halved where both sides are equal.
  """
  small, large = splits.minority, splits.votes - splits.minority
  forth = special.xlogy(small, rate) + special.xlog1py(large, -rate)
  back = special.xlogy(large, rate) + special.xlog1py(small, -rate)
  return _log_ways(splits) + np.logaddexp(forth, back)


def log_beta(splits: Splits, mean: float, spread: np.ndarray) -> np.ndarray:
  """`[..., K]` the same if rates of rows follow a Beta law.

  Beta(mean · n, (1 − mean) · n) with n = 1 / spread − 1, so that the variance
  is mean · (1 − mean) · spread; either class may be the true one.

  Args:
    splits: the cells.
    mean: in (0, 1).
    spread: `[...]` in (0, 1).
  """
  weight = (1 / np.asarray(spread, np.float64) - 1)[..., None]
  a, b = mean * weight, (1 - mean) * weight
  small, large = splits.minority, splits.votes - splits.minority
  both = np.logaddexp(
    special.betaln(a + small, b + large), special.betaln(a + large, b + small)
  )
  return _log_ways(splits) + both - special.betaln(a, b)


def _log_ways(splits: Splits) -> np.ndarray:
  small, votes = splits.minority, splits.votes
  ways = -np.log1p(votes) - special.betaln(small + 1, votes - small + 1)
  return ways - np.log(2) * (2 * small == votes)

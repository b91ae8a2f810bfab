"""Predictions of votes not seen: the part of a rate that can be scored.

A flip rate itself is never observed, but a model of votes that gives one also
says how all votes on a row will split and whether the next vote will agree.
Rates are fitted on one half of the groups from a few votes a row, and the
prediction is compared with all votes of the other half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from alignment.metrics.intervals import Estimate
from alignment.metrics.shares import clustered_wilson
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.heterogeneity import FEWEST_VOTES, fit_beta
from alignment.noise.estimation.splits import (
  Splits,
  log_beta,
  log_equal,
  vote_splits,
)

EQUAL, ANY, BETA = 'one rate', 'any rates', 'beta rates'


class ForecastRow(NamedTuple):
  """A prediction beside what was observed.

  Attributes:
    model: `one rate` for all rows, `any rates` (what the seen votes imply
      whatever the law of rates; a range), `beta rates`.
    quantity: such as `4-1 split`, or `a vote joins 2-0`.
    num_seen: votes a row that the model was fitted on.
    low, high: predicted range; equal for a point.
    predicted: the point, None of a range.
    observed: share with its interval over the groups held out.
    is_covered: whether prediction and observation agree within the intervals
      of both.
  """

  model: str
  quantity: str
  num_seen: int
  low: float
  high: float
  predicted: float | None
  observed: Estimate
  is_covered: bool


def forecast_votes(
  votes: VoteTable,
  group: np.ndarray,
  rng: np.random.Generator,
  *,
  num_seen: int = 2,
) -> list[ForecastRow]:
  """Predicts how held-out rows' votes split from a few votes on other rows.

  Every row with the commonest number of votes V, or more, enters with V of
  them in random order. On half of the groups models see the first `num_seen`
  votes; observed are all V on the other half, and how often the vote after
  the seen ones joins them where these agree.

  From two or three votes only E[ε(1 − ε)] is known: `one rate` turns it into
  splits by assuming one rate, `any rates` into the range over all laws of
  rates in [0, ½]. A Beta law needs four votes, so `beta rates` sees four, and
  appears where V ≥ 5. Whether a vote joins two that agree follows from how
  often two agree, for any votes in random order: it tests whether groups are
  alike, no model.

  Args:
    votes: of two classes.
    group: `[num_tasks]` what is drawn together.
    rng: draws votes and groups.
    num_seen: ≥ 2.

  Returns:
    Empty where there are fewer than four groups, or no row has more votes than
    `num_seen`.

  Raises:
    ValueError: num_seen < 2, or votes of more than two classes.
  """
  if num_seen < 2 or votes.num_classes != 2:
    raise ValueError(
      f'num_seen={num_seen} must be >= 2, num_classes={votes.num_classes} 2'
    )
  label, row = _drawn_votes(votes, num_seen, rng)
  group = np.asarray(group)[row]
  names = rng.permutation(np.unique(group))
  if len(names) < 4:
    return []
  fitted = np.isin(group, names[: len(names) // 2])
  train, test = label[fitted], label[~fitted]
  observed = _observed(test, group[~fitted], num_seen)
  rows = _from_agreement(train[:, :num_seen], group[fitted], observed)
  if label.shape[1] > FEWEST_VOTES:
    observed = _observed(test, group[~fitted], FEWEST_VOTES)
    seen = train[:, :FEWEST_VOTES]
    rows += _from_beta(seen, group[fitted], observed, rng)
  return rows


class _Observed(NamedTuple):
  """Shares on the held-out rows: of splits, and of votes that join."""

  cells: Splits
  splits: list[Estimate]
  joins: Estimate | None


def _drawn_votes(
  votes: VoteTable, num_seen: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """`[R, V]` labels in random order, and the R rows they are of."""
  total = votes.counts.sum(axis=1)
  often = np.bincount(total)
  often[: num_seen + 1] = 0
  if not often.any():
    return np.zeros((0, num_seen), int), np.zeros(0, int)
  size = int(np.argmax(often))
  order = np.lexsort((rng.random(len(votes)), votes.task))
  first = np.cumsum(total) - total
  row = np.flatnonzero(total >= size)
  return votes.label[order][first[row, None] + np.arange(size)], row


def _observed(label: np.ndarray, group: np.ndarray, num_seen: int) -> _Observed:
  cells = vote_splits(_table(label))
  ones = np.ones(len(label))
  splits = [
    clustered_wilson(cells.cell == cell, ones, group)
    for cell in range(len(cells.count))
  ]
  seen = label[:, :num_seen]
  agree = np.all(seen == seen[:, :1], axis=1)
  joined = label[:, num_seen] == seen[:, 0]
  joins = None
  if agree.any():
    joins = clustered_wilson(joined[agree], ones[agree], group[agree])
  return _Observed(cells, splits, joins)


def _from_agreement(
  seen: np.ndarray, group: np.ndarray, observed: _Observed
) -> list[ForecastRow]:
  """Predictions of one rate, and the range over all laws of rates."""
  count = seen.sum(axis=1)
  size = seen.shape[1]
  apart = clustered_wilson(
    count * (size - count), np.full(len(seen), size * (size - 1) // 2), group
  )
  # Two votes differ with probability 2E[u], u = ε(1 − ε) ≤ 1/4.
  limits = apart[:3] if apart.low is not None else (apart.value,) * 3
  moments = np.minimum(np.array(limits) / 2, 0.25)
  rates = _rate_of(np.linspace(moments[1], moments[2], 33))
  cells, one, every = observed.cells, [], []
  for cell, share in enumerate(observed.splits):
    name = f'{cells.votes[cell] - cells.minority[cell]}-{cells.minority[cell]}'
    name = f'{name} split'
    along = np.array([np.exp(log_equal(cells, r))[cell] for r in rates])
    point = float(np.exp(log_equal(cells, _rate_of(moments[0])))[cell])
    limits = (min(along.min(), point), max(along.max(), point))
    one.append(_row(EQUAL, name, size, point, limits, share))
    ranges = np.array([split_range(cells, cell, u) for u in moments])
    limits = (ranges[:, 0].min(), ranges[:, 1].max())
    every.append(_row(ANY, name, size, tuple(ranges[0]), limits, share))
  if observed.joins is not None:
    along = _joining(rates, size)
    point = float(_joining(_rate_of(moments[0]), size))
    row = _row(
      EQUAL if size > 2 else ANY,
      f'a vote joins {size}-0',
      size,
      point,
      (along.min(), along.max()),
      observed.joins,
    )
    (one if size > 2 else every).append(row)
  return one + every


def _from_beta(
  seen: np.ndarray,
  group: np.ndarray,
  observed: _Observed,
  rng: np.random.Generator,
  resamples: int = 60,
) -> list[ForecastRow]:
  """Predictions of a Beta law, limits from a bootstrap over groups."""
  splits = vote_splits(_table(seen))
  _, place = np.unique(group, return_inverse=True)
  size = place.max() + 1
  by_group = np.zeros((size, len(splits.count)))
  np.add.at(by_group, (place, splits.cell), 1)
  times = rng.multinomial(size, np.full(size, 1 / size), resamples)
  cells, votes = observed.cells, seen.shape[1]
  drawn = []
  for count in [splits.count, *(times @ by_group)]:
    mean, spread = fit_beta(splits._replace(count=count))
    shares = np.exp(log_beta(cells, mean, spread))
    unanimous = np.exp(log_beta(splits, mean, spread))[splits.minority == 0]
    drawn.append([*shares, shares[0] / unanimous[0]])
  point, drawn = drawn[0], np.array(drawn[1:])
  ends = np.quantile(drawn, (0.025, 0.975), axis=0).T
  names = [
    f'{v - m}-{m} split'
    for v, m in zip(cells.votes, cells.minority, strict=True)
  ]
  rows = [
    _row(BETA, name, votes, float(point[i]), tuple(ends[i]), share)
    for i, (name, share) in enumerate(zip(names, observed.splits, strict=True))
  ]
  if observed.joins is not None and cells.votes[0] == votes + 1:
    name = f'a vote joins {votes}-0'
    row = _row(
      BETA, name, votes, float(point[-1]), tuple(ends[-1]), observed.joins
    )
    rows.append(row)
  return rows


def _row(
  model: str,
  quantity: str,
  num_seen: int,
  inner: float | tuple[float, float],
  limits: tuple[float, float],
  observed: Estimate,
) -> ForecastRow:
  """Compares; `inner` is the prediction without, `limits` with its error."""
  point = inner if isinstance(inner, float) else None
  low, high = (inner, inner) if point is not None else inner
  outer_low, outer_high = min(limits[0], low), max(limits[1], high)
  value = observed.value
  if low <= value <= high or observed.low is None:
    is_covered = True
  elif value < low:
    is_covered = low - value <= np.hypot(low - outer_low, observed.high - value)
  else:
    is_covered = value - high <= np.hypot(
      outer_high - high, value - observed.low
    )
  return ForecastRow(
    model,
    quantity,
    num_seen,
    float(outer_low),
    float(outer_high),
    point,
    observed,
    bool(is_covered),
  )


def split_range(cells: Splits, cell: int, moment: float) -> tuple[float, float]:
  """Least and largest share of a split over laws of rates of one E[u].

  Both are reached by laws of two rates, one on either side of the moment.
  """
  u = np.linspace(0, 0.25, 401)
  share = np.array([np.exp(log_equal(cells, r))[cell] for r in _rate_of(u)])
  below, above = u <= moment, u >= moment
  gap = u[above][None, :] - u[below][:, None]
  weight = np.where(
    gap > 0, (moment - u[below][:, None]) / np.where(gap > 0, gap, 1), 0.0
  )
  mixed = (1 - weight) * share[below][:, None] + weight * share[above][None, :]
  return float(mixed.min()), float(mixed.max())


def _rate_of(moment: np.ndarray) -> np.ndarray:
  """ε ≤ ½ with ε(1 − ε) = moment."""
  return (1 - np.sqrt(np.maximum(1 - 4 * np.asarray(moment), 0))) / 2


def _joining(rate: np.ndarray, seen: int) -> np.ndarray:
  """P(a further vote agrees | `seen` votes agree) at one rate."""
  more = special.xlogy(seen + 1, [rate, 1 - np.asarray(rate)])
  fewer = special.xlogy(seen, [rate, 1 - np.asarray(rate)])
  return np.exp(more).sum(axis=0) / np.exp(fewer).sum(axis=0)


def _table(label: np.ndarray) -> VoteTable:
  """A `[R, V]` matrix of labels as a table, workers by column."""
  rows, votes = label.shape
  return VoteTable(
    np.repeat(np.arange(rows), votes),
    np.tile(np.arange(votes), rows),
    label.reshape(-1).astype(np.int32),
    max(rows, 1),
    votes,
    2,
  )

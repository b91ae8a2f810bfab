"""From trained cells to a table: paired intervals, recovery, what is best.

A cell is one contestant in one arena at one flip rate, a JSON object as
`bakeoff.cell_row` writes it. Cells of different contestants with the same seed
and flip rate share everything else, so they are compared by differences.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.comparison import Best, Recovery, best_of, recovery
from alignment.metrics.intervals import (
  Estimate,
  clustered_mean,
  covers,
  mean_interval,
)

Cell = Mapping[str, Any]

PER_PAIR = ('agreement',)
"""Metrics that a cell also keeps for every test pair, in `correct`."""
RECOVERABLE = ('accuracy', 'gold', 'agreement')
"""Metrics with a ceiling, the baseline on clean labels."""


@dataclasses.dataclass(frozen=True)
class Units:
  """What an interval is over.

  Attributes:
    clusters: seed -> `[n_test]` name of the cluster of every test pair; a
      cluster's pairs are pooled over the seeds that test it. None where the
      seed is the unit (everything is redrawn with it). With one seed there is
      no interval over clusters either: it would speak of new text for the same
      trained models, and not of the losses.
  """

  clusters: Mapping[int, Sequence[str]] | None = None

  def by_pair(self, metric: str) -> bool:
    """Whether a metric's interval is over clusters of test pairs."""
    many = self.clusters is not None and len(self.clusters) > 1
    return many and metric in PER_PAIR

  def values(self, cells: Sequence[Cell], setting: str, metric: str):
    """Scores by unit: `[S]` by seed, or `[Σ n_test]` by test pair."""
    if not self.by_pair(metric):
      return np.array([c[setting]['summary'][metric] for c in cells])
    return np.concatenate([c[setting]['correct'] for c in cells])

  def groups(self, cells: Sequence[Cell], metric: str) -> np.ndarray | None:
    """The cluster of every row, or None where the unit is the seed."""
    if not self.by_pair(metric):
      return None
    return np.concatenate([self.clusters[c['seed']] for c in cells])

  def interval(self, values: np.ndarray, groups: np.ndarray | None) -> Estimate:
    """The mean of `values` with its interval over seeds, or over `groups`."""
    if groups is None:
      return mean_interval(values)
    return clustered_mean(values, groups)

  def mean(self, cells: Sequence[Cell], setting: str, metric: str) -> Estimate:
    values = self.values(cells, setting, metric)
    return self.interval(values, self.groups(cells, metric))

  def difference(
    self,
    cells: Sequence[Cell],
    others: Sequence[Cell],
    setting: str,
    metric: str,
    other_setting: str | None = None,
  ) -> Estimate:
    """cells − others, paired."""
    first = self.values(cells, setting, metric)
    second = self.values(others, other_setting or setting, metric)
    return self.interval(first - second, self.groups(cells, metric))


@dataclasses.dataclass(frozen=True)
class Standing:
  """One line of the table.

  Attributes:
    name: the contestant.
    assumed: the flip rate it assumes, on average over the seeds where each has
      an estimate of its own; None where it takes none.
    means: metric -> mean with its interval.
    differences: metric -> paired difference to the baseline; empty for the
      baseline itself.
    recovery: metric -> share of the damage undone.
    fitted: mean share of flipped training pairs fitted; NaN without flips.
    stops: (learning rate, step) of every seed.
  """

  name: str
  assumed: float | None
  means: Mapping[str, Estimate]
  differences: Mapping[str, Estimate]
  recovery: Mapping[str, Recovery]
  fitted: float
  stops: Sequence[tuple[float, int]]


def select(cells: Sequence[Cell], **wanted: Any) -> list[Cell]:
  """The cells whose fields equal `wanted`, by seed."""
  found = [c for c in cells if all(c[k] == v for k, v in wanted.items())]
  return sorted(found, key=lambda cell: cell['seed'])


def standings(
  cells: Sequence[Cell],
  *,
  flip_rate: float,
  setting: str,
  metrics: Sequence[str],
  units: Units,
  baseline: str,
  clean: Sequence[Cell],
) -> list[Standing]:
  """The table at one flip rate.

  Args:
    cells: of all contestants and flip rates.
    flip_rate: which of them.
    setting: `selected`, `fixed` or `oracle`.
    metrics: keys of a cell's summary.
    units: what intervals are over.
    baseline: name of the contestant that others are compared with.
    clean: the baseline's cells on clean labels, the ceiling of recovery.
  """
  here = [c for c in cells if c['flip_rate'] == flip_rate]
  names = list(dict.fromkeys(c['name'] for c in here))
  base = select(here, name=baseline)
  return [
    _standing(select(here, name=name), base, clean, setting, metrics, units)
    for name in names
  ]


def best_of_standings(
  cells: Sequence[Cell],
  *,
  flip_rate: float,
  setting: str,
  metric: str,
  units: Units,
  among: Sequence[str],
) -> Best:
  """Which of `among` is best on a metric, and what cannot be told from it."""
  here = {name: select(cells, flip_rate=flip_rate, name=name) for name in among}
  scores = {
    name: units.values(rows, setting, metric) for name, rows in here.items()
  }
  first = next(iter(here.values()))
  return best_of(
    scores,
    groups=units.groups(first, metric),
    higher_is_better=not metric.startswith('kl'),
  )


def _standing(rows, base, clean, setting, metrics, units) -> Standing:
  is_base = rows[0]['name'] == base[0]['name']
  differences, recovered = {}, {}
  for metric in metrics:
    if is_base:
      continue
    differences[metric] = units.difference(rows, base, setting, metric)
    if clean and metric in RECOVERABLE:
      recovered[metric] = _recovery(rows, base, clean, setting, metric, units)
  return Standing(
    name=rows[0]['name'],
    assumed=_common([row['assumed'] for row in rows]),
    means={m: units.mean(rows, setting, m) for m in metrics},
    differences=differences,
    recovery=recovered,
    fitted=_mean_fitted(rows, setting),
    stops=[
      (row[setting]['stop']['learning_rate'], row[setting]['stop']['step'])
      for row in rows
    ],
  )


def _recovery(rows, base, clean, setting, metric, units) -> Recovery:
  if not units.by_pair(metric):
    scores = [units.values(c, setting, metric) for c in (rows, base, clean)]
    return recovery(*scores)
  gap = units.difference(clean, base, setting, metric)
  if covers(gap, 0):
    return Recovery(None, gap)
  # A ratio of clustered sums has no simple interval: the point alone.
  gain = units.difference(rows, base, setting, metric)
  return Recovery(Estimate(gain.value / gap.value, None, None, gap.count), gap)


def _common(rates: Sequence[float | None]) -> float | None:
  """The one value, or the mean of several."""
  return rates[0] if len(set(rates)) == 1 else round(float(np.mean(rates)), 3)


def _mean_fitted(rows: Sequence[Cell], setting: str) -> float:
  fitted = [row[setting]['stop']['fitted'] for row in rows]
  return math.nan if None in fitted else float(np.mean(fitted))

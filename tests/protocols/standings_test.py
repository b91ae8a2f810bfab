"""From cells to a table: hand-computed intervals, clusters, recovery."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.protocols.standings import (
  Units,
  best_of_standings,
  select,
  standings,
)

SCORES = {
  'dpo': (0.60, 0.63, 0.58, 0.61),
  'rdpo@0.4': (0.66, 0.64, 0.63, 0.68),
  'dpo (clean)': (0.75, 0.80, 0.74, 0.78),
}
# Student's t at 97.5 % with 3 degrees of freedom, from a table.
T3 = 3.182446


def cell(name, seed, value, **more):
  stop = {'learning_rate': 0.01 * (1 + seed % 2), 'step': 8, 'fitted': 0.25}
  summary = {'accuracy': value, 'kl': 2 * value}
  return {
    'seed': seed,
    'flip_rate': 0.4,
    'role': 'clean' if 'clean' in name else 'contestant',
    'name': name,
    'assumed': 0.4 if '@' in name else None,
    'selected': {'stop': stop, 'summary': summary, **more},
  }


# In the order that threads happened to finish.
CELLS = [
  cell(name, seed, value)
  for name, values in SCORES.items()
  for seed, value in reversed(list(enumerate(values)))
]


def table(units=None, metrics=('accuracy', 'kl'), cells=None):
  lines = standings(
    CELLS if cells is None else cells,
    flip_rate=0.4,
    setting='selected',
    metrics=metrics,
    units=units or Units(),
    baseline='dpo',
    clean=select(CELLS if cells is None else cells, role='clean'),
  )
  return {line.name: line for line in lines}


def test_rates_assumed_by_seed_are_averaged():
  cells = [
    c | {'assumed': 0.1 * (1 + c['seed']) if '@' in c['name'] else None}
    for c in CELLS
  ]
  found = {name: line.assumed for name, line in table(cells=cells).items()}
  once = {name: line.assumed for name, line in table().items()}
  for name, assumed in found.items():
    assert assumed == (0.25 if '@' in name else None)
    assert once[name] == (0.4 if '@' in name else None)
  assert any('@' in name for name in found)


def test_cells_are_selected_by_seed():
  found = select(CELLS, name='dpo', flip_rate=0.4)
  assert [c['seed'] for c in found] == [0, 1, 2, 3]
  assert select(CELLS, name='dpo', flip_rate=0.2) == []


def test_paired_differences_by_hand():
  line = table()['rdpo@0.4']
  differences = np.array([0.06, 0.01, 0.05, 0.07])
  half = T3 * differences.std(ddof=1) / 2
  found = line.differences['accuracy']
  np.testing.assert_allclose(
    found[:3],
    [0.0475, 0.0475 - half, 0.0475 + half],
    rtol=1e-6,
  )
  assert found.count == 4
  assert line.means['accuracy'].value == pytest.approx(0.6525)
  np.testing.assert_allclose(line.differences['kl'].value, 0.095)


def test_recovery_is_of_what_clean_labels_win():
  lines = table()
  found = lines['rdpo@0.4'].recovery
  gap = np.mean(np.subtract(SCORES['dpo (clean)'], SCORES['dpo']))
  assert found['accuracy'].estimate.value == pytest.approx(0.0475 / gap)
  assert set(found) == {'accuracy'}  # KL has no ceiling
  clean = lines['dpo (clean)'].recovery['accuracy'].estimate
  np.testing.assert_allclose(clean[:3], 1.0)
  assert lines['dpo'].recovery == {} and lines['dpo'].differences == {}


def test_what_else_a_line_says():
  line = table()['rdpo@0.4']
  assert line.assumed == 0.4 and line.fitted == 0.25
  assert line.stops == [(0.01, 8), (0.02, 8), (0.01, 8), (0.02, 8)]
  cells = [cell('dpo', seed, 0.5) for seed in (0, 1)]
  cells[1]['selected']['stop']['fitted'] = None
  assert math.isnan(table(cells=cells)['dpo'].fitted)


def test_one_seed_has_no_interval():
  cells = [c for c in CELLS if c['seed'] == 2]
  line = table(cells=cells)['rdpo@0.4']
  assert line.differences['accuracy'].low is None
  assert line.differences['accuracy'].value == pytest.approx(0.05)


def test_the_best_and_what_cannot_be_told_from_it():
  among = {'flip_rate': 0.4, 'setting': 'selected', 'units': Units()}
  best = best_of_standings(
    CELLS, metric='accuracy', among=['dpo', 'rdpo@0.4'], **among
  )
  assert best.name == 'rdpo@0.4' and best.indistinguishable == ()
  # Less KL is better.
  best = best_of_standings(CELLS, metric='kl', among=list(SCORES), **among)
  assert best.name == 'dpo'


def clustered_cells():
  """Two seeds; a debate's pairs go together."""
  clusters = {0: ['a', 'a', 'b', 'c'], 1: ['d', 'd', 'd', 'b', 'b']}
  correct = {
    'dpo': {0: [1, 0, 0, 1], 1: [0, 1, 0, 0, 1]},
    'ipo': {0: [1, 1, 1, 1], 1: [0, 1, 1, 0, 1]},
  }
  cells = []
  for name, of_seed in correct.items():
    for seed, rows in of_seed.items():
      row = cell(name, seed, 0.5, correct=rows)
      row['selected']['summary']['agreement'] = float(np.mean(rows))
      cells.append(row)
  return cells, Units(clusters)


def test_clusters_pool_the_seeds_that_test_them():
  cells, units = clustered_cells()
  found = table(units, ('agreement',), cells)['ipo'].differences['agreement']
  # By cluster: a 1 of 2, b 1 of 3, c 0 of 1, d 1 of 3; nine pairs in all.
  sums, counts = np.array([1, 1, 0, 1]), np.array([2, 3, 1, 3])
  mean = sums.sum() / counts.sum()
  assert found.value == pytest.approx(mean) and found.count == 4
  residual = sums - mean * counts
  spread = np.sqrt(4 / 3 * (residual**2).sum()) / counts.sum()
  np.testing.assert_allclose(
    [found.low, found.high], [mean - T3 * spread, mean + T3 * spread], rtol=1e-6
  )


def test_other_metrics_and_single_seeds_are_not_clustered():
  cells, units = clustered_cells()
  assert units.by_pair('agreement') and not units.by_pair('accuracy')
  one = Units({0: units.clusters[0]})
  assert not one.by_pair('agreement')
  alone = [c for c in cells if c['seed'] == 0]
  found = table(one, ('agreement',), alone)['ipo'].differences['agreement']
  assert found.low is None and found.value == pytest.approx(0.5)

"""Standings of arms: units, pairs, what is left out."""

import numpy as np
import pytest

from alignment.metrics.intervals import clustered_mean, mean_interval
from alignment.protocols.noisy_labels.standings import Standings, ruling
from alignment.protocols.noisy_labels.trial import CLEAN, UNFLIPPED

RNG = np.random.default_rng(3)
GROUPS = np.repeat(np.arange(8), 5)


def _arm(level):
  right = RNG.random(40) < level
  return {
    'selected': {'accuracy': float(right.mean())},
    'right': ''.join('01'[int(hit)] for hit in right),
  }


def _row():
  levels = {
    'cross_entropy': 0.5,
    'gce': 0.7,
    'mae': 0.3,
    UNFLIPPED: 0.8,
    CLEAN: 0.9,
  }
  return {'arms': {name: _arm(level) for name, level in levels.items()}}


ROWS = [_row() for _ in range(4)]
ARMS = ['cross_entropy', 'gce', 'mae']


def _accuracy(name):
  return np.array([row['arms'][name]['selected']['accuracy'] for row in ROWS])


def test_over_seeds():
  standings = Standings(ROWS, ARMS)
  gaps = _accuracy('gce') - _accuracy('cross_entropy')
  assert standings.difference('gce') == mean_interval(gaps)
  assert standings.difference('gce', 'mae').value == pytest.approx(
    np.mean(_accuracy('gce') - _accuracy('mae'))
  )
  wide = standings.difference('gce', confidence=0.999)
  assert wide.low < standings.difference('gce').low
  assert set(standings.contestants()) == {'gce', 'mae'}
  expected = gaps.mean() / np.mean(
    _accuracy(CLEAN) - _accuracy('cross_entropy')
  )
  found = standings.recovery('gce')
  assert found.estimate.value == pytest.approx(expected)
  assert standings.recovery(CLEAN) is None


def test_over_groups_of_test_rows():
  standings = Standings(ROWS, ARMS, GROUPS)
  hits = {
    name: np.mean(
      [[int(c) for c in row['arms'][name]['right']] for row in ROWS], axis=0
    )
    for name in ARMS
  }
  expected = clustered_mean(hits['gce'] - hits['cross_entropy'], GROUPS)
  assert standings.difference('gce') == expected
  assert standings.accuracy('mae') == clustered_mean(hits['mae'], GROUPS)
  assert standings.accuracy('mae').count == 8
  assert standings.recovery('gce') is None


def test_an_arm_refused_on_a_seed_is_left_out():
  short = {'arms': {k: v for k, v in ROWS[0]['arms'].items() if k != 'gce'}}
  standings = Standings([short, *ROWS[1:]], ARMS)
  assert standings.names == ['cross_entropy', 'mae', UNFLIPPED, CLEAN]


def test_rulings():
  standings = Standings(ROWS, ARMS)
  assert ruling(standings.difference('gce')) == 'better'
  assert ruling(standings.difference('mae')) == 'worse'
  assert ruling(Standings(ROWS[:1], ARMS).difference('gce')) == 'no interval'
  same = Standings(ROWS, ARMS).difference('gce', 'gce')
  assert ruling(same) == 'undecided'

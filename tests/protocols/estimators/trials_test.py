"""Coverage where assumptions hold, and the failures that must show."""

import numpy as np
import pytest

from alignment.noise.estimation.catalogue import ESTIMATORS
from alignment.protocols.estimators.trials import (
  Cell,
  band,
  is_in_band,
  run_cell,
)
from alignment.protocols.estimators.worlds import WORLDS


@pytest.mark.parametrize('name', WORLDS)
def test_every_world_runs_and_says_what_is_assumed(name):
  rate = (WORLDS[name].rates or (0.2,))[-1]
  cell = run_cell(name, 300, rate, 3, seed=1)
  assert cell.assumption.endswith('.')
  assert cell == run_cell(name, 300, rate, 3, seed=1)
  assert (cell.coverage is None) == (cell.refused == 1)
  assert cell.set_valued + cell.refused <= 1


def test_every_estimator_has_a_world_in_which_it_is_right():
  tried = {world.estimator for world in WORLDS.values() if world.holds}
  assert set(ESTIMATORS) <= tried


def test_numbers_of_a_cell_are_those_of_its_trials():
  cell = run_cell('2 votes', 300, 0.4, 200, seed=2)
  world, found = WORLDS['2 votes'], []
  rng = np.random.default_rng([2, 0])
  for _ in range(200):
    estimate, _ = world.draw(rng, 300, 0.4)
    found.append(estimate)
  # Other draws of the same law: four standard errors of a share.
  touching = np.mean(['touches' in str(e.flags) for e in found])
  assert cell.touches_half == pytest.approx(touching, abs=0.12)
  assert 0 < cell.set_valued < cell.touches_half
  assert cell.bias < 0 < cell.rmse


def _cell(**changes) -> Cell:
  values = dict.fromkeys(Cell._fields, 0.0)
  values.update(holds=True, is_closed_form=True, truth=0.2, coverage=0.95)
  return Cell(**{**values, **changes})


def test_bands():
  assert band(_cell()) == (0.93, 0.97)
  assert band(_cell(is_closed_form=False)) == (0.91, 0.99)
  assert band(_cell(truth=0.0))[1] == band(_cell(set_valued=1.0))[1] == 1
  assert is_in_band(_cell()) and not is_in_band(_cell(coverage=0.98))
  assert is_in_band(_cell(truth=0.0, coverage=0.98))
  assert is_in_band(_cell(holds=False)) is is_in_band(_cell(coverage=None))


# Allowed besides the band: three standard errors of a share in so few trials.
@pytest.mark.slow
@pytest.mark.parametrize(
  'name, size, rate, trials',
  [
    ('anchors', 300, 0.1, 1500),
    ('2 votes', 300, 0.2, 1500),
    ('2 votes', 300, 0.4, 1500),
    ('5 votes', 300, 0.3, 1500),
    ('2 votes, rows copied', 300, 0.2, 1500),
    ('3 annotators', 300, 0.1, 400),
    ('certain classes, surest rows', 3000, 0.2, 1000),
    ('uncertain classes, a set', 300, 0.2, 600),
    ('5 votes, Beta rates', 300, 0.1, 150),
    ('stated margins', 300, 0.2, 600),
    ('stated margins, features', 300, 0.2, 150),
    ('linear margins', 3000, 0.1, 60),
    ('certain balanced classes, confident joint', 300, 0.2, 200),
    ('normal margins', 300, 0.2, 200),
  ],
)
def test_intervals_cover(name, size, rate, trials):
  cell = run_cell(name, size, rate, trials, seed=3)
  low, high = band(cell)
  slack = 3 * np.sqrt(0.05 * 0.95 / trials)
  assert low - slack <= cell.coverage <= high + slack
  # At .4 two votes agree less often than by chance now and then.
  assert cell.refused <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, rate, sign',
  [
    ('FAILS: margins are × .745', 0.0, 1),
    ('FAILS: rates ~ Beta(.5, 2)', 0.2, -1),
    ('FAILS: one of 3 copies', 0.3, -1),
    ('FAILS: link is cauchit', 0.1, 1),
    ('FAILS: confident joint, uncertain classes', 0.0, 1),
    ('FAILS: margins exponential', 0.2, -1),
  ],
)
def test_where_the_assumption_fails_intervals_miss(name, rate, sign):
  cell = run_cell(name, 3000, rate, 40, seed=4)
  assert cell.coverage < 0.5
  assert sign * cell.bias > 0.02

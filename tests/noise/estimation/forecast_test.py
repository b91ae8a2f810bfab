"""Forecasts of unseen votes: formulas, ranges, what is and is not covered."""

import numpy as np
import pytest
from scipy import optimize

from alignment.data.votes import read_votes
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.forecast import (
  ANY,
  BETA,
  EQUAL,
  forecast_votes,
  split_range,
)
from alignment.noise.estimation.splits import log_equal, vote_splits
from tests.noise.estimation import votes


def _rows(label, group=None, seed=0, **more):
  group = np.arange(len(label)) if group is None else group
  rows = forecast_votes(
    votes.table(label), group, np.random.default_rng(seed), **more
  )
  return {(row.model, row.quantity): row for row in rows}


def test_one_rate_predicts_itself():
  rate = 0.2
  label = votes.draw(np.random.default_rng(1), 8000, rate, 5)
  rows = _rows(label)
  moment = rate * (1 - rate)
  truth = {
    '5-0 split': 1 - 5 * moment + 5 * moment**2,
    '4-1 split': 5 * moment * (1 - 3 * moment),
    '3-2 split': 10 * moment**2,
  }
  assert sum(truth.values()) == pytest.approx(1)
  for model in (EQUAL, ANY, BETA):
    for quantity, share in truth.items():
      row = rows[model, quantity]
      if model == BETA:
        # At a spread of 0, the edge of the law, the fit leans to one side.
        assert row.predicted == pytest.approx(share, abs=0.03)
        continue
      assert row.low <= share <= row.high
      assert row.is_covered
      assert row.observed.value == pytest.approx(share, abs=0.03)
  joins = rows[ANY, 'a vote joins 2-0']
  expected = (1 - 3 * moment) / (1 - 2 * moment)
  assert joins.predicted == pytest.approx(expected, abs=0.01)
  assert joins.is_covered and joins.num_seen == 2


def test_rates_that_differ_refute_one_rate_and_nothing_else():
  rng = np.random.default_rng(2)
  law = rng.beta(1, 4, (5000, 1))
  rows = _rows(votes.draw(rng, 5000, law, 5))
  assert not rows[EQUAL, '4-1 split'].is_covered
  assert all(row.is_covered for (m, _), row in rows.items() if m != EQUAL)
  assert rows[ANY, 'a vote joins 2-0'].is_covered


def test_three_seen_votes_and_rates_that_differ():
  rng = np.random.default_rng(3)
  law = rng.choice([0.02, 0.45], (5000, 1))
  rows = _rows(votes.draw(rng, 5000, law, 5), num_seen=3)
  # Three that agree are mostly of an easy row: one rate expects too little.
  row = rows[EQUAL, 'a vote joins 3-0']
  assert not row.is_covered and row.predicted < row.observed.value
  assert rows[BETA, '4-1 split'].num_seen == 4


def test_joining_two_that_agree_is_arithmetic():
  """Three votes hold one pair that agrees or three, dependent or not."""
  rng = np.random.default_rng(4)
  label = votes.draw(rng, 8000, 0.3, 3)
  label[:, 1] = label[:, 0]
  row = _rows(label)[ANY, 'a vote joins 2-0']
  assert row.is_covered
  assert row.predicted == pytest.approx(row.observed.value, abs=0.02)


@pytest.mark.parametrize('cell', [0, 1, 2])
def test_ranges_are_those_of_a_linear_programme(cell):
  label = votes.draw(np.random.default_rng(5), 100, 0.3, 5)
  cells = vote_splits(votes.table(label))
  moment = 0.137
  rates = np.linspace(0, 0.5, 1200)
  share = np.array([np.exp(log_equal(cells, r))[cell] for r in rates])
  equal = np.stack([np.ones(1200), rates * (1 - rates)])
  ends = [
    optimize.linprog(sign * share, A_eq=equal, b_eq=[1, moment])
    for sign in (1, -1)
  ]
  found = split_range(cells, cell, moment)
  assert found[0] == pytest.approx(ends[0].fun, abs=1e-3)
  assert found[1] == pytest.approx(-ends[1].fun, abs=1e-3)


def test_groups_are_held_out_whole_and_widen_intervals():
  rng = np.random.default_rng(6)
  hard = rng.beta(2, 8, 16)
  group = np.repeat(np.arange(16), 150)
  label = votes.draw(rng, 2400, hard[group][:, None], 5)
  grouped, alone = _rows(label, group), _rows(label)
  key = (EQUAL, '5-0 split')
  assert grouped[key].observed.count == 8
  width = [r[key].observed.high - r[key].observed.low for r in (grouped, alone)]
  assert width[0] > 2 * width[1]


def test_the_commonest_number_of_votes_is_forecast_and_order_is_drawn():
  label = votes.draw(np.random.default_rng(7), 900, 0.2, 5)
  table = votes.table(label)
  kept = (table.worker < 4) | (table.task % 3 == 0)
  few = VoteTable(
    table.task[kept], table.worker[kept], table.label[kept], 900, 5, 2
  )
  rows = forecast_votes(few, np.arange(900), np.random.default_rng(0))
  names = {row.quantity for row in rows}
  assert {'4-0 split', '3-1 split', '2-2 split'} < names
  assert BETA not in {row.model for row in rows}
  again = forecast_votes(few, np.arange(900), np.random.default_rng(0))
  assert rows == again
  other = forecast_votes(few, np.arange(900), np.random.default_rng(1))
  assert rows != other


def test_nothing_is_forecast_where_nothing_is_held_out():
  label = votes.draw(np.random.default_rng(8), 90, 0.2, 2)
  assert _rows(label) == {}
  label = votes.draw(np.random.default_rng(8), 90, 0.2, 5)
  assert _rows(label, np.arange(90) % 3) == {}
  with pytest.raises(ValueError, match='num_seen=1'):
    _rows(label, num_seen=1)


@pytest.mark.shared
def test_arguments_differ_in_difficulty(shared_dir):
  """Real votes: rates differ, and two votes a row bound what happens."""
  pairs, _ = read_votes(shared_dir / 'data' / 'ukp_convarg1')
  given = [
    (i, vote) for i, p in enumerate(pairs) for vote in p.votes if vote.value
  ]
  turned = np.random.default_rng(0).random(len(pairs)) < 0.5
  table = VoteTable(
    np.array([i for i, _ in given]),
    np.unique([vote.worker for _, vote in given], return_inverse=True)[1],
    np.array([(vote.value < 0) ^ turned[i] for i, vote in given], np.int32),
    len(pairs),
    len({vote.worker for _, vote in given}),
    2,
  )
  _, group = np.unique([p.group for p in pairs], return_inverse=True)
  rows = forecast_votes(table, group, np.random.default_rng(0))
  by_name = {(row.model, row.quantity): row for row in rows}
  assert not by_name[EQUAL, '4-1 split'].is_covered
  assert all(row.is_covered for row in rows if row.model == ANY)
  assert all(row.observed.count == 6 for row in rows)

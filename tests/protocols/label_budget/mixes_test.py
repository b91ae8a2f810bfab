"""Money buys what it says, and costs are read off curves by hand."""

import dataclasses

import numpy as np
import pytest

from alignment.protocols.label_budget import mixes
from tests.protocols.label_budget.pools import make_pool


def test_experts_come_first_and_the_money_is_kept():
  rng = np.random.default_rng(0)
  noisy = make_pool(rng, size=60)
  clean = dataclasses.replace(noisy, votes=-noisy.votes, flip_rate=0.0)
  labels = mixes.buy_mix(
    clean, noisy, money=50, clean_share=0.5, cost_clean=5, cost_vote=0.7
  )
  # 25 / 5 experts, 25 / 0.7 = 35 votes.
  np.testing.assert_array_equal(labels.weight, np.arange(60) < 40)
  np.testing.assert_array_equal(
    labels.flip_rate, np.where(np.arange(60) < 5, 0.0, 0.2)
  )
  np.testing.assert_array_equal(
    labels.label_prob[:40],
    np.append(clean.votes[:5, 0] > 0, noisy.votes[5:40, 0] > 0),
  )


@pytest.mark.parametrize(('money', 'share'), [(0.5, 1.0), (200, 0.0)])
def test_what_cannot_be_bought_is_none(money, share):
  pool = make_pool(np.random.default_rng(1), size=60)
  found = mixes.buy_mix(
    pool, pool, money=money, clean_share=share, cost_clean=5, cost_vote=1
  )
  assert found is None


def test_costs_are_interpolated_in_log_money():
  money = np.array([10.0, 100.0, 1000.0])
  scores = np.array([0.6, 0.8, 0.7])
  # Levelled: .6, .75, .75.
  assert mixes.cost_to_reach(0.7, money, scores) == pytest.approx(
    10 ** (1 + 2 / 3)
  )
  assert mixes.cost_to_reach(0.5, money, scores) == 10
  assert np.isinf(mixes.cost_to_reach(0.8, money, scores))


def test_the_cheapest_way_is_found_and_doubt_is_kept():
  rng = np.random.default_rng(2)
  money = np.array([1.0, 10.0, 100.0])
  noise = rng.normal(0, 0.02, (12, 3))
  curves = {
    'cheap': (money, np.array([0.5, 0.8, 0.9]) + noise),
    'dear': (money, np.array([0.5, 0.6, 0.9]) + noise),
    'never': (money, np.array([0.5, 0.5, 0.5]) + noise),
  }
  found = mixes.cheapest(0.7, curves, rng)
  assert found['cheap'][1] == 1
  assert found['cheap'][0].low < 10 ** (2 / 3) < found['cheap'][0].high
  assert found['dear'][0].value > 10
  assert np.isinf(found['never'][0].value)
  alone = mixes.cheapest(
    0.7, {k: (m, s[:1]) for k, (m, s) in curves.items()}, rng
  )
  assert alone['cheap'][0].low is None and alone['cheap'][1] == 1

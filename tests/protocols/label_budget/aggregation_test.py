"""Labels made of votes mean what they say."""

import numpy as np
import pytest
from scipy import optimize, special

from alignment.protocols.label_budget import aggregation
from alignment.protocols.label_budget.aggregation import AGGREGATIONS
from alignment.protocols.label_budget.reward import (
  Labels,
  fit,
  fit_path,
  fit_reward,
  mixture_loss,
  padded,
)
from tests.protocols.label_budget.pools import make_pool, make_validation


@pytest.fixture
def pool():
  return make_pool(np.random.default_rng(0))


@pytest.mark.parametrize('name', AGGREGATIONS)
def test_pairs_without_a_winner_weigh_nothing(name, pool):
  taken = np.minimum(pool.num_votes, 3)
  taken[5:] *= np.arange(35) % 4 > 0
  labels = AGGREGATIONS[name](pool, taken)
  first, second = pool.counts(taken)
  assert not np.any(labels.weight[first + second == 0])
  assert np.all((labels.label_prob >= 0) & (labels.label_prob <= 1))
  clear = (first + second >= 3) & (np.minimum(first, second) == 0)
  agrees = (labels.label_prob > 0.5) == (first > second)
  assert clear.sum() > 3 and np.all(agrees[clear])


def test_majority_is_hard_and_skips_ties(pool):
  labels = aggregation.majority(pool, pool.num_votes)
  first, second = pool.counts(pool.num_votes)
  np.testing.assert_array_equal(labels.weight, first != second)
  np.testing.assert_array_equal(labels.label_prob, first > second)


@pytest.mark.parametrize('name', ['votes', 'forward'])
def test_a_weighted_share_is_every_vote_as_an_example(name, pool):
  """The fit equals one of SciPy on the long list of votes."""
  labels = AGGREGATIONS[name](pool, pool.num_votes)
  flip_rate = pool.flip_rate if name == 'forward' else 0.0
  table = pool.vote_table(pool.num_votes)
  x = pool.features[table.task] * np.where(table.label == 0, 1, -1)[:, None]

  def objective(w):
    p = flip_rate + (1 - 2 * flip_rate) * special.expit(x @ w)
    return -np.mean(np.log(p)) + 0.05 * w @ w

  expected = optimize.minimize(objective, np.zeros(3), tol=1e-10).x
  found = fit(pool.features, labels, l2=0.1)
  # Both optimisers stop at gradients of about 1e-6.
  np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_mixture_loss_is_its_equation():
  rng = np.random.default_rng(1)
  z, q = rng.normal(0, 3, 50), rng.random(50)
  flip_rate = rng.choice([0.0, 0.1, 0.37], 50)
  p = flip_rate + (1 - 2 * flip_rate) * special.expit(z)
  expected = -q * np.log(p) - (1 - q) * np.log(1 - p)
  # float32.
  np.testing.assert_allclose(mixture_loss(z, q, flip_rate), expected, rtol=1e-5)


def test_padding_changes_no_fit(pool):
  labels = aggregation.forward(pool, pool.num_votes * (np.arange(40) % 3 > 0))
  there = labels.weight > 0
  expected = fit(
    pool.features[there], Labels(*(x[there] for x in labels)), l2=0.01
  )
  features, filled = padded(pool.features, labels)
  assert len(features) == 64
  np.testing.assert_allclose(
    fit(features, filled, l2=0.01), expected, rtol=1e-6
  )


def test_l2_is_what_predicts_the_noisy_votes():
  rng = np.random.default_rng(2)
  weights = np.array([2.0, 1.0, -1.0])
  pool = make_pool(rng)
  labels = aggregation.votes(pool, pool.num_votes)
  # Votes that follow the pool's own reward, or its opposite.
  own = fit(pool.features, labels, l2=1e-4)
  _, sharp = fit_path(pool.features, labels, make_validation(rng, own, 400))
  assert sharp <= 1e-2
  chosen = fit_reward(pool.features, labels, make_validation(rng, weights, 400))
  assert chosen.shape == (3,)


def test_models_of_workers_are_not_meant_for_few_votes():
  meant = {
    name: [aggregation.is_meant_for(name, *v) for v in ((1, 1), (2, 3), (3, 3))]
    for name in AGGREGATIONS
  }
  assert meant['dawid_skene'] == meant['one_coin'] == [False, False, True]
  assert meant['majority'] == [False, True, True]
  assert all(meant['votes']) and all(meant['forward'])

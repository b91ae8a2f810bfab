"""What the policies ask for, against brute force."""

import numpy as np
import pytest
from scipy import special

from alignment.protocols.label_budget import aggregation, queries
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.queries import QUERY_POLICIES, State
from tests.protocols.label_budget.pools import make_pool, make_validation


def make_state(seed=0, **sizes):
  rng = np.random.default_rng(seed)
  pool = make_pool(rng, **sizes)
  taken = np.where(np.arange(len(pool)) < 15, 1, 0)
  labels = aggregation.forward(pool, taken)
  weights = np.array([1.5, -1.0, 0.5])
  return State(pool, taken, labels, weights, 0.01, rng)


@pytest.mark.parametrize('policy', sorted(set(QUERY_POLICIES) - {'relabel'}))
def test_only_new_pairs_are_asked_about(policy):
  state = make_state()
  score = QUERY_POLICIES[policy](state)
  np.testing.assert_array_equal(np.isfinite(score), state.taken == 0)


def test_uncertainty_ranks_by_the_margin():
  state = make_state()
  score = queries.uncertainty(state)[15:]
  margin = np.abs(state.pool.features[15:] @ state.weights)
  np.testing.assert_array_equal(np.argsort(score), np.argsort(-margin))


def test_bald_is_the_information_of_a_flipped_vote():
  """Against the posterior by its definition and a million of its draws."""
  state = make_state(flip_rate=0.15)
  x = state.pool.features
  v = special.expit(x @ state.weights) * special.expit(-x @ state.weights)
  p = 0.15 + 0.7 * special.expit(x @ state.weights)
  information = state.labels.weight * (0.7 * v) ** 2 / (p * (1 - p))
  precision = (x.T * information) @ x
  precision += state.labels.weight.sum() * state.l2 * np.eye(3)
  rng = np.random.default_rng(1)
  draws = rng.multivariate_normal(
    state.weights, np.linalg.inv(precision), 200_000
  )
  q = 0.15 + 0.7 * special.expit(draws @ x[15:25].T)

  def entropy(p):
    return -p * np.log(p) - (1 - p) * np.log(1 - p)

  expected = entropy(q.mean(axis=0)) - entropy(q).mean(axis=0)
  # 200,000 draws: errors of about .0005.
  np.testing.assert_allclose(queries.bald(state)[15:25], expected, atol=2e-3)


def test_a_committee_differs_where_its_labels_do():
  """Labels settle the first feature and contradict each other on the second."""
  rng = np.random.default_rng(3)
  features = np.repeat(np.eye(2), 40, axis=0)
  votes = np.ones((80, 1), np.int8)
  votes[40:, 0] = np.where(np.arange(40) % 2, 1, -1)
  pool = Pool(
    features=features,
    votes=votes,
    workers=np.zeros((80, 1), np.int32),
    num_votes=np.ones(80, int),
    flip_rate=0.0,
  )
  taken = (np.arange(80) % 40 < 20).astype(int)
  labels = aggregation.forward(pool, taken)
  state = State(pool, taken, labels, np.array([2.0, 0.1]), 0.01, rng)
  score = queries.disagreement(state)
  # New pairs of the first kind, on which all are of one mind, come last.
  assert score[20:40].max() < -0.9 < score[60:].min()
  assert np.all(np.isinf(score[taken > 0]))


def test_relabelling_takes_turns_with_new_pairs():
  state = make_state(seed=4)
  score = queries.relabel(state)
  order = np.argsort(-score, kind='stable')
  top = order[:10]
  assert np.sum(state.taken[top] > 0) == 5
  again = [row for row in order if state.taken[row] > 0 and score[row] > -1e9]
  first, second = state.pool.counts(state.taken)
  log_odds = state.scores + (first - second) * np.log(0.8 / 0.2)
  assert np.all(np.diff(np.abs(log_odds[again])) >= 0)
  spent = state.taken >= state.pool.num_votes
  assert spent.any() and not np.any(np.isfinite(score[spent]))


@pytest.mark.parametrize('policy', QUERY_POLICIES)
def test_every_round_buys_a_batch(policy):
  rng = np.random.default_rng(5)
  pool = make_pool(rng, size=50)
  validation = make_validation(rng, np.array([1.0, -1.0, 0.3]))
  course = queries.ask(
    policy,
    pool,
    validation,
    np.random.default_rng(6),
    start=8,
    batch=6,
    rounds=3,
  )
  assert [bought for bought, _ in course] == [8, 14, 20, 26]
  assert all(weights.shape == (3,) for _, weights in course)
  other = queries.ask(
    'random',
    pool,
    validation,
    np.random.default_rng(7),
    start=8,
    batch=6,
    rounds=3,
  )
  np.testing.assert_allclose(course[0][1], other[0][1])


def test_a_pool_that_is_too_small_is_refused():
  rng = np.random.default_rng(8)
  with pytest.raises(ValueError, match='start=8'):
    queries.ask(
      'random',
      make_pool(rng, size=10),
      make_validation(rng, np.ones(3)),
      rng,
      start=8,
      batch=3,
      rounds=1,
    )

"""Scores from comparisons: oracles, gradients, recovery, refusals."""

import jax
import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit

from alignment.noise.crowd.bradley_terry import (
  LOG_PROBS,
  bradley_terry,
  comparisons_weighted,
  crowd_bt,
  noisy_bt,
)
from alignment.noise.crowd.catalogue import COMPARISON_MODELS
from alignment.noise.crowd.comparisons import Comparisons, from_names

SKILL = np.array([0.95, 0.9, 0.8, 0.7, 0.5, 0.2])


def simulate(rng, num_items=8, size=2000, skill=SKILL, bias=None):
  """Workers of `skill`; who does not judge reverses, or goes by position."""
  scores = rng.normal(0, 1.5, num_items)
  left = rng.integers(0, num_items, size)
  right = (left + rng.integers(1, num_items, size)) % num_items
  worker = rng.integers(0, len(skill), size)
  p = expit(scores[left] - scores[right])
  other = 1 - p if bias is None else bias[worker]
  p = skill[worker] * p + (1 - skill[worker]) * other
  wins = rng.random(size) < p
  table = Comparisons(worker, left, right, wins, len(skill), num_items)
  return table, scores - scores.mean()


def objective(table, model, scores, skill, bias, strength, smoothing):
  """Log-likelihood plus prior, from probabilities, in float64 NumPy."""
  winner = np.where(table.left_wins, table.left, table.right)
  loser = np.where(table.left_wins, table.right, table.left)
  p = expit(scores[winner] - scores[loser])
  own = None if skill is None else skill[table.worker]
  if model == 'crowd_bt':
    p = own * p + (1 - own) * (1 - p)
  if model == 'noisy_bt':
    says = np.where(table.left_wins, bias[table.worker], 1 - bias[table.worker])
    p = own * p + (1 - own) * says
  prior = strength * np.sum(np.log(expit(scores) * expit(-scores)))
  for probs in (skill, bias):
    if probs is not None:
      prior += smoothing * np.sum(np.log(probs * (1 - probs)))
  return np.sum(np.log(p)) + prior


def test_bradley_terry_by_scipy():
  table, _ = simulate(np.random.default_rng(0), size=150, skill=np.ones(1))
  found = bradley_terry(table, strength=0.5, tolerance=1e-6)

  def loss(scores):
    return -objective(table, 'bradley_terry', scores, None, None, 0.5, 0)

  want = optimize.minimize(loss, np.zeros(8), method='BFGS', tol=1e-7).x
  # BFGS on finite differences is good to 1e-5.
  np.testing.assert_allclose(found.scores, want - want.mean(), atol=1e-4)


@pytest.mark.parametrize('model', ['crowd_bt', 'noisy_bt'])
def test_the_fit_is_a_maximum(model):
  rng = np.random.default_rng(1)
  table, _ = simulate(rng, size=400)
  options = {'strength': 0.3, 'smoothing': 0.4}
  found = comparisons_weighted(
    model, table, np.ones((1, 400)), tolerance=1e-6, **options
  )
  assert found.converged
  params = {name: value[0] for name, value in found.params.items()}

  def value(params):
    skill = expit(params['skill'])
    bias = expit(params['bias']) if model == 'noisy_bt' else None
    # The prior is of scores before they are centred: any shift is allowed.
    shifts = np.linspace(-0.5, 0.5, 201)
    return max(
      objective(table, model, params['scores'] + s, skill, bias, 0.3, 0.4)
      for s in shifts
    )

  best = value(params)
  for _ in range(20):
    moved = {k: v + rng.normal(0, 0.02, v.shape) for k, v in params.items()}
    assert value(moved) < best


def test_a_worker_of_one_half_moves_no_score():
  log_prob, _ = LOG_PROBS['crowd_bt']
  margin = np.array([-2.0, 0.3, 1.7])

  def total(margin, skill):
    own = {'skill': np.full(3, skill)}
    return log_prob(own, margin, np.array([1.0, 1.0, -1.0])).sum()

  gradient = jax.grad(total)(margin, 0.0)
  np.testing.assert_allclose(gradient, 0, atol=1e-7)
  # A worse one is read backwards.
  assert np.all(
    np.sign(jax.grad(total)(margin, -1.0)) == -np.sign([1.0, 1.0, -1.0])
  )


def test_adversaries_are_read_backwards():
  """6,000 comparisons: the error of the extreme scores is about .15."""
  table, scores = simulate(np.random.default_rng(2), size=6000)
  found = crowd_bt(table)
  np.testing.assert_allclose(found.skill, SKILL, atol=0.1)
  np.testing.assert_allclose(found.scores, scores, atol=0.55)
  plain = bradley_terry(table)
  assert (
    np.abs(plain.scores - scores).max()
    > 2 * np.abs(found.scores - scores).max()
  )
  assert found.log_likelihood > plain.log_likelihood + 50


@pytest.mark.slow
def test_position_takers_are_found():
  skill = np.array([0.95, 0.9, 0.9, 0.85, 0.2, 0.1])
  bias = np.array([0.5, 0.5, 0.5, 0.5, 0.95, 0.1])
  table, scores = simulate(
    np.random.default_rng(3), size=4000, skill=skill, bias=bias
  )
  found = noisy_bt(table)
  np.testing.assert_allclose(found.skill[4:], skill[4:], atol=0.12)
  np.testing.assert_allclose(found.bias[4:], bias[4:], atol=0.08)
  np.testing.assert_allclose(found.scores, scores, atol=0.5)


def test_bootstraps_together_are_bootstraps_one_by_one():
  rng = np.random.default_rng(4)
  table, _ = simulate(rng, size=120)
  weights = rng.multinomial(120, np.full(120, 1 / 120), 3)
  options = {'tolerance': 1e-6}
  together = comparisons_weighted('crowd_bt', table, weights, **options)
  for number, weight in enumerate(weights):
    rows = np.repeat(np.arange(120), weight)
    arrays = (table.worker, table.left, table.right, table.left_wins)
    alone = Comparisons(*(x[rows] for x in arrays), 6, 8)
    found = comparisons_weighted(
      'crowd_bt', alone, np.ones((1, 120)), **options
    )
    # Flat directions of a mixture: 1e-6 standard errors is 1e-4 there.
    np.testing.assert_allclose(
      together.params['scores'][number], found.params['scores'][0], atol=1e-3
    )


def test_refusals():
  def table(pairs, wins, num_items=4):
    left, right = np.array(pairs).T
    worker = np.zeros(len(left), int)
    return Comparisons(worker, left, right, np.array(wins), 1, num_items)

  apart = table([(0, 1), (1, 0), (2, 3), (3, 2)], [True] * 4)
  for fit in COMPARISON_MODELS.values():
    with pytest.raises(ValueError, match='2 parts that nobody compared'):
      fit(apart)
  one_way = table([(0, 1), (1, 0), (0, 2)], [True] * 3)
  with pytest.raises(ValueError, match='2 parts between which all wins'):
    bradley_terry(one_way, strength=0.0)
  scores = bradley_terry(one_way).scores
  assert scores[0] > scores[2] and np.isnan(scores[3])
  with pytest.raises(ValueError, match='the same item in row 1'):
    table([(0, 1), (2, 2)], [True, False])
  with pytest.raises(ValueError, match='right=1..4'):
    table([(0, 1), (2, 4)], [True, False])
  with pytest.raises(ValueError, match='left_wins'):
    table([(0, 1)], [1])
  nothing = np.zeros(0, int)
  empty = Comparisons(nothing, nothing, nothing, nothing.astype(bool), 1, 2)
  with pytest.raises(ValueError, match='empty'):
    bradley_terry(empty)
  with pytest.raises(ValueError, match='strength=-1'):
    bradley_terry(one_way, strength=-1.0)


def test_names_become_ids_and_come_back():
  rows = [('w2', 'b', 'c', 'c'), ('w1', 'a', 'b', 'a'), ('w2', 'c', 'a', 'c')]
  table, workers, items = from_names(*zip(*rows, strict=True))
  found = [
    (
      workers[table.worker[row]],
      items[table.left[row]],
      items[table.right[row]],
      items[(table.left if table.left_wins[row] else table.right)[row]],
    )
    for row in range(3)
  ]
  assert found == rows
  assert workers == ('w1', 'w2') and items == ('a', 'b', 'c')
  with pytest.raises(ValueError, match='winner=d in row 0 must be left=a'):
    from_names(['w'], ['a'], ['b'], ['d'])

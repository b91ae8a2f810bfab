"""Annotator models beside crowd-kit 1.4.2, and beside its stored numbers."""

import json

import jax
import numpy as np
import pytest
from scipy import optimize

from alignment.noise.crowd.bradley_terry import (
  LOG_PROBS,
  bradley_terry,
  noisy_bt,
)
from alignment.noise.crowd.comparisons import Comparisons
from alignment.noise.crowd.dawid_skene import dawid_skene
from alignment.noise.crowd.glad import glad
from alignment.noise.crowd.majority import majority
from alignment.noise.crowd.one_coin import one_coin
from alignment.noise.crowd.table import VoteTable
from tests.noise.crowd.tables import coins, simulate
from tests.peers.installed import peer

pytestmark = [
  pytest.mark.peers,
  pytest.mark.filterwarnings('ignore::FutureWarning'),
  pytest.mark.filterwarnings('ignore::DeprecationWarning'),
  pytest.mark.filterwarnings('ignore:The inplace keyword in DataFrame.eval'),
]

EM = {'DawidSkene': dawid_skene, 'OneCoinDawidSkene': one_coin}


@pytest.fixture(params=[2, 3])
def votes(request):
  """Random and uneven: 70 tasks with 1 to 5 votes of 6 workers."""
  rng = np.random.default_rng(request.param)
  skill = rng.uniform(0.5, 0.95, 6)
  prior = np.arange(1, request.param + 1) / np.arange(request.param + 1).sum()
  table, _ = simulate(rng, coins(skill, request.param), prior, 70, 5)
  keep = (rng.random(len(table)) < 0.7) | (np.arange(len(table)) % 5 == 0)
  arrays = table.task[keep], table.worker[keep], table.label[keep]
  return VoteTable(*arrays, 70, 6, request.param)


def frame(votes):
  columns = ('task', 'worker', 'label')
  data = {name: getattr(votes, name) for name in columns}
  return peer('pandas').DataFrame(data)


def crowdkit():
  return peer('crowdkit.aggregation')


def test_majority(votes):
  theirs = crowdkit().MajorityVote().fit_predict_proba(frame(votes))
  theirs = theirs.sort_index().sort_index(axis=1).to_numpy()
  np.testing.assert_allclose(majority(votes).task_probs, theirs, rtol=1e-12)


@pytest.mark.parametrize('name', list(EM))
@pytest.mark.parametrize('iterations', [1, 7, 40])
def test_em(votes, name, iterations):
  """Both start from shares of votes; as many iterations, no smoothing.

  Their last E step is one before their last M step, so posteriors are compared
  one iteration apart. They floor counts at 1e-10, as here, and this decides
  the tails: hence an absolute tolerance.
  """
  model = getattr(crowdkit(), name)(n_iter=iterations, tol=-np.inf)
  theirs = model.fit_predict_proba(frame(votes))
  theirs = theirs.sort_index().sort_index(axis=1).to_numpy()
  options = {'smoothing': 0.0, 'tolerance': 1e-300}
  ours = EM[name](votes, max_iterations=iterations, **options)
  before = EM[name](votes, max_iterations=iterations - 1, **options)
  assert ours.iterations == iterations
  np.testing.assert_allclose(before.task_probs, theirs, atol=1e-7)
  priors = model.priors_.sort_index().to_numpy()
  np.testing.assert_allclose(ours.prior, priors, atol=1e-7)
  if name == 'DawidSkene':
    errors = model.errors_.unstack('label').fillna(0).sort_index()
    for worker in range(votes.num_workers):
      for true in range(votes.num_classes):
        np.testing.assert_allclose(
          ours.confusion[worker, true],
          errors.loc[worker, true].sort_index(),
          atol=1e-7,
        )


def test_glad():
  """Their EM is climbed to its end, where the marginal likelihood is highest.

  The same start (1, 1) and priors N(1, 1); their M step stops at a slope of
  1e-5, which leaves about that.
  """
  rng = np.random.default_rng(0)
  votes, _ = simulate(
    rng, coins([0.9, 0.8, 0.7, 0.5], 3), np.ones(3) / 3, 12, 3
  )
  model = crowdkit().GLAD(n_iter=20, tol=-np.inf, m_step_tol=1e-5)
  theirs = model.fit_predict_proba(frame(votes)).to_numpy()
  ours = glad(votes, tolerance=1e-7)
  assert ours.converged
  np.testing.assert_allclose(ours.task_probs, theirs, atol=1e-4)
  np.testing.assert_allclose(
    ours.ability, model.alphas_.sort_index(), atol=1e-4
  )
  np.testing.assert_allclose(
    -np.log(ours.difficulty), model.betas_.sort_index(), atol=1e-4
  )


def compared(rng, size=160):
  left = rng.integers(0, 6, size)
  right = (left + rng.integers(1, 6, size)) % 6
  worker = rng.integers(0, 4, size)
  wins = rng.random(size) < 1 / (1 + np.exp((right - left) * 0.4))
  return Comparisons(worker, left, right, wins, 4, 6)


def pair_frame(table):
  return peer('pandas').DataFrame(
    {
      'worker': table.worker,
      'left': table.left,
      'right': table.right,
      'label': np.where(table.left_wins, table.left, table.right),
    }
  )


def test_bradley_terry():
  """Theirs stops at the second step whatever it asks (its check compares an
  array with itself), unless the tolerance is below 0."""
  table = compared(np.random.default_rng(1))
  ours = bradley_terry(table, strength=0.0, tolerance=1e-7)
  theirs = crowdkit().BradleyTerry(n_iter=3000, tol=-1.0)
  theirs = theirs.fit_predict(pair_frame(table)).sort_index().to_numpy()
  share = np.exp(ours.scores) / np.exp(ours.scores).sum()
  np.testing.assert_allclose(share, theirs, rtol=1e-6)


def test_the_gradient_of_their_noisy_bradley_terry_is_not_one():
  """Finite differences of their likelihood agree with autodiff here only."""
  theirs = crowdkit().NoisyBradleyTerry
  table = compared(np.random.default_rng(2), size=40)
  data = np.stack(
    [
      table.left,
      table.right,
      np.where(table.left_wins, table.left, table.right),
    ]
  ).T
  arguments = (data + 1, table.worker, 6, 4, 0.0)
  x = np.random.default_rng(3).normal(size=1 + 6 + 2 * 4)
  slope = optimize.approx_fprime(
    x, theirs._compute_log_likelihood, 1e-7, *arguments
  )
  wrong = theirs._compute_gradient(x, *arguments)
  assert np.abs(wrong - slope).max() > 0.5

  def ours(x):
    scores, bias, skill = x[1:7], x[7:11], x[11:]
    own = {'bias': bias[table.worker], 'skill': skill[table.worker]}
    sign = np.where(table.left_wins, 1.0, -1.0)
    margin = scores[table.left] - scores[table.right]
    return -LOG_PROBS['noisy_bt'][0](own, margin, sign).sum()

  with jax.enable_x64(True):
    np.testing.assert_allclose(jax.grad(ours)(x), slope, atol=1e-5)


def test_noisy_bradley_terry_ends_higher_than_theirs():
  """Their descent, given the right gradient, would end where ours does."""
  table = compared(np.random.default_rng(4))
  model = crowdkit().NoisyBradleyTerry(n_iter=500, tol=1e-12)
  scores = model.fit_predict(pair_frame(table)).sort_index().to_numpy()
  ours = noisy_bt(table, strength=0.01, smoothing=0.01)
  theirs = np.log(scores / (1 - scores))
  margin = theirs[table.left] - theirs[table.right]
  skill = model.skills_.sort_index().to_numpy()[table.worker]
  bias = model.biases_.sort_index().to_numpy()[table.worker]
  p = skill / (1 + np.exp(-margin)) + (1 - skill) * bias
  value = np.sum(np.log(np.where(table.left_wins, p, 1 - p)))
  assert ours.log_likelihood > value + 1


@pytest.mark.shared
def test_stored_numbers(shared_dir):
  """Dawid-Skene, one-coin and Bradley-Terry on fixed tables."""
  stored = json.loads((shared_dir / 'golden/golden_noise.json').read_text())
  cases = {case['id']: case for case in stored['cases']}
  case = cases['crowdkit/classification']
  tasks, workers, labels = zip(*case['params']['triples'], strict=True)
  votes = VoteTable(
    np.array([int(t[1:]) for t in tasks]),
    np.array([int(w[1:]) for w in workers]),
    np.array(labels),
    60,
    5,
    2,
  )
  # The iterations at which theirs stopped. Their bound floors posteriors at
  # 1e-10 in place, which the next M step of Dawid-Skene then sees.
  runs = (
    ('dawid_skene', dawid_skene, 148, 1e-6),
    ('onecoin', one_coin, 199, 1e-12),
  )
  for name, fit, count, tolerance in runs:
    found = fit(votes, smoothing=0.0, tolerance=1e-300, max_iterations=count)
    want = case['outputs'][f'{name}_p1']
    np.testing.assert_allclose(found.task_probs[:, 1], want, atol=tolerance)
  case = cases['crowdkit/bradley_terry']
  rows = [[int(x[1:]) for x in row] for row in case['params']['rows']]
  worker, left, right, winner = np.array(rows).T
  table = Comparisons(worker, left, right, winner == left, 3, 6)
  stored = np.array(case['outputs']['scores'])
  wins = np.zeros((6, 6))
  loser = np.where(table.left_wins, right, left)
  np.add.at(wins, (winner, loser), 1)
  # Theirs stopped after two steps of MM (see above), far from the maximum.
  p, pairs = np.ones(6), wins + wins.T
  for _ in range(2):
    p = wins.sum(axis=1) / np.sum(pairs / (p[:, None] + p), axis=1)
    p /= p.sum()
  np.testing.assert_allclose(stored, p, rtol=1e-9)
  ours = bradley_terry(table, strength=0.0)
  theirs = np.sum(np.log(stored[winner] / (stored[winner] + stored[loser])))
  assert ours.log_likelihood > theirs + 1

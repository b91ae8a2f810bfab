"""Annotator models on votes: oracles, invariances, recovery, refusals."""

import dataclasses

import numpy as np
import pytest

from alignment.noise.crowd.catalogue import ANNOTATOR_MODELS, WEIGHTED
from alignment.noise.crowd.dawid_skene import dawid_skene
from alignment.noise.crowd.glad import glad
from alignment.noise.crowd.majority import majority
from alignment.noise.crowd.one_coin import one_coin
from alignment.noise.crowd.table import VoteTable
from tests.noise.crowd.tables import (
  coins,
  enumerated,
  log_likelihood,
  ragged,
  simulate,
)

EM = {'dawid_skene': dawid_skene, 'one_coin': one_coin}
PRIOR = np.array([0.5, 0.3, 0.2])


@pytest.fixture(params=list(ANNOTATOR_MODELS))
def model(request):
  return request.param


def long_way(votes, name, smoothing, iterations):
  """EM from the equations, vote by vote, in float64 NumPy."""
  shape = votes.num_tasks, votes.num_classes
  posterior = np.zeros(shape)
  np.add.at(posterior, (votes.task, votes.label), 1.0)
  has_votes = posterior.any(axis=1)
  posterior[has_votes] /= posterior[has_votes].sum(axis=1, keepdims=True)
  for step in range(iterations + 1):
    prior = posterior[has_votes].mean(axis=0)
    counts = np.zeros((votes.num_workers, *2 * shape[1:]))
    for t, w, l in zip(votes.task, votes.worker, votes.label, strict=True):
      counts[w, :, l] += posterior[t]
    if name == 'dawid_skene':
      confusion = counts + smoothing
      confusion /= np.maximum(confusion.sum(axis=2, keepdims=True), 1e-300)
    else:
      right = np.trace(counts, axis1=1, axis2=2) + smoothing
      total = np.maximum(counts.sum((1, 2)) + 2 * smoothing, 1e-300)
      confusion = coins(right / total, shape[1])
    if step < iterations:
      posterior = np.tile(prior, (shape[0], 1))
      for t, w, l in zip(votes.task, votes.worker, votes.label, strict=True):
        posterior[t] *= confusion[w, :, l]
      posterior /= posterior.sum(axis=1, keepdims=True)
  return prior, confusion


@pytest.mark.parametrize('name', list(EM))
@pytest.mark.parametrize('iterations', [0, 1, 6])
def test_em_follows_its_equations(name, iterations):
  votes = ragged(np.random.default_rng(0))
  found = EM[name](
    votes, smoothing=0.3, tolerance=1e-300, max_iterations=iterations
  )
  prior, confusion = long_way(votes, name, 0.3, iterations)
  voted = np.unique(votes.worker)
  assert found.iterations == iterations
  np.testing.assert_allclose(found.prior, prior, rtol=1e-9)
  np.testing.assert_allclose(
    found.confusion[voted], confusion[voted], rtol=1e-9
  )
  assert np.isnan(found.confusion[2]).all() and np.isnan(found.skill[2])


def test_posterior_and_likelihood_by_enumeration():
  votes = ragged(np.random.default_rng(1), num_votes=14, num_tasks=6)
  for name, fit in EM.items():
    found = fit(votes, smoothing=0.5)
    probs = enumerated(votes, found.prior, found.confusion)
    np.testing.assert_allclose(found.task_probs, probs, rtol=1e-9, err_msg=name)
    want = log_likelihood(votes, found.prior, found.confusion)
    assert found.log_likelihood == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize('name', list(EM))
def test_em_never_descends(name):
  rng = np.random.default_rng(2)
  votes, _ = simulate(rng, coins(rng.uniform(0.4, 0.9, 5), 3), PRIOR, 60, 3)
  values = [
    EM[name](
      votes, smoothing=0.0, tolerance=1e-300, max_iterations=k
    ).log_likelihood
    for k in range(12)
  ]
  assert np.all(np.diff(values) > -1e-9)
  assert values[-1] > values[0] + 1


@pytest.mark.parametrize('name', [*EM, 'glad'])
def test_the_fit_is_a_maximum(name):
  """Small moves of the parameters, the long way round, lower the objective."""
  rng = np.random.default_rng(3)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7, 0.6, 0.55], 3), PRIOR, 60, 3)
  if name == 'glad':
    found = glad(votes, tolerance=1e-6)
    values = [_glad_objective(votes, found)]
    for _ in range(30):
      moved = dataclasses.replace(
        found,
        ability=found.ability + rng.normal(0, 1e-2, 5),
        difficulty=found.difficulty * np.exp(rng.normal(0, 1e-2, 60)),
      )
      values.append(_glad_objective(votes, moved))
  else:
    found = EM[name](
      votes, smoothing=0.0, tolerance=1e-14, max_iterations=20000
    )
    values = [log_likelihood(votes, found.prior, found.confusion)]
    for _ in range(30):
      if name == 'one_coin':
        confusion = coins(
          np.clip(found.skill + rng.normal(0, 1e-3, 5), 0, 1), 3
        )
      else:
        confusion = found.confusion * np.exp(rng.normal(0, 1e-3, (5, 3, 3)))
        confusion /= confusion.sum(axis=2, keepdims=True)
      prior = found.prior * np.exp(rng.normal(0, 1e-3, 3))
      values.append(log_likelihood(votes, prior / prior.sum(), confusion))
  assert max(values[1:]) < values[0]


def _glad_objective(votes, found):
  """Votes and both priors, from the model's equations."""
  joint = np.full((votes.num_tasks, 3), 1 / 3)
  right = 1 / (
    1 + np.exp(-found.ability[votes.worker] / found.difficulty[votes.task])
  )
  for v, p in enumerate(right):
    says = np.where(np.arange(3) == votes.label[v], p, (1 - p) / 2)
    joint[votes.task[v]] *= says
  prior = np.sum((found.ability - 1) ** 2)
  prior += np.sum((-np.log(found.difficulty) - 1) ** 2)
  return np.log(joint.sum(axis=1)).sum() - prior / 2


def test_bootstraps_together_are_bootstraps_one_by_one(model):
  """A weight of n is n copies of the task."""
  rng = np.random.default_rng(4)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7, 0.6], 3), PRIOR, 30, 3)
  weights = rng.multinomial(30, np.full(30, 1 / 30), 5)
  # GLAD is left at 1e-6 standard errors from its maximum, EM where it stops.
  options = {'majority': {}, 'glad': {'tolerance': 1e-6}}.get(
    model, {'tolerance': 1e-12}
  )
  together = WEIGHTED[model](votes, weights, **options)
  for number, weight in enumerate(weights):
    copies = np.repeat(np.arange(30), weight)
    rows = [np.flatnonzero(votes.task == task) for task in copies]
    task = np.repeat(np.arange(30), [len(r) for r in rows])
    rows = np.concatenate(rows)
    alone = VoteTable(task, votes.worker[rows], votes.label[rows], 30, 4, 3)
    found = ANNOTATOR_MODELS[model](alone, **options)
    for name in ('prior', 'confusion', 'skill'):
      np.testing.assert_allclose(
        getattr(together, name)[number], getattr(found, name), atol=1e-6
      )
    if model != 'majority':
      assert together.log_likelihood[number] == pytest.approx(
        found.log_likelihood, abs=1e-5
      )


def test_chunks_of_bootstraps_change_nothing(monkeypatch, model):
  rng = np.random.default_rng(5)
  votes = ragged(rng)
  weights = rng.poisson(1, (5, votes.num_tasks)) + 0.0
  whole = WEIGHTED[model](votes, weights)
  monkeypatch.setattr('alignment.noise.crowd.em._AT_ONCE', 2 * 12 * 3)
  monkeypatch.setattr('alignment.noise.crowd.glad._AT_ONCE', 100)
  parts = WEIGHTED[model](votes, weights)
  np.testing.assert_allclose(parts.skill, whole.skill, rtol=1e-9)
  np.testing.assert_array_equal(parts.iterations, whole.iterations)


def test_names_do_not_matter(model):
  """Tasks, workers and classes renamed, votes in another order."""
  rng = np.random.default_rng(6)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7, 0.6, 0.55], 3), PRIOR, 60, 3)
  order = rng.permutation(len(votes))
  tasks, workers, classes = map(rng.permutation, (60, 5, 3))
  renamed = VoteTable(
    tasks[votes.task[order]],
    workers[votes.worker[order]],
    classes[votes.label[order]],
    60,
    5,
    3,
  )
  one, other = ANNOTATOR_MODELS[model](votes), ANNOTATOR_MODELS[model](renamed)
  # The descent of GLAD stops within 1e-3 standard errors, about 1e-4 here.
  close = {'atol': 1e-3 if model == 'glad' else 1e-9}
  np.testing.assert_allclose(other.skill[workers], one.skill, **close)
  np.testing.assert_allclose(other.prior[classes], one.prior, **close)
  np.testing.assert_allclose(
    other.task_probs[tasks][:, classes], one.task_probs, **close
  )


def test_truth_is_recovered(model):
  """4,000 tasks x 5 votes of 8 workers: 2,500 votes each, 3·error is .03."""
  rng = np.random.default_rng(7)
  skill = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5])
  votes, truth = simulate(rng, coins(skill, 3), PRIOR, 4000, 5)
  found = ANNOTATOR_MODELS[model](votes)
  right = np.mean(found.label == truth)
  majority = np.mean(np.argmax(votes.counts, axis=1) == truth)
  if model == 'majority':
    assert right == majority
    return
  assert right > majority + 0.005
  if model != 'glad':  # whose tasks differ in difficulty, as these do not
    np.testing.assert_allclose(found.skill, skill, atol=0.03)
    np.testing.assert_allclose(found.prior, PRIOR, atol=0.03)
  assert np.all(np.argsort(found.skill)[:2] == [7, 6])


def test_directed_errors_need_confusion_matrices():
  rng = np.random.default_rng(8)
  confusion = np.array(
    [[[0.9, 0.1], [0.1, 0.9]]] * 3 + [[[0.99, 0.01], [0.6, 0.4]]]
  )
  votes, truth = simulate(rng, confusion, [0.5, 0.5], 3000, 4)
  found = dawid_skene(votes)
  # Rows of 1,500 votes: 3 errors are .04.
  np.testing.assert_allclose(found.confusion, confusion, atol=0.04)


def test_many_votes_on_one_task():
  """Rows of tasks wider than the layout's widest; underflow of products."""
  rng = np.random.default_rng(9)
  task = np.concatenate([np.repeat(np.arange(20), 3), np.full(3000, 20)])
  worker = rng.integers(0, 6, len(task))
  label = np.where(rng.random(len(task)) < 0.7, task % 2, 1 - task % 2)
  votes = VoteTable(task, worker, label, 21, 6, 2)
  for name, fit in EM.items():
    found = fit(votes, smoothing=0.3, tolerance=1e-300, max_iterations=2)
    counts = votes.counts[20] / votes.counts[20].sum()
    assert np.all(np.isfinite(found.confusion)), name
    assert found.task_probs[20, 0] == pytest.approx(1.0) and counts[0] < 0.8


def test_refusals():
  some = np.array([0, 1, 1, 0])
  fine = VoteTable(some, some, some, 2, 2, 2)
  cases = {
    'empty': VoteTable(*3 * (np.zeros(0, int),), 3, 2, 2),
    'say class 1': VoteTable(some, some, np.ones(4, int), 2, 2, 2),
    'num_classes=1': VoteTable(some, some, np.zeros(4, int), 2, 2, 1),
  }
  for name, fit in ANNOTATOR_MODELS.items():
    for complaint, votes in cases.items():
      with pytest.raises(ValueError, match=complaint):
        fit(votes)
    with pytest.raises(ValueError, match='weights'):
      WEIGHTED[name](fine, np.ones((2, 3)))
    with pytest.raises(ValueError, match='weights'):
      WEIGHTED[name](fine, -np.ones((1, 2)))
    with pytest.raises(ValueError, match='weights'):
      WEIGHTED[name](fine, np.zeros((1, 2)))
  for option in ('tolerance', 'smoothing', 'max_iterations'):
    with pytest.raises(ValueError, match=option):
      dawid_skene(fine, **{option: -1})
  with pytest.raises(ValueError, match='prior_scale'):
    glad(fine, prior_scale=0)


@pytest.mark.parametrize(
  ('remark', 'votes'),
  [
    ('1 tasks without votes', ([0, 0, 1], [0, 1, 0], [0, 1, 1], 3)),
    ('one vote per task', ([0, 1, 2], [0, 1, 0], [0, 1, 1], 3)),
    ('all votes on a task agree', ([0, 0, 1], [0, 1, 0], [0, 0, 1], 2)),
    ('1 workers with one label', ([0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1], 2)),
    ('2 groups of workers', ([0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 0], 2)),
  ],
)
def test_remarks(remark, votes):
  *arrays, num_tasks = votes
  arrays = [np.array(a) for a in arrays]
  found = majority(VoteTable(*arrays, num_tasks, 4, 2))
  assert any(remark in flag for flag in found.flags), found.flags


def test_no_remarks_without_reason(model):
  rng = np.random.default_rng(10)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7, 0.6]), [0.6, 0.4], 60, 3)
  assert ANNOTATOR_MODELS[model](votes).flags == ()


def test_what_did_not_converge_says_so():
  rng = np.random.default_rng(11)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7, 0.6]), [0.6, 0.4], 60, 3)
  for fit in (dawid_skene, one_coin, glad):
    found = fit(votes, max_iterations=1, tolerance=1e-12)
    assert not found.converged
    assert 'not converged after 1 iterations' in found.flags

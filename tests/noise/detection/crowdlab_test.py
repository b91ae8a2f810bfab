"""CROWDLAB and ActiveLab, by loops over tasks and votes from the paper."""

import numpy as np
import pytest

from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.crowdlab import activelab, crowdlab


def crowd(seed=0, tasks=120, classes=3, unvoted=0):
  """Votes of six workers of different skill, and a model's probabilities."""
  rng = np.random.default_rng(seed)
  truth = rng.choice(
    classes, tasks, p=np.linspace(2, 1, classes) / 1.5 / classes
  )
  skill = np.array([0.95, 0.85, 0.8, 0.7, 0.6, 0.4])
  rows = []
  for task in range(tasks - unvoted):
    for worker in rng.permutation(6)[: rng.integers(1, 5)]:
      right = rng.random() < skill[worker]
      other = (truth[task] + rng.integers(1, classes)) % classes
      rows.append((task, worker, truth[task] if right else other))
  table = np.array(rows)[rng.permutation(len(rows))].T
  logits = 1.2 * np.eye(classes)[truth] + rng.normal(0, 1, (tasks, classes))
  probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  return VoteTable(*table, tasks, 6, classes), probs, truth


def by_the_paper(votes, probs, consensus):
  """Equations of CROWDLAB, one vote at a time."""
  said = [{} for _ in range(votes.num_tasks)]
  for t, w, c in zip(votes.task, votes.worker, votes.label, strict=True):
    said[t][w] = c
  several = [t for t, s in enumerate(said) if len(s) > 1]
  agree = np.mean(
    [np.mean([c == consensus[t] for c in said[t].values()]) for t in several]
  )
  common = np.bincount(consensus[several]).argmax()
  base = np.mean([consensus[t] != common for t in several])
  weight = np.zeros(votes.num_workers)
  for w in range(votes.num_workers):
    pairs = [
      said[t][w] != c
      for t in several
      if w in said[t]
      for v, c in said[t].items()
      if v != w
    ]
    weight[w] = max(1 - np.mean(pairs) / base, 1e-6)
  error = np.mean([probs[t].argmax() != consensus[t] for t in several])
  per_task = np.mean([len(s) for s in said if s])
  model = max(1 - error / base, 1e-6) * np.sqrt(per_task)
  posterior = []
  for t, s in enumerate(said):
    total = model * probs[t]
    for w, c in s.items():
      p = np.full(votes.num_classes, (1 - agree) / (votes.num_classes - 1))
      p[c] = agree
      total = total + weight[w] * p
    posterior.append(total / (model + sum(weight[w] for w in s)))
  return np.array(posterior), weight, model


@pytest.mark.parametrize('classes', [2, 3])
def test_posterior_and_weights_follow_the_paper(classes):
  votes, probs, _ = crowd(1, classes=classes)
  found = crowdlab(votes, probs)
  posterior, weight, model = by_the_paper(votes, probs, found.consensus)
  np.testing.assert_allclose(found.posterior, posterior, rtol=1e-9)
  np.testing.assert_allclose(found.worker_weight, weight, rtol=1e-9)
  assert found.model_weight == pytest.approx(model, rel=1e-9)
  rows = np.arange(len(probs))
  np.testing.assert_allclose(
    found.quality, posterior[rows, found.consensus], rtol=1e-9
  )


def test_consensus_beats_the_majority_and_the_model():
  right = {'crowdlab': [], 'majority': [], 'model': []}
  for seed in range(20):
    votes, probs, truth = crowd(seed, 400)
    right['crowdlab'].append(np.mean(crowdlab(votes, probs).consensus == truth))
    right['majority'].append(np.mean(votes.counts.argmax(axis=1) == truth))
    right['model'].append(np.mean(probs.argmax(axis=1) == truth))
  means = {name: np.mean(value) for name, value in right.items()}
  # Paired over 20 seeds the standard error of a difference is about .004.
  assert means['crowdlab'] > means['majority'] + 0.02
  assert means['crowdlab'] > means['model'] + 0.02


def test_workers_are_ranked_by_skill():
  votes, probs, _ = crowd(2, 2000)
  found = crowdlab(votes, probs)
  assert np.all(np.diff(found.worker_quality) < 0)
  assert np.all(np.diff(found.worker_weight[:5]) < 0)


def test_ties_go_to_the_model_then_to_the_rarer_class():
  votes = VoteTable(
    np.array([0, 0, 1, 1, 2, 2]),
    np.array([0, 1, 0, 1, 0, 1]),
    np.array([0, 1, 0, 1, 0, 0]),
    3,
    2,
    2,
  )
  probs = np.array([[0.8, 0.2], [0.5, 0.5], [0.9, 0.1]])
  assert crowdlab(votes, probs).consensus.tolist() == [0, 1, 0]


def test_tasks_without_votes_are_the_models():
  votes, probs, _ = crowd(3, unvoted=10)
  found = crowdlab(votes, probs)
  np.testing.assert_allclose(found.posterior[-10:], probs[-10:], rtol=1e-12)
  assert np.all(np.isfinite(activelab(votes, probs)))


def test_a_worker_who_is_always_alone():
  votes, probs, _ = crowd(4)
  single = np.flatnonzero(votes.counts.sum(axis=1) == 1)[:5]
  worker = np.where(np.isin(votes.task, single), 6, votes.worker)
  alone = VoteTable(votes.task, worker, votes.label, 120, 7, 3)
  found = crowdlab(alone, probs)
  assert np.isnan(found.worker_quality[6])
  assert np.isfinite(found.worker_quality[:6]).all()
  assert np.isfinite(found.posterior).all()


def test_activelab_is_the_quality_after_one_more_vote_at_chance():
  votes, probs, _ = crowd(5)
  found = crowdlab(votes, probs)
  total = found.model_weight + np.array(
    [
      found.worker_weight[votes.worker[votes.task == t]].sum()
      for t in range(120)
    ]
  )
  mean = found.worker_weight.mean()
  want = (total * found.quality + mean / 3) / (total + mean)
  np.testing.assert_allclose(activelab(votes, probs, s=1.0), want, rtol=1e-9)


def test_activelab_with_one_vote_per_task():
  """Model, vote and the new vote weigh 1 each."""
  rng = np.random.default_rng(6)
  label = rng.integers(0, 2, 9)
  votes = VoteTable(np.arange(9), rng.integers(0, 3, 9), label, 9, 3, 2)
  q = rng.random(9)
  probs = np.stack([1 - q, q], axis=1)
  want = (2 * probs[np.arange(9), label] + 0.5) / 3
  np.testing.assert_allclose(activelab(votes, probs), want, rtol=1e-12)


def test_asking_in_its_order_finds_more_errors():
  votes, probs, truth = crowd(7, 3000)
  wrong = crowdlab(votes, probs).consensus != truth
  first = np.argsort(activelab(votes, probs))[:300]
  assert wrong[first].mean() > 2 * wrong.mean()


def test_refusals():
  votes, probs, _ = crowd(8)
  with pytest.raises(ValueError, match='probs has shape'):
    crowdlab(votes, probs[:, :2])
  one = VoteTable(np.arange(3), np.zeros(3, int), np.arange(3), 3, 1, 3)
  with pytest.raises(ValueError, match='no task has two votes'):
    crowdlab(one, probs[:3])
  twice = VoteTable(np.zeros(2, int), np.zeros(2, int), np.arange(2), 1, 1, 3)
  with pytest.raises(ValueError, match='voted twice'):
    activelab(twice, probs[:1])

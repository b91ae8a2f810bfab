"""Vote tables with a known truth, and their likelihood the long way round."""

import itertools

import numpy as np

from alignment.noise.crowd.table import VoteTable


def simulate(rng, confusion, prior, num_tasks, per_task):
  """Votes of `per_task` different workers a task -> (table, true class)."""
  num_workers, num_classes, _ = confusion.shape
  truth = rng.choice(num_classes, num_tasks, p=prior)
  worker = np.argsort(rng.random((num_tasks, num_workers)), axis=1)
  worker = worker[:, :per_task]
  cumulated = confusion[worker, truth[:, None]].cumsum(axis=2)
  label = np.sum(rng.random((*worker.shape, 1)) > cumulated, axis=2)
  task = np.repeat(np.arange(num_tasks), per_task)
  label = np.minimum(label, num_classes - 1).ravel()
  sizes = num_tasks, num_workers, num_classes
  return VoteTable(task, worker.ravel(), label, *sizes), truth


def coins(skill, num_classes=2):
  """`[A, C, C]`, workers who are right with probability `skill`."""
  skill = np.asarray(skill)[:, None, None]
  wrong = (1 - skill) / (num_classes - 1)
  return np.where(np.eye(num_classes, dtype=bool), skill, wrong)


def ragged(rng, num_votes=40, num_tasks=12, num_workers=5, num_classes=3):
  """Any number of votes a task, none on the last, a worker without votes."""
  task = rng.integers(0, num_tasks - 1, num_votes)
  worker = rng.choice(np.delete(np.arange(num_workers), 2), num_votes)
  truth = rng.integers(0, num_classes, num_tasks)
  noise = rng.integers(0, num_classes, num_votes)
  label = np.where(rng.random(num_votes) < 0.6, truth[task], noise)
  return VoteTable(task, worker, label, num_tasks, num_workers, num_classes)


def log_likelihood(votes, prior, confusion, weights=None):
  """Σ over tasks of log Σ over classes, vote by vote, in plain Python."""
  total = 0.0
  for task in np.unique(votes.task):
    mine = np.flatnonzero(votes.task == task)
    joint = [
      prior[c]
      * np.prod([confusion[votes.worker[v], c, votes.label[v]] for v in mine])
      for c in range(votes.num_classes)
    ]
    total += (1 if weights is None else weights[task]) * np.log(sum(joint))
  return total


def enumerated(votes, prior, confusion):
  """Posterior of every task, by enumerating the true classes of all tasks."""
  total = np.zeros((votes.num_tasks, votes.num_classes))
  classes = range(votes.num_classes)
  for truth in itertools.product(classes, repeat=votes.num_tasks):
    truth = np.asarray(truth)
    says = confusion[votes.worker, truth[votes.task], votes.label]
    total[np.arange(len(truth)), truth] += np.prod(prior[truth]) * says.prod()
  return total / total.sum(axis=1, keepdims=True)

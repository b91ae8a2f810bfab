"""CROWDLAB: votes and a model weighed together; ActiveLab: whom to ask next."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.temperature import sharpen, sharpness

SMALLEST = 1e-6


class CrowdLab(NamedTuple):
  """Consensus of votes and model.

  Attributes:
    consensus: `[I]` int32, the likeliest class of every task.
    quality: `[I]` posterior of the consensus.
    posterior: `[I, C]`, rows sum to 1; the model's where nobody voted.
    worker_weight: `[A]` ≥ 1e-6.
    model_weight: ≥ 0.
    worker_quality: `[A]` in [0, 1]; NaN for a worker without votes, or whose
      tasks nobody else voted on.
  """

  consensus: np.ndarray
  quality: np.ndarray
  posterior: np.ndarray
  worker_weight: np.ndarray
  model_weight: float
  worker_quality: np.ndarray


def crowdlab(votes: VoteTable, probs: np.ndarray) -> CrowdLab:
  """Weighs votes and model by how far each beats the commonest class.

    agree = mean agreement of votes with the consensus
    says[vote, c] = agree if c is the vote, else (1 − agree)/(C − 1)
    worker_weight = max(1 − error/base, 1e-6)
    model_weight = max(1 − model_error/base, 1e-6)·√(mean votes per task)
    posterior ∝ model_weight·probs + Σ_votes worker_weight·says

  error is disagreement with the other workers of the same tasks (their mean,
  for a worker alone on all tasks), model_error and base those of the model and
  of the commonest class against the consensus, over tasks of two votes or
  more. Computed with the majority as consensus, then once more with the
  likeliest class of the posterior. Votes that err together, or in the same
  direction as the model, count as agreement.

  Args:
    votes: every vote, at most one per task and worker.
    probs: `[I, C]` of a model that was not trained on the task's votes.

  Raises:
    ValueError: shapes differ, no task has two votes, or a worker voted twice on
      a task.

  Source: Goh, Tkachenko and Mueller, CROWDLAB: Supervised learning to infer
  consensus labels and quality scores for data with multiple annotators, 2022,
  arXiv 2210.06812. Ties of the majority go to the class the model prefers,
  then to the rarer, then to the first: never to chance.
  """
  probs = _checked(votes, probs)
  majority = _majority(votes, probs)
  first = _weigh(votes, probs, majority)
  # A tie of the posterior stays with the majority, which broke it before.
  is_best = first.quality >= first.posterior.max(axis=1)
  consensus = np.where(is_best, majority, first.posterior.argmax(axis=1))
  return _weigh(votes, probs, consensus)


def activelab(
  votes: VoteTable, probs: np.ndarray, *, s: float | None = None
) -> np.ndarray:
  """ActiveLab score of every task: ask about the lowest first.

    score = (W·quality + w̄/C) / (W + w̄),  W = model_weight + Σ worker_weight

  w̄ is the mean weight of the workers: what one more vote would weigh. quality
  is CROWDLAB's of probs^s. Where no task has two votes the model and each vote
  weigh 1 and quality is probs[consensus], unsharpened; a task without votes has
  W of the model alone.

  Args:
    votes, probs: as `crowdlab`.
    s: inverse temperature of probs, ≥ 0; the one that predicts the votes best
      unless given.

  Returns:
    `[I]` in [0, 1].

  Source: Goh and Mueller, ActiveLab: Active Learning with Re-Labeling by
  Multiple Annotators, 2023, arXiv 2301.11856. s is the optimum itself, not the
  best of a grid of temperatures.
  """
  probs = _checked(votes, probs)
  counts = votes.counts
  total = counts.sum(axis=1)
  if total.max(initial=0) < 2:
    consensus = _majority(votes, probs)
    quality = probs[np.arange(len(probs)), consensus]
    model, workers = 1.0, np.ones(votes.num_workers)
  else:
    voted = total > 0
    if s is None:
      s = sharpness(probs[voted], counts[voted] / total[voted][:, None])
    found = crowdlab(votes, sharpen(probs, s))
    quality, model, workers = (
      found.quality,
      found.model_weight,
      found.worker_weight,
    )
  present = np.bincount(votes.worker, minlength=votes.num_workers) > 0
  mean = workers[present].mean() if present.any() else 1.0
  weight = model + np.bincount(
    votes.task, workers[votes.worker], minlength=votes.num_tasks
  )
  return (weight * quality + mean / votes.num_classes) / (weight + mean)


def _weigh(
  votes: VoteTable, probs: np.ndarray, consensus: np.ndarray
) -> CrowdLab:
  """One round of CROWDLAB against a given consensus `[I]`."""
  task, worker, label = votes.task, votes.worker, votes.label
  tasks, workers, classes = (
    votes.num_tasks,
    votes.num_workers,
    votes.num_classes,
  )
  total = votes.counts.sum(axis=1)
  several = total > 1
  if not several.any():
    raise ValueError('votes: no task has two votes, so nothing can be weighed')
  agrees = (label == consensus[task]).astype(np.float64)
  share = np.bincount(task, agrees, minlength=tasks) / np.maximum(total, 1)
  agree = share[several].mean()
  common = np.bincount(consensus[several], minlength=classes).argmax()
  base = max(np.mean(consensus[several] != common), SMALLEST)
  weight = np.maximum(1 - _disagreement(votes) / base, SMALLEST)
  errors = probs[several].argmax(axis=1) != consensus[several]
  model = max(1 - errors.mean() / base, SMALLEST)
  model = float(model * np.sqrt(total[total > 0].mean()))
  mass = np.bincount(task, weight[worker], minlength=tasks)
  on_label = np.bincount(
    task * classes + label, weight[worker], minlength=tasks * classes
  ).reshape(tasks, classes)
  elsewhere = (1 - agree) / (classes - 1)
  said = agree * on_label + elsewhere * (mass[:, None] - on_label)
  posterior = (model * probs + said) / (model + mass)[:, None]
  own = np.bincount(worker, posterior[task, label], minlength=workers)
  own /= np.maximum(np.bincount(worker, minlength=workers), 1)
  shared = several[task]
  with_others = np.bincount(worker[shared], minlength=workers)
  accord = np.full(workers, np.nan)
  hits = np.bincount(worker[shared], agrees[shared], minlength=workers)
  np.divide(hits, with_others, out=accord, where=with_others > 0)
  present = np.bincount(worker, minlength=workers) > 0
  typical = weight[present].mean() * total[total > 0].mean()
  trust = model / (model + typical)
  return CrowdLab(
    consensus.astype(np.int32),
    posterior[np.arange(tasks), consensus],
    posterior,
    weight,
    model,
    trust * own + (1 - trust) * accord,
  )


def _disagreement(votes: VoteTable) -> np.ndarray:
  """`[A]`: share of the other votes on a worker's tasks that say otherwise.

  The mean of the others for a worker whose tasks nobody else voted on.
  """
  counts, workers = votes.counts, votes.num_workers
  others = counts.sum(axis=1)[votes.task] - 1
  same = counts[votes.task, votes.label] - 1
  met = np.bincount(votes.worker, others, minlength=workers)
  differ = np.bincount(votes.worker, others - same, minlength=workers)
  shares = np.divide(differ, met, out=np.full(workers, np.nan), where=met > 0)
  return np.where(met > 0, shares, np.nanmean(shares))


def _majority(votes: VoteTable, probs: np.ndarray) -> np.ndarray:
  """`[I]`: most votes, then the model's choice, then the rarer class."""
  counts = votes.counts
  rarity = -np.broadcast_to(counts.sum(axis=0), counts.shape)
  first = -np.broadcast_to(np.arange(counts.shape[1]), counts.shape)
  # lexsort ranks by its last key first.
  return np.lexsort((first, rarity, probs, counts), axis=1)[:, -1]


def _checked(votes: VoteTable, probs: np.ndarray) -> np.ndarray:
  probs = np.asarray(probs, np.float64)
  shape = (votes.num_tasks, votes.num_classes)
  if probs.shape != shape:
    raise ValueError(f'probs has shape {probs.shape}, must be {shape}')
  cell = votes.task.astype(np.int64) * votes.num_workers + votes.worker
  if len(np.unique(cell)) < len(cell):
    raise ValueError('votes: a worker voted twice on one task')
  return probs

"""Vote tables from which no annotator model can learn, or only in part."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from alignment.noise.crowd.fit import CrowdFit
from alignment.noise.crowd.table import VoteTable


def check_votes(votes: VoteTable) -> None:
  """Refuses tables that leave nothing to learn.

  Raises:
    ValueError: no votes, fewer than two classes, or one class in every vote.
  """
  if not len(votes):
    raise ValueError('votes are empty: an annotator model needs some')
  if votes.num_classes < 2:
    raise ValueError(f'num_classes={votes.num_classes} must be >= 2')
  if np.all(votes.label == votes.label[0]):
    raise ValueError(
      f'all {len(votes)} votes say class {votes.label[0]}: nothing tells right '
      'from wrong; if pairs always name the winner first, shuffle their order'
    )


def check_weights(votes: VoteTable, weights: np.ndarray) -> None:
  """Refuses weights that are not `[S, I]`, ≥ 0, some of each row > 0."""
  weights = np.asarray(weights)
  if weights.ndim != 2 or weights.shape[1] != votes.num_tasks:
    raise ValueError(
      f'weights have shape {weights.shape}; must be [S, {votes.num_tasks}]'
    )
  if not np.all(weights >= 0) or not np.all(np.isfinite(weights)):
    raise ValueError('weights must be >= 0 and finite')
  voted = votes.counts.sum(axis=1) > 0
  if not len(weights) or not np.all(np.any(weights[:, voted] > 0, axis=1)):
    raise ValueError('weights must leave a task with votes in every row')


def check_positive(**values: float) -> None:
  """Raises ValueError unless every value is > 0 and finite."""
  for name, value in values.items():
    if not 0 < value < np.inf:
      raise ValueError(f'{name}={value} must be > 0 and finite')


def flag(votes: VoteTable, fit: CrowdFit) -> CrowdFit:
  """The fit with remarks on what its table cannot show, and on itself."""
  num_votes = votes.counts.sum(axis=1)
  said = workers_by_label(votes)
  flags = []
  silent = int(np.sum(num_votes == 0))
  if silent:
    flags.append(f'{silent} tasks without votes')
  if num_votes.max() == 1:
    flags.append('one vote per task: skills cannot be told from the classes')
  elif np.all(votes.counts.max(axis=1) == num_votes):
    flags.append('all votes on a task agree: nothing shows an error')
  single = int(np.sum(np.sum(said > 0, axis=1) == 1))
  if single:
    flags.append(f'{single} workers with one label only')
  islands = num_islands(votes)
  if islands > 1:
    flags.append(
      f'{islands} groups of workers without a task in common: classes may be '
      'switched between them'
    )
  active = said.any(axis=1)
  mean = np.average(fit.skill[active], weights=said[active].sum(axis=1))
  if mean <= 1 / votes.num_classes:
    flags.append('mean skill at or below chance: classes may be switched')
  if not fit.converged:
    flags.append(f'not converged after {fit.iterations} iterations')
  return dataclasses.replace(fit, flags=tuple(flags))


def workers_by_label(votes: VoteTable) -> np.ndarray:
  """`[A, C]` int64, how often each worker said each class."""
  cell = votes.worker.astype(np.int64) * votes.num_classes + votes.label
  size = votes.num_workers * votes.num_classes
  return np.bincount(cell, minlength=size).reshape(votes.num_workers, -1)


def num_islands(votes: VoteTable) -> int:
  """Groups of workers that no chain of common tasks connects."""
  size = votes.num_tasks + votes.num_workers
  edges = sparse.coo_array(
    (np.ones(len(votes)), (votes.task, votes.num_tasks + votes.worker)),
    (size, size),
  )
  _, island = csgraph.connected_components(edges, directed=False)
  return len(np.unique(island[votes.num_tasks + np.unique(votes.worker)]))

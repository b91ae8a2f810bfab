"""Who said what of which task: the one shape every annotator model reads."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class VoteTable:
  """Votes as a long table; ids count from 0 and every array is `[V]` int32.

  Attributes:
    task: `[V]` in [0, num_tasks), what was judged.
    worker: `[V]` in [0, num_workers), who judged.
    label: `[V]` in [0, num_classes), the verdict. For a pair of completions in
      an order that carries no meaning: 0 the first is better, 1 the second.
    num_tasks, num_workers, num_classes: ≥ 1; a task or worker may have no vote.

  Raises:
    ValueError: a shape, type or range above is violated.
  """

  task: np.ndarray
  worker: np.ndarray
  label: np.ndarray
  num_tasks: int
  num_workers: int
  num_classes: int

  def __post_init__(self):
    for name, count in (
      ('task', self.num_tasks),
      ('worker', self.num_workers),
      ('label', self.num_classes),
    ):
      ids = np.asarray(getattr(self, name))
      if ids.shape != np.shape(self.task) or ids.ndim != 1:
        raise ValueError(
          f'{name} has shape {ids.shape}; task, worker and label are all [V]'
        )
      if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f'{name} has type {ids.dtype}; it must be integers')
      if ids.size and not 0 <= ids.min() <= ids.max() < count:
        raise ValueError(
          f'{name}={ids.min()}..{ids.max()} must lie in [0, {count})'
        )
      object.__setattr__(self, name, ids.astype(np.int32))

  def __len__(self) -> int:
    return len(self.task)

  def of_tasks(self, rows: np.ndarray) -> VoteTable:
    """The votes on distinct tasks, renumbered in the order of `rows`."""
    place = np.full(self.num_tasks, -1, np.int32)
    place[rows] = np.arange(len(rows))
    kept = place[self.task] >= 0
    return dataclasses.replace(
      self,
      task=place[self.task[kept]],
      worker=self.worker[kept],
      label=self.label[kept],
      num_tasks=len(rows),
    )

  @functools.cached_property
  def counts(self) -> np.ndarray:
    """`[num_tasks, num_classes]` int64, how many votes each class got."""
    cell = self.task.astype(np.int64) * self.num_classes + self.label
    size = self.num_tasks * self.num_classes
    return np.bincount(cell, minlength=size).reshape(self.num_tasks, -1)

"""Pairs whose votes are cast and wait to be bought, one by one."""

from __future__ import annotations

import dataclasses

import numpy as np

from alignment.noise.crowd.table import VoteTable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
  """B pairs with up to K votes each, to be bought from the left.

  A vote is +1 for the first completion, −1 for the second, 0 for 'equal', as
  in `alignment.data.records.Vote`; the order of a pair carries no meaning.

  Attributes:
    features: `[B, D]` float64, of the first completion minus the second.
    votes: `[B, K]` int8; what lies beyond `num_votes` means nothing.
    workers: `[B, K]` int32, who cast them, counted from 0.
    num_votes: `[B]` how many of the K there are.
    flip_rate: in [0, ½), what a loss that corrects for flips assumes of every
      vote.

  Raises:
    ValueError: a shape or range above is violated.
  """

  features: np.ndarray
  votes: np.ndarray
  workers: np.ndarray
  num_votes: np.ndarray
  flip_rate: float

  def __post_init__(self):
    size, slots = np.shape(self.votes)
    shapes = {
      'features': (size, np.shape(self.features)[-1]),
      'workers': (size, slots),
      'num_votes': (size,),
    }
    for name, shape in shapes.items():
      if np.shape(getattr(self, name)) != shape:
        raise ValueError(
          f'{name} has shape {np.shape(getattr(self, name))}, must be {shape}'
        )
    if not 0 <= self.flip_rate < 0.5:
      raise ValueError(f'flip_rate={self.flip_rate} must lie in [0, 0.5)')
    if size and not 0 <= self.num_votes.min() <= self.num_votes.max() <= slots:
      raise ValueError(f'num_votes must lie in [0, {slots}]')

  def __len__(self) -> int:
    return len(self.votes)

  def counts(self, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the first `taken` `[B]` votes of every pair fell.

    Returns:
      `[B]` votes for the first completion and `[B]` for the second; 'equal'
      counts for neither.
    """
    bought = self._bought(taken)
    return tuple(
      np.sum(bought & (self.votes == side), axis=1) for side in (1, -1)
    )

  def vote_table(self, taken: np.ndarray) -> VoteTable:
    """The bought votes that name a winner; class 0 is the first completion."""
    named = self._bought(taken) & (self.votes != 0)
    task, slot = np.nonzero(named)
    return VoteTable(
      task,
      self.workers[task, slot],
      (self.votes[task, slot] < 0).astype(np.int32),
      num_tasks=len(self),
      num_workers=int(self.workers.max(initial=0)) + 1,
      num_classes=2,
    )

  def rows(self, chosen: np.ndarray) -> Pool:
    """The pool of the rows `chosen`, in that order."""
    per_pair = ('features', 'votes', 'workers', 'num_votes')
    return dataclasses.replace(
      self, **{name: getattr(self, name)[chosen] for name in per_pair}
    )

  def _bought(self, taken: np.ndarray) -> np.ndarray:
    taken = np.asarray(taken)
    if taken.shape != (len(self),) or np.any(taken > self.num_votes):
      raise ValueError(
        f'taken of shape {taken.shape} must be ({len(self)},) and at most '
        'num_votes'
      )
    return np.arange(self.votes.shape[1]) < taken[:, None]

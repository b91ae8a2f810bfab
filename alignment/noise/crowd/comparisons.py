"""Comparisons of items: the table, and what it must be to rank them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph


@dataclasses.dataclass(frozen=True, eq=False)
class Comparisons:
  """Who preferred which of two items; every array is `[V]`.

  Attributes:
    worker: int32 in [0, num_workers).
    left, right: int32 in [0, num_items), different.
    left_wins: bool.
    num_workers, num_items: a worker or an item may be in no comparison.

  Raises:
    ValueError: a shape, type or range above is violated.
  """

  worker: np.ndarray
  left: np.ndarray
  right: np.ndarray
  left_wins: np.ndarray
  num_workers: int
  num_items: int

  def __post_init__(self):
    counts = {
      'worker': self.num_workers,
      'left': self.num_items,
      'right': self.num_items,
    }
    for name, count in counts.items():
      ids = np.asarray(getattr(self, name))
      if ids.ndim != 1 or len(ids) != len(self.left_wins):
        raise ValueError(f'{name} has shape {ids.shape}; all arrays are [V]')
      if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f'{name} has type {ids.dtype}; it must be integers')
      if ids.size and not 0 <= ids.min() <= ids.max() < count:
        raise ValueError(
          f'{name}={ids.min()}..{ids.max()} must lie in [0, {count})'
        )
      object.__setattr__(self, name, ids.astype(np.int32))
    wins = np.asarray(self.left_wins)
    if wins.dtype != bool:
      raise ValueError(f'left_wins has type {wins.dtype}; it must be bool')
    object.__setattr__(self, 'left_wins', wins)
    if np.any(self.left == self.right):
      row = int(np.argmax(self.left == self.right))
      raise ValueError(f'left and right are the same item in row {row}')

  def __len__(self) -> int:
    return len(self.left)


def from_names(
  worker: Sequence[str],
  left: Sequence[str],
  right: Sequence[str],
  winner: Sequence[str],
) -> tuple[Comparisons, tuple[str, ...], tuple[str, ...]]:
  """A long table of V names as ids, and the names back.

  Args:
    worker: `[V]` who judged.
    left, right: `[V]` the two items.
    winner: `[V]` one of them.

  Returns:
    The table, the workers' and the items' names, sorted: ids count along them.

  Raises:
    ValueError: a winner that is neither item, or as `Comparisons`.
  """
  workers, who = np.unique(np.asarray(worker, str), return_inverse=True)
  columns = np.stack(
    [np.asarray(names, str) for names in (left, right, winner)]
  )
  strange = np.flatnonzero(np.all(columns[2] != columns[:2], axis=0))
  if len(strange):
    row = int(strange[0])
    raise ValueError(
      f'winner={columns[2, row]} in row {row} must be left={columns[0, row]} '
      f'or right={columns[1, row]}'
    )
  items, places = np.unique(columns[:2], return_inverse=True)
  first, second = places.reshape(2, -1)
  table = Comparisons(
    who, first, second, columns[0] == columns[2], len(workers), len(items)
  )
  return table, tuple(workers.tolist()), tuple(items.tolist())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonFit:
  """Scores of items, and of the workers who compared them.

  Attributes:
    scores: `[N]` on the scale of log-odds, of mean 0; NaN for an item in no
      comparison.
    skill: `[A]`, probability of judging by the scores; None where the model
      has none, NaN for a worker without comparisons.
    bias: `[A]`, probability of left where not judging by the scores; None
      where the model has none.
    log_likelihood: nats.
    iterations: of the optimiser.
    converged: False where the iterations ran out.
    flags: remarks that a reader must see beside the numbers.
  """

  scores: np.ndarray
  skill: np.ndarray | None
  bias: np.ndarray | None
  log_likelihood: float
  iterations: int
  converged: bool
  flags: tuple[str, ...] = ()


def check_connected(comparisons: Comparisons, strength: float) -> None:
  """Refuses tables whose scores would be arbitrary.

  Without a prior every item must win against, and lose to, every other through
  some chain of comparisons; with one, chains of comparisons suffice.

  Args:
    comparisons: N items.
    strength: of the prior on scores; 0 for none.

  Raises:
    ValueError: no comparisons, or items that no such chain connects.
  """
  if not len(comparisons):
    raise ValueError('comparisons are empty: a ranking needs some')
  winner = np.where(comparisons.left_wins, comparisons.left, comparisons.right)
  loser = np.where(comparisons.left_wins, comparisons.right, comparisons.left)
  size = comparisons.num_items
  graph = sparse.coo_array(
    (np.ones(len(winner)), (winner, loser)), (size, size)
  )
  seen = np.unique((winner, loser))
  kind = 'weak' if strength else 'strong'
  _, part = csgraph.connected_components(graph, connection=kind)
  parts = len(np.unique(part[seen]))
  if parts > 1 and strength:
    raise ValueError(
      f'the items fall into {parts} parts that nobody compared with each '
      'other; rank each part by itself'
    )
  if parts > 1:
    raise ValueError(
      f'the items fall into {parts} parts between which all wins go one way: '
      'without a prior (strength > 0) their scores are infinite'
    )

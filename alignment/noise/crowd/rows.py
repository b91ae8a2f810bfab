"""Votes laid out for sums over them, the inner loop of every annotator model.

A model keeps one number (or more) per cell = (worker, verdict) and needs its
sum over the votes of each task; expected counts are the transpose of that sum.
Votes stand by task in rows of equal width, so the sum is a few gathers of
whole columns and its transpose a few scatters, with the bootstraps innermost.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.noise.crowd.table import VoteTable
from alignment.types import Array

_WIDEST = 16
_ROW_COST = 2
"""What starting a row costs, in gathers of one more column."""


class Rows(NamedTuple):
  """Votes of I tasks in K ≥ I rows of width W.

  Attributes:
    cells: `[K, W]` int32, worker · C + label; A · C where there is no vote.
    owner: `[K]` int32, the task of each row, rising; None where row i is task
      i, as it is if no task has more than W votes.
  """

  cells: Array
  owner: Array | None


def lay_out(votes: VoteTable) -> Rows:
  """The rows of a table, in the width that costs least.

  Every task has at least one row, be it an empty one.
  """
  num_votes = np.bincount(votes.task, minlength=votes.num_tasks)
  width = min(
    range(1, _WIDEST + 1),
    key=lambda w: (w + _ROW_COST) * np.sum(_num_rows(num_votes, w)),
  )
  num_rows = _num_rows(num_votes, width)
  first_row = np.cumsum(num_rows) - num_rows
  order = np.argsort(votes.task, kind='stable')
  task = votes.task[order]
  rank = np.arange(len(votes)) - (np.cumsum(num_votes) - num_votes)[task]
  nothing = votes.num_workers * votes.num_classes
  cells = np.full((num_rows.sum(), width), nothing, np.int32)
  cells[first_row[task] + rank // width, rank % width] = (
    votes.worker[order] * votes.num_classes + votes.label[order]
  )
  if len(cells) == votes.num_tasks:
    return Rows(cells, None)
  return Rows(cells, np.repeat(np.arange(votes.num_tasks), num_rows))


def sum_votes(table: Array, rows: Rows, num_tasks: int) -> Array:
  """Sums a table over the votes of each task: Σ_votes table[cell].

  Args:
    table: `[A · C, ...]`.
    rows: of `lay_out`.
    num_tasks: I.

  Returns:
    `[I, ...]`, 0 for a task without votes.
  """
  nothing = jnp.zeros((1, *table.shape[1:]), table.dtype)
  table = jnp.concatenate([table, nothing])
  columns = [
    table.at[rows.cells[:, column]].get(mode='promise_in_bounds')
    for column in range(rows.cells.shape[1])
  ]
  total = sum(columns[1:], columns[0])
  if rows.owner is None:
    return total
  return jax.ops.segment_sum(
    total, rows.owner, num_tasks, indices_are_sorted=True
  )


def tally(values: Array, rows: Rows, num_cells: int) -> Array:
  """Sums values of tasks over the votes of each cell: Σ_votes values[task].

  Args:
    values: `[I, ...]`.
    rows: of `lay_out`.
    num_cells: A · C.

  Returns:
    `[A · C, ...]`, the transpose of `sum_votes`.
  """
  if rows.owner is not None:
    values = values[rows.owner]
  total = jnp.zeros((num_cells + 1, *values.shape[1:]), values.dtype)
  for column in range(rows.cells.shape[1]):
    total = total.at[rows.cells[:, column]].add(
      values, mode='promise_in_bounds'
    )
  return total[:-1]


def _num_rows(num_votes: np.ndarray, width: int) -> np.ndarray:
  return np.maximum(1, -(-num_votes // width))

"""From a data set to global batches: a pure function of seed and step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import grain
import jax
import numpy as np

from alignment.data.layout import (
  Group,
  capacities_for,
  capacity_for,
  tabulate,
)
from alignment.data.packing import Capacity, LayoutError
from alignment.data.table import Table, lay_out_rows
from alignment.types import Batch

_FOREVER = 2**62
_PLANNED_BATCHES = 256


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """A permutation of `size` examples, another one for each epoch and seed.

  The order of raw Philox draws, whose stream NumPy promises to keep: a run
  resumed under another NumPy sees the same data.
  """
  draws = np.random.Philox(key=[seed, epoch]).random_raw(size)
  return np.argsort(draws, kind='stable')


def batches(
  groups: Sequence[Group] | Table,
  *,
  batch_size: int,
  seed: int,
  packing: str = 'shared',
  num_epochs: int | None = None,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  row_multiple: int = 1,
  drop_remainder: bool = True,
  max_row_length: int | None = None,
  capacity: Capacity | None = None,
  shapes: int = 1,
  prefetch: int = 0,
) -> Iterator[Batch]:
  """Batches of reshuffled epochs, from any global step on.

  The global batch of a step is chosen first, then laid out, then each process
  takes its rows: the same examples at the same step on any number of
  processes, and the step is the whole state of the iterator.

  All batches have one shape, planned before the first; packed ones each the
  smallest of `shapes` that holds it. Only packed batches beyond the planned
  ones (the epochs asked for, at most 256 batches) may fit none; they come in
  one more, safe shape. A `capacity` of one's own is kept.

  Args:
    groups: the data set, or its table.
    batch_size: examples in a global batch.
    seed: ≥ 0, of the order.
    packing: 'padded', 'shared' or 'packed'.
    num_epochs: None goes on forever.
    start_step: the global step of the first batch.
    process_index: which rows to fill.
    process_count: processes that share a batch; `R` is a multiple of it.
    row_multiple: what `R` must be divisible by (devices × microbatches).
    drop_remainder: False keeps the short last batch of an epoch, its empty
      example slots of weight 0.
    max_row_length: T at most; T exactly for packed rows.
    capacity: static sizes of the global batch, instead of planned ones.
    shapes: ≥ 1, of packed batches; three waste about half as many tokens as
      one, and compile three programs.
    prefetch: batches that a thread of its own prepares ahead; 0 without.

  Returns:
    A Grain iterator over numpy batches, `R / process_count` rows each.

  Raises:
    LayoutError: an example that does not fit `max_row_length` or `capacity`.
    ValueError: fewer examples than a batch, or an argument out of range.
  """
  table = groups if isinstance(groups, Table) else tabulate(groups)
  for name, value, low in (
    ('batch_size', batch_size, 1),
    ('seed', seed, 0),
    ('shapes', shapes, 1),
    ('num_epochs', 1 if num_epochs is None else num_epochs, 1),
    ('start_step', start_step, 0),
    ('prefetch', prefetch, 0),
  ):
    if value < low:
      raise ValueError(f'{name} is {value}, want ≥ {low}')
  whole, rest = divmod(len(table), batch_size)
  per_epoch = whole if drop_remainder else whole + (rest > 0)
  if per_epoch == 0:
    raise ValueError(
      f'{len(table)} examples do not fill one batch: batch_size is '
      f'{batch_size}; lower it, or pass drop_remainder=False'
    )
  order = functools.lru_cache(maxsize=2)(
    lambda epoch: epoch_order(seed, epoch, len(table))
  )

  def members(step: int) -> np.ndarray:
    epoch, at = divmod(step, per_epoch)
    return order(epoch)[at * batch_size : (at + 1) * batch_size]

  last = _FOREVER if num_epochs is None else num_epochs * per_epoch
  fill = _filler(
    table,
    [members(step) for step in range(min(last, _PLANNED_BATCHES))]
    if packing == 'packed' and capacity is None
    else None,
    batch_size=batch_size,
    packing=packing,
    process_index=process_index,
    process_count=process_count,
    row_multiple=row_multiple,
    max_row_length=max_row_length,
    capacity=capacity,
    shapes=shapes,
  )
  steps = grain.MapDataset.range(start_step, max(start_step, last))
  return iter(
    steps.map(lambda step: fill(members(int(step)))).to_iter_dataset(
      grain.ReadOptions(
        num_threads=min(prefetch, 1), prefetch_buffer_size=prefetch
      )
    )
  )


def evaluation_batches(
  groups: Sequence[Group] | Table,
  *,
  batch_size: int,
  packing: str = 'shared',
  process_index: int = 0,
  process_count: int = 1,
  row_multiple: int = 1,
  max_row_length: int | None = None,
  capacity: Capacity | None = None,
) -> list[Batch]:
  """Every example once, in order, in batches of one shape.

  The last batch is filled up with empty examples (weight 0, index −1).

  Args:
    groups: the data set, or its table; the other arguments as in `batches`.

  Returns:
    The laid-out batches, kept in memory: they are read again and again.

  Raises:
    LayoutError: an example that does not fit `max_row_length` or `capacity`.
    ValueError: no examples, or an argument out of range.
  """
  table = groups if isinstance(groups, Table) else tabulate(groups)
  if batch_size < 1:
    raise ValueError(f'batch_size is {batch_size}, want ≥ 1')
  starts = range(0, len(table), batch_size)
  members = [
    np.arange(start, min(start + batch_size, len(table))) for start in starts
  ]
  fill = _filler(
    table,
    members,
    batch_size=batch_size,
    packing=packing,
    process_index=process_index,
    process_count=process_count,
    row_multiple=row_multiple,
    max_row_length=max_row_length,
    capacity=capacity,
  )
  return [fill(part) for part in members]


def rows_with(batches: Sequence[Batch], wanted: np.ndarray) -> list[Batch]:
  """The rows that hold certain examples, in batches of the shape given.

  The last batch is filled up by repeating rows.

  Args:
    batches: laid-out numpy batches of one shape.
    wanted: indices of examples.
  """
  index = np.concatenate([batch.examples.index for batch in batches])
  rows = np.flatnonzero(np.isin(index, wanted).any(axis=1))
  if not rows.size:
    return []
  size = len(batches[0].tokens)
  rows = np.resize(rows, (-(-rows.size // size), size))
  whole = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
  return [jax.tree.map(lambda x, part=part: x[part], whole) for part in rows]


def _filler(
  table: Table,
  planned: list[np.ndarray] | None,
  *,
  batch_size: int,
  packing: str,
  process_index: int,
  process_count: int,
  row_multiple: int,
  max_row_length: int | None,
  capacity: Capacity | None,
  shapes: int = 1,
) -> Callable[[np.ndarray], Batch]:
  """Lays out this process's rows of a batch with given members."""
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index is {process_index}, want in [0, {process_count})'
    )
  tightly = packing == 'packed' and capacity is None and planned is not None
  if shapes > 1 and not tightly:
    raise ValueError(
      f'shapes is {shapes}, want 1 unless packing is packed and capacity None'
    )
  if capacity is None:
    size = dict(
      batch_size=batch_size,
      row_multiple=math.lcm(row_multiple, process_count),
      max_row_length=max_row_length,
    )
    capacities = [capacity_for(table, packing=packing, **size)]
    if tightly:
      tight = capacities_for(table, planned=planned, shapes=shapes, **size)
      capacities = [*tight, *capacities]
  elif capacity.rows % process_count:
    raise ValueError(
      f'capacity.rows is {capacity.rows}, want a multiple of process_count '
      f'{process_count}'
    )
  else:
    capacities = [capacity]

  def rows(capacity: Capacity) -> slice:
    share = capacity.rows // process_count
    return slice(process_index * share, (process_index + 1) * share)

  def fill(members: np.ndarray) -> Batch:
    for tight in capacities[:-1]:
      try:
        return lay_out_rows(table, members, tight, packing, rows(tight))
      except LayoutError:
        continue  # the safe capacity holds every batch
    safe = capacities[-1]
    return lay_out_rows(table, members, safe, packing, rows(safe))

  return fill

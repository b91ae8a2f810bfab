"""Prompt trees as arrays: groups of token ids become one `Batch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.data.capacity import (
  by_size,
  planned_capacity,
  safe_capacity,
)
from alignment.data.packing import Capacity
from alignment.data.table import Table, lay_out_rows
from alignment.types import Batch

_COLUMNS = {
  'chosen': np.int32,
  'rejected': np.int32,
  'weight': np.float32,
  'coefficient': np.float32,
  'label_prob': np.float32,
  'label_smoothing': np.float32,
  'annotator_id': np.int32,
  'index': np.int32,
}
_LARGEST = float(np.finfo(np.float32).max)
# Fields that may be replaced, and their ranges.
_RANGES = {
  'weight': (0, _LARGEST),
  'coefficient': (-_LARGEST, _LARGEST),
  'label_prob': (0, 1),
  'label_smoothing': (0, float(np.nextafter(np.float32(0.5), np.float32(0)))),
  'annotator_id': (-1, _LARGEST),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """One example: a prompt and the `K` completions that branch from it.

  Attributes:
    prompt: `[P]` int32 token ids, P ≥ 1; BOS where the text has no prompt.
    completions: K arrays of token ids, each of length ≥ 1; each ends with EOS
      unless it was truncated.
    index: ≥ 0, stable over epochs, layouts and runs.
    chosen: which completion is labelled better (a flip swaps it with
      `rejected`; the completions stay where they are).
    rejected: which is labelled worse; for K = 1 the one completion.
    weight: ≥ 0, multiplicity.
    coefficient: multiplies the loss, not its denominator.
    label_prob: in [0, 1], P(chosen ≻ rejected) given by the labeller.
    label_smoothing: in [0, ½), the flip rate the loss assumes.
    annotator_id: −1 where unknown.
    reference_logps: K sums of log π_ref in nats, or None where unknown.
    rewards: K rewards, or None where unknown.

  Raises:
    ValueError: a value outside its range.
  """

  prompt: np.ndarray
  completions: tuple[np.ndarray, ...]
  index: int
  chosen: int = 0
  rejected: int = 1
  weight: float = 1.0
  coefficient: float = 1.0
  label_prob: float = 1.0
  label_smoothing: float = 0.0
  annotator_id: int = -1
  reference_logps: tuple[float, ...] | None = None
  rewards: tuple[float, ...] | None = None

  def __post_init__(self):
    count = len(self.completions)
    if count == 1:
      object.__setattr__(self, 'rejected', self.chosen)
    wanted = {
      'a prompt of at least one token (BOS)': len(self.prompt) >= 1,
      'at least one completion': count >= 1,
      'completions of at least one token': all(map(len, self.completions)),
      'index ≥ 0': self.index >= 0,
      f'chosen in [0, {count})': 0 <= self.chosen < count,
      f'rejected in [0, {count})': 0 <= self.rejected < count,
      'weight ≥ 0': self.weight >= 0,
      'label_prob in [0, 1]': 0 <= self.label_prob <= 1,
      'label_smoothing in [0, 0.5)': 0 <= self.label_smoothing < 0.5,
    }
    for name in ('reference_logps', 'rewards'):
      values = getattr(self, name)
      wanted[f'{count} {name}'] = values is None or len(values) == count
    for what, holds in wanted.items():
      if not holds:
        raise ValueError(f'group {self.index}: want {what}, got {self}')


def tabulate(groups: Sequence[Group]) -> Table:
  """Stacks groups once, so that each batch of them costs no Python loop."""
  width = max((len(group.completions) for group in groups), default=1)
  lengths = np.zeros((len(groups), 1 + width), int)
  numbers = np.full((2, len(groups), width), np.nan, np.float32)
  pieces = []
  for i, group in enumerate(groups):
    texts = (group.prompt, *group.completions)
    lengths[i, : len(texts)] = [len(text) for text in texts]
    pieces.extend(texts)
    for values, row in zip(
      (group.reference_logps, group.rewards), numbers[:, i], strict=True
    ):
      if values is not None:
        row[: len(values)] = values
  tokens = np.concatenate(pieces) if pieces else np.zeros(0)
  ends = np.cumsum(lengths).reshape(lengths.shape)
  return Table(
    tokens.astype(np.int32),
    ends - lengths,
    lengths,
    {
      name: np.array([getattr(group, name) for group in groups], dtype)
      for name, dtype in _COLUMNS.items()
    },
    *numbers,
  )


def lay_out(
  groups: Sequence[Group] | Table, capacity: Capacity, packing: str
) -> Batch:
  """One batch of numpy arrays holding `groups`.

  Slots count the completions of a row: those of its first example, then those
  of the next. Numbers nobody has supplied (`reference_logps`, `reward`,
  `advantage`) are NaN, so that a loss reading them by mistake shows; empty
  slots and padding hold 0, `slot` padding `N`, empty `index` −1.

  Args:
    groups: examples, or the table of them.
    capacity: static sizes; rows that are left over stay empty.
    packing: 'padded' (one example a row, each completion a group of its own
      behind its copy of the prompt, in cells of equal length), 'shared' (one
      example a row, the prompt once) or 'packed' (several examples a row).

  Raises:
    LayoutError: an example does not fit; names its index and lengths.
  """
  table = groups if isinstance(groups, Table) else tabulate(groups)
  return lay_out_rows(table, np.arange(len(table)), capacity, packing)


def capacity_for(
  groups: Sequence[Group] | Table,
  *,
  packing: str,
  batch_size: int,
  row_multiple: int = 1,
  max_row_length: int | None = None,
  planned: Sequence[np.ndarray] | None = None,
) -> Capacity:
  """Static sizes for batches of these groups.

  A pure function of the lengths, so that every process agrees. Sizes come in
  four buckets per octave: data sets of about the same lengths compile once.

  Args:
    groups: the whole data set, or its table.
    packing: as in `lay_out`.
    batch_size: examples in a global batch.
    row_multiple: what `R` must be divisible by (devices × microbatches).
    max_row_length: T at most; T exactly for packed rows.
    planned: positions in `groups` of the examples of every batch to come. With
      it, packed capacities hold these batches tightly; without it, and for the
      other packings always, they hold any `batch_size` examples.

  Raises:
    LayoutError: an example longer than `max_row_length`.
    ValueError: no groups, or a size below 1.
  """
  table = groups if isinstance(groups, Table) else tabulate(groups)
  size = dict(
    batch_size=batch_size,
    row_multiple=row_multiple,
    max_row_length=max_row_length,
  )
  safe = safe_capacity(table.lengths, packing=packing, **size)
  if packing != 'packed' or planned is None:
    return safe
  return planned_capacity(table.lengths, planned, **size)


def capacities_for(
  groups: Sequence[Group] | Table,
  *,
  planned: Sequence[np.ndarray],
  shapes: int,
  **size: Any,
) -> list[Capacity]:
  """A few capacities of packed batches, the smallest first.

  Batches that hold more tokens than most then cost what they cost, and not all
  the others as well; each capacity is one more program to compile.

  Args:
    groups: the whole data set, or its table.
    planned: positions in `groups` of the examples of every batch to come.
    shapes: ≥ 1, capacities at most.
    **size: as in `capacity_for`, but the packing.

  Raises:
    LayoutError: an example longer than `max_row_length`.
    ValueError: no groups, or a size below 1.
  """
  if shapes < 1:
    raise ValueError(f'shapes is {shapes}, want ≥ 1')
  table = groups if isinstance(groups, Table) else tabulate(groups)
  found = [
    capacity_for(table, packing='packed', planned=part, **size)
    for part in by_size(table.lengths, planned, shapes)
  ]
  return sorted(dict.fromkeys(found), key=lambda c: c.rows * c.tokens)


def relabel(
  batch: Batch, *, is_flipped: np.ndarray | None = None, **tables: np.ndarray
) -> Batch:
  """The batch under other labels; its texts are shared, not copied.

  Args:
    batch: laid-out batch of numpy arrays.
    is_flipped: `[n]` bool, by example index like every table; True swaps
      `chosen` and `rejected` of that example. `label_prob` stays: it is what
      the labeller gave for the label, whichever that is.
    **tables: field of `Examples` (`weight`, `coefficient`, `label_prob`,
      `label_smoothing`, `annotator_id`) -> `[n]`, its new values.

  Raises:
    ValueError: a field that cannot be replaced, a table too short for the
      batch, or values out of range.
  """
  examples = batch.examples
  filled = examples.index >= 0
  changed = {}
  if is_flipped is not None:
    flipped = filled & _looked_up('is_flipped', is_flipped, examples.index)
    changed['chosen'] = np.where(flipped, examples.rejected, examples.chosen)
    changed['rejected'] = np.where(flipped, examples.chosen, examples.rejected)
  for name, table in tables.items():
    if name not in _RANGES:
      raise ValueError(f'{name!r} is not one of {sorted(_RANGES)}')
    low, high = _RANGES[name]
    old = getattr(examples, name)
    new = _looked_up(name, table, examples.index)
    wrong = filled & ~((new >= low) & (new <= high))
    if wrong.any():
      raise ValueError(f'{name} is {new[wrong][0]}, want in [{low}, {high}]')
    changed[name] = np.where(filled, new, old).astype(old.dtype)
  return batch.replace(examples=examples.replace(**changed))


def owners(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
  """Which completion of which example a slot holds.

  Returns:
    index `[R, N]`, the example's stable index, −1 in empty slots; and
    completion `[R, N]`, its place among the completions of that example.
  """
  rows, slots = batch.completions.length.shape
  example_slots = batch.examples.index.shape[1]
  filled = batch.completions.length > 0
  # Groups of a row count its examples, unless the row holds one example whose
  # completions each have their own group.
  example = np.zeros((rows, slots + 1), np.int32)
  if example_slots > 1:
    row = np.arange(rows)[:, None]
    example[row, batch.slot] = batch.group[row, batch.source] - 1
  example = example[:, :slots]
  index = np.take_along_axis(batch.examples.index, example, axis=1)
  number = np.arange(slots)
  new = np.diff(example, axis=1, prepend=-1) > 0
  first = np.maximum.accumulate(np.where(new & filled, number, 0), axis=1)
  return np.where(filled, index, -1), np.where(filled, number - first, 0)


def fill_reference(batch: Batch, table: np.ndarray) -> Batch:
  """The batch with `reference_logps` read from a table.

  Args:
    batch: laid-out batch.
    table: `[n, K]`, Σ log π_ref in nats of completion k of the example whose
      index is the row of the table.

  Raises:
    ValueError: a table too short for the batch.
  """
  index, completion = owners(batch)
  logps = _looked_up('table', table, index)
  logps = np.take_along_axis(logps, completion[..., None], axis=-1)[..., 0]
  logps = np.where(index >= 0, logps, 0).astype(np.float32)
  return batch.replace(
    completions=batch.completions.replace(reference_logps=logps)
  )


def collect(batch: Batch, values: np.ndarray, table: np.ndarray) -> None:
  """Writes numbers of completions into a table: `fill_reference` backwards.

  Args:
    batch: laid-out batch.
    values: `[R, N]`.
    table: `[n, K]`, changed in place where the batch holds completions.
  """
  index, completion = owners(batch)
  filled = index >= 0
  table[index[filled], completion[filled]] = np.asarray(values)[filled]


def _looked_up(name: str, table: np.ndarray, index: np.ndarray) -> np.ndarray:
  table = np.asarray(table)
  if index.size and index.max() >= len(table):
    raise ValueError(
      f'{name} has {len(table)} rows and the batch holds example '
      f'{index.max()}: tables are indexed by the example index'
    )
  return table[index]

"""Prompt trees as arrays: groups of token ids become one `Batch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from alignment.data.packing import (
  Capacity,
  Places,
  place,
  planned_capacity,
  safe_capacity,
)
from alignment.types import Batch, Completions, Examples

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
_EMPTY = {'annotator_id': -1, 'index': -1}


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


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """Groups as arrays, from which a batch is laid out by indexing.

  Attributes:
    tokens: int32, all prompts and completions end to end.
    start: `[n, 1 + K]`, where each of them starts in `tokens`.
    lengths: `[n, 1 + K]`, 0 where an example has fewer than K completions.
    examples: field of `Examples` -> `[n]`; chosen and rejected count the
      completions of the example.
    reference_logps: `[n, K]` float32, NaN where unknown.
    rewards: `[n, K]` float32, NaN where unknown.
  """

  tokens: np.ndarray
  start: np.ndarray
  lengths: np.ndarray
  examples: dict[str, np.ndarray]
  reference_logps: np.ndarray
  rewards: np.ndarray

  def __len__(self) -> int:
    return len(self.lengths)


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
  safe = safe_capacity(
    table.lengths,
    packing=packing,
    batch_size=batch_size,
    row_multiple=row_multiple,
    max_row_length=max_row_length,
  )
  if packing != 'packed' or planned is None:
    return safe
  return planned_capacity(
    table.lengths, planned, safe, row_multiple=row_multiple
  )


def lay_out_rows(
  table: Table,
  members: np.ndarray,
  capacity: Capacity,
  packing: str,
  rows: slice = slice(None),
) -> Batch:
  """The rows `rows` of the batch that holds the examples `members` of a table.

  Args:
    table: all examples.
    members: `[B]`, positions in the table.
    capacity: static sizes of the whole batch.
    packing: as in `lay_out`.
    rows: contiguous rows to fill; the places are those of the whole batch.

  Raises:
    LayoutError: an example does not fit; names its index and lengths.
  """
  places = place(
    table.lengths[members], table.examples['index'][members], capacity, packing
  )
  first, last, _ = rows.indices(capacity.rows)
  if (first, last) != (0, capacity.rows):
    inside = (places.row >= first) & (places.row < last)
    members = members[inside]
    places = places._replace(
      row=places.row[inside] - first,
      example=places.example[inside],
      first_slot=places.first_slot[inside],
      start=places.start[inside],
      group=places.group[inside],
      target_start=places.target_start[inside],
    )
  capacity = dataclasses.replace(capacity, rows=last - first)
  return Batch(
    **_texts(table, members, capacity, places),
    examples=_examples(table, members, capacity, places),
    completions=_completions(table, members, capacity, places),
  )


def _texts(table, members, capacity, places: Places) -> dict[str, np.ndarray]:
  """The arrays `[R, T]` and `[R, L]` of a batch."""
  lengths = table.lengths[members][:, places.piece]
  copied = table.start[members][:, places.piece]
  row = places.row[:, None]
  branch = np.broadcast_to(places.branch, lengths.shape)
  piece, within = _spread(lengths)

  def at(values):  # of a piece, for each of its tokens
    return values.reshape(-1)[piece]

  column = at(places.start) + within
  text = table.tokens[at(copied) + within]
  offset = np.where(branch > 0, lengths[:, :1], 0)
  shape = (capacity.rows, capacity.tokens)
  to = at(row * capacity.tokens + places.start) + within
  arrays = {
    'tokens': _filled(shape, to, text),
    'positions': _filled(shape, to, at(offset) + within),
    'group': _filled(shape, to, at(places.group)),
    'branch': _filled(shape, to, at(branch)),
  }
  predicted = at(branch) > 0
  piece, within = piece[predicted], within[predicted]
  # The first token of every branch is predicted by the end of the prompt, not
  # by its left neighbour, which may belong to another branch.
  source = np.where(within == 0, at(places.prompt_end), column[predicted] - 1)
  slot = places.first_slot[:, None] + places.piece - 1
  shape = (capacity.rows, capacity.targets)
  to = at(row * capacity.targets + places.target_start) + within
  return arrays | {
    'source': _filled(shape, to, source),
    'target': _filled(shape, to, text[predicted]),
    'slot': _filled(shape, to, at(slot), capacity.slots),
  }


def _examples(table, members, capacity, places: Places) -> Examples:
  """The arrays `[R, E]` of a batch."""
  to = places.row * capacity.examples + places.example
  shape = (capacity.rows, capacity.examples)
  columns = {
    name: _filled(shape, to, values[members], _EMPTY.get(name, 0), values.dtype)
    for name, values in table.examples.items()
  }
  for name in ('chosen', 'rejected'):
    columns[name].reshape(-1)[to] += places.first_slot.astype(np.int32)
  return Examples(**columns)


def _completions(table, members, capacity, places: Places) -> Completions:
  """The arrays `[R, N]` of a batch."""
  lengths = table.lengths[members, 1:]
  there = lengths > 0
  first = places.row * capacity.slots + places.first_slot
  to = (first[:, None] + np.arange(lengths.shape[1]))[there]
  shape = (capacity.rows, capacity.slots)
  return Completions(
    length=_filled(shape, to, lengths[there]),
    reference_logps=_filled(
      shape, to, table.reference_logps[members][there], dtype=np.float32
    ),
    reward=_filled(shape, to, table.rewards[members][there], dtype=np.float32),
    advantage=_filled(shape, to, np.nan, dtype=np.float32),
  )


def _spread(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """For every token of pieces of these lengths: its piece, its place in it."""
  lengths = lengths.reshape(-1)
  ends = np.cumsum(lengths)
  piece = np.repeat(np.arange(len(lengths)), lengths)
  return piece, np.arange(len(piece)) - (ends - lengths)[piece]


def _filled(shape, to, values, empty=0, dtype=np.int32) -> np.ndarray:
  """An array of `empty` with `values` at the flat positions `to`."""
  array = np.full(shape, empty, dtype)
  array.reshape(-1)[to] = values
  return array

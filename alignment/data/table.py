"""A data set as arrays, and the rows of a batch copied out of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from alignment.data.blocks import list_blocks, pairs_of
from alignment.data.packing import Capacity, Places, place
from alignment.types import Batch, Blocks, Completions, Examples

_EMPTY = {'annotator_id': -1, 'index': -1}


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
    LayoutError: an example does not fit; names its index and lengths. Or the
      attention of a row does not fit the lists planned for it.
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
      prompt_end=places.prompt_end[inside],
      target_start=places.target_start[inside],
    )
  capacity = dataclasses.replace(capacity, rows=last - first)
  return Batch(
    **_texts(table, members, capacity, places),
    examples=_examples(table, members, capacity, places),
    completions=_completions(table, members, capacity, places),
    blocks=_blocks(table, members, capacity, places),
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


def _blocks(table, members, capacity, places: Places) -> Blocks | None:
  """The lists of blocks that see each other, where they were planned."""
  if capacity.blocks is None:
    return None
  tokens, size = capacity.tokens, capacity.blocks.size
  pairs = pairs_of(table.lengths[members], places, tokens, size)
  return list_blocks(pairs, capacity.rows, tokens, capacity.blocks)


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

"""Where every prompt and completion of a batch goes: arithmetic on lengths.

A length table is `[B, 1 + K]` int: column 0 the prompt, column k its k-th
completion, 0 where an example has fewer than K.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np


class LayoutError(ValueError):
  """An example that does not fit the capacity it was given."""


class BlockSizes(NamedTuple):
  """Static lengths of the lists of blocks of a row.

  Attributes:
    size: tokens of a block.
    lists: (blocks of queries, blocks that each sees at most) of every list,
      the widest first.
  """

  size: int
  lists: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Capacity:
  """Static sizes of a batch; a new one is a new compile.

  Attributes:
    rows: `R`.
    tokens: `T` of a row.
    targets: `L`, predicted tokens of a row.
    slots: `N`, completions of a row.
    examples: `E` of a row.
    blocks: of the lists of blocks that see each other; None for no lists.
  """

  rows: int
  tokens: int
  targets: int
  slots: int
  examples: int
  blocks: BlockSizes | None = None


class Places(NamedTuple):
  """Where the examples and the pieces of their texts stand.

  Attributes:
    row: `[B]`, the row of the example.
    example: `[B]`, its slot among the row's `E`.
    first_slot: `[B]`, the slot of its first completion among the row's `N`.
    piece: `[M]`, column of the length table that piece m of an example copies;
      every example has the same M pieces, some of length 0.
    start: `[B, M]`, first token of the piece in the row.
    group: `[B, M]`, 1 and up.
    branch: `[M]`, 0 the prompt.
    prompt_end: `[B, M]`, last token in the row of the prompt it belongs to.
    target_start: `[B, M]`, first entry of a completion among the row's `L`.
  """

  row: np.ndarray
  example: np.ndarray
  first_slot: np.ndarray
  piece: np.ndarray
  start: np.ndarray
  group: np.ndarray
  branch: np.ndarray
  prompt_end: np.ndarray
  target_start: np.ndarray


def sizes(lengths: np.ndarray) -> np.ndarray:
  """`[B, 3]` tokens, targets and completions of a prompt shared by all."""
  branches = lengths[:, 1:]
  targets = branches.sum(1)
  return np.stack(
    [lengths[:, 0] + targets, targets, (branches > 0).sum(1)], axis=1
  )


def padded(lengths: np.ndarray, capacity: Capacity) -> Places:
  """One example a row; its branches side by side in cells of equal length.

  Each cell is a group of its own, the prompt repeated in it. The cells of a
  row are `tokens // slots` long, those of its entries `targets // slots`.
  """
  count, branches = lengths.shape[0], lengths.shape[1] - 1
  cell = capacity.tokens // capacity.slots
  target_cell = capacity.targets // capacity.slots
  longest = lengths[:, 1:].max(1)
  fits = (lengths[:, 0] + longest <= cell) & (longest <= target_cell)
  fits &= sizes(lengths)[:, 2] <= capacity.slots
  fits &= np.arange(count) < capacity.rows
  _refuse_first(~fits)
  cells = np.arange(branches)
  prompts = lengths[:, :1]
  start = np.broadcast_to(cells * cell, (count, branches))
  target_start = np.broadcast_to(cells * target_cell, (count, branches))

  def pair(prompt, completion):
    return np.stack([prompt, completion], axis=-1).reshape(count, -1)

  return Places(
    row=np.arange(count),
    example=np.zeros(count, int),
    first_slot=np.zeros(count, int),
    piece=np.stack([np.zeros_like(cells), cells + 1], -1).reshape(-1),
    start=pair(start, start + prompts),
    group=np.broadcast_to(np.repeat(cells + 1, 2), (count, 2 * branches)),
    branch=np.tile([0, 1], branches),
    prompt_end=pair(start, start) + prompts - 1,
    target_start=pair(target_start, target_start),
  )


def shared(lengths: np.ndarray, capacity: Capacity) -> Places:
  """One example a row: the prompt once, its branches after it."""
  count = lengths.shape[0]
  room = [capacity.tokens, capacity.targets, capacity.slots]
  fits = (sizes(lengths) <= room).all(1) & (np.arange(count) < capacity.rows)
  _refuse_first(~fits)
  zeros = np.zeros(count, int)
  return _trees(lengths, np.arange(count), zeros, zeros, zeros, zeros)


def packed(lengths: np.ndarray, capacity: Capacity) -> Places:
  """Several examples a row, by first fit in decreasing order of length.

  The longest example goes to the first row with room for its tokens, targets,
  completions and itself; equal lengths keep the order of the batch.
  """
  needs = sizes(lengths)
  smallest = int(needs[:, 0].min(initial=capacity.tokens))
  needs = needs.tolist()
  order = sorted(range(len(needs)), key=lambda i: -needs[i][0])
  places = np.zeros((len(needs), 5), int)  # row, example, slot, start, target
  used: list[list[int]] = []  # of the rows so far: tokens, targets, slots, E
  unfinished: list[int] = []  # rows that have room for the smallest example
  room = (capacity.tokens, capacity.targets, capacity.slots)
  for i in order:
    tokens, targets, slots = needs[i]
    for row in unfinished:
      a, b, c, e = used[row]
      if (
        a + tokens <= room[0]
        and b + targets <= room[1]
        and c + slots <= room[2]
        and e < capacity.examples
      ):
        break
    else:
      row, (a, b, c, e) = len(used), (0, 0, 0, 0)
      if (
        row == capacity.rows
        or tokens > room[0]
        or targets > room[1]
        or slots > room[2]
      ):
        raise _Overflow(i)
      used.append([])
      unfinished.append(row)
    used[row] = [a + tokens, b + targets, c + slots, e + 1]
    places[i] = (row, e, c, a, b)
    if a + tokens + smallest > room[0]:
      unfinished.remove(row)
  row, example, slot, start, target = places.T
  return _trees(lengths, row, example, slot, start, target)


PACKINGS = {'padded': padded, 'shared': shared, 'packed': packed}


def _trees(lengths, row, example, first_slot, start, target_start) -> Places:
  """Places of prompts whose branches follow one another."""
  count, width = lengths.shape
  before = np.cumsum(lengths, axis=1) - lengths
  branch = np.arange(width)
  return Places(
    row=row,
    example=example,
    first_slot=first_slot,
    piece=branch,
    start=start[:, None] + before,
    group=np.broadcast_to(example[:, None] + 1, (count, width)),
    branch=branch,
    prompt_end=np.broadcast_to(
      start[:, None] + lengths[:, :1] - 1, before.shape
    ),
    target_start=target_start[:, None] + before - lengths[:, :1],
  )


class _Overflow(Exception):
  """`args[0]`: the place in the batch of the example that does not fit."""


def _refuse_first(overflows: np.ndarray) -> None:
  if overflows.any():
    raise _Overflow(int(np.argmax(overflows)))


def place(
  lengths: np.ndarray, index: np.ndarray, capacity: Capacity, packing: str
) -> Places:
  """Where the examples of a batch go.

  Args:
    lengths: `[B, 1 + K]` length table of the batch.
    index: `[B]`, what to call an example that does not fit.
    capacity: static sizes.
    packing: a name of `PACKINGS`.

  Raises:
    LayoutError: an example does not fit, or the rows are used up.
    ValueError: an unknown packing.
  """
  try:
    return packing_of(packing)(lengths, capacity)
  except _Overflow as overflow:
    at = overflow.args[0]
    prompt, *branches = lengths[at].tolist()
    raise LayoutError(
      f'example {int(index[at])} does not fit: prompt of {prompt} tokens, '
      f'completions of {branches}, number {at + 1} of a batch of '
      f'{len(lengths)} examples; packing {packing!r} has {capacity}. Shorten '
      'the texts or raise the capacity.'
    ) from None


def packing_of(name: str):
  """The packing of that name; ValueError names the known ones."""
  if name not in PACKINGS:
    raise ValueError(f'packing {name!r} is not one of {sorted(PACKINGS)}')
  return PACKINGS[name]

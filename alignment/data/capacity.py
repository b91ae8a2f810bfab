"""Static sizes of batches, planned from a length table alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from alignment.data.blocks import block_size, most_seen, pairs_of, pays, plan
from alignment.data.packing import (
  Capacity,
  LayoutError,
  Places,
  packed,
  packing_of,
  sizes,
)

_FINE = 16
"""Sizes per octave of what is planned for known batches."""
_CUTS = 16  # shares of the batches in which groups may end
_CHUNK = 4096  # examples whose blocks are listed at a time


def bucket(size: int, per_octave: int = 4) -> int:
  """The smallest of a few sizes per octave that is at least `size`."""
  octave = 1 << (max(size, 1) - 1).bit_length()
  quantum = max(1, octave // (2 * per_octave))
  return -(-size // quantum) * quantum


def safe_capacity(
  lengths: np.ndarray,
  *,
  packing: str,
  batch_size: int,
  row_multiple: int = 1,
  max_row_length: int | None = None,
) -> Capacity:
  """Sizes that no batch of `batch_size` rows of the table can overflow.

  Packed rows take the shortest of a few row lengths that costs at most an
  eighth more tokens than the best of them: attention grows with the length.

  Args:
    lengths: `[n, 1 + K]` length table of the whole data set.
    packing: a name of `PACKINGS`.
    batch_size: examples in a global batch.
    row_multiple: what `R` must be divisible by (devices × microbatches).
    max_row_length: T at most; for packed rows T exactly.

  Raises:
    LayoutError: an example longer than `max_row_length`.
    ValueError: no examples, or a size below 1.
  """
  packing_of(packing)
  for name, value in (
    ('number of examples', len(lengths)),
    ('batch_size', batch_size),
    ('row_multiple', row_multiple),
    ('max_row_length', 1 if max_row_length is None else max_row_length),
  ):
    if value < 1:
      raise ValueError(f'{name} is {value}, want ≥ 1')
  if packing == 'packed':
    return _shortest(
      [
        _safe_packed(lengths, batch_size, row_multiple, width)
        for width in _packed_widths(lengths, max_row_length)
      ],
      1 / 8,
    )
  tokens, targets, completions = sizes(lengths).T
  longest = int(tokens.max())
  slots = int(completions.max())
  rows = _round_up(batch_size, row_multiple)
  if packing == 'padded':
    cell = _row_length(lengths, max_row_length, cells=slots)
    head = min(bucket(int(lengths[:, 1:].max())), cell)
    capacity = Capacity(rows, slots * cell, slots * head, slots, 1)
  else:
    width = _row_length(lengths, max_row_length)
    head = min(bucket(int(targets.max())), width)
    capacity = Capacity(rows, width, head, slots, 1)
  return _with_blocks(capacity, longest, _one_a_row(lengths, capacity, packing))


def planned_capacity(
  lengths: np.ndarray,
  batches: Sequence[np.ndarray],
  *,
  batch_size: int,
  row_multiple: int = 1,
  max_row_length: int | None = None,
) -> Capacity:
  """Tight sizes for packed batches that are known in advance.

  Packs every batch with each of a few row lengths and chooses among them as
  `safe_capacity` does. Sizes are rounded to buckets; batches that were not
  planned may overflow them.

  Args:
    lengths: `[n, 1 + K]` length table of the whole data set.
    batches: rows of the table in each batch; the rest as in `safe_capacity`.

  Raises:
    LayoutError: an example longer than `max_row_length`.
  """
  plans = []
  for width in _planned_widths(lengths, batches, row_multiple, max_row_length):
    safe = _safe_packed(lengths, batch_size, row_multiple, width)
    most = np.ones(4, int)  # rows, targets, slots, examples
    for members in batches:
      part = lengths[members]
      row = packed(part, safe).row
      needs = sizes(part)
      used = [
        np.bincount(row, weights).max()
        for weights in (needs[:, 1], needs[:, 2], None)
      ]
      most = np.maximum(most, [row.max() + 1, *used])
    rows, targets, slots, examples = map(int, most)
    plans.append(
      Capacity(
        rows=min(_round_up(bucket(rows), row_multiple), safe.rows),
        tokens=width,
        targets=min(bucket(targets, _FINE), safe.targets),
        slots=min(bucket(slots), safe.slots),
        examples=min(bucket(examples), safe.examples),
      )
    )
  best = _shortest(plans, 1 / 16)
  parts = (lengths[members] for members in batches)
  placed = ((part, packed(part, best), best.rows) for part in parts)
  return _with_blocks(best, int(sizes(lengths)[:, 0].max()), placed)


def by_size(
  lengths: np.ndarray, batches: Sequence[np.ndarray], shapes: int
) -> list[Sequence[np.ndarray]]:
  """The batches in groups of about the same number of tokens, smallest first.

  Cuts them where capacities of their own for every group cost the fewest
  tokens in all.

  Args:
    lengths: `[n, 1 + K]` length table of the whole data set.
    batches: rows of the table in each batch.
    shapes: groups at most.
  """
  tokens = sizes(lengths)[:, 0]
  totals = np.array([tokens[members].sum() for members in batches])
  order = np.argsort(totals, kind='stable')
  count = len(order)
  cuts = sorted({round(count * i / _CUTS) for i in range(1, _CUTS)} - {0})
  plans = (
    [0, *between, count]
    for between in itertools.combinations(cuts, min(shapes - 1, len(cuts)))
  )

  def cost(ends: list[int]) -> int:
    pieces = itertools.pairwise(ends)
    return sum((b - a) * totals[order[b - 1]] for a, b in pieces)

  ends = itertools.pairwise(min(plans, key=cost))
  return [[batches[i] for i in order[a:b]] for a, b in ends]


def _with_blocks(
  capacity: Capacity,
  longest: int,
  parts: Iterable[tuple[np.ndarray, Places, int]],
) -> Capacity:
  """The capacity with lists of blocks for all rows of the parts, if they pay.

  Args:
    capacity: the other sizes.
    longest: tokens of the longest example.
    parts: of batches, the length table, the places and the number of rows.
  """
  tokens, size = capacity.tokens, block_size(longest)
  count = -(-tokens // size)
  most = np.zeros(count, int)
  for lengths, places, rows in parts:
    pairs = pairs_of(lengths, places, tokens, size)
    most = np.maximum(most, most_seen(pairs, rows, count))
  blocks = plan(most, size)
  if not pays(blocks, tokens):
    return capacity
  return dataclasses.replace(capacity, blocks=blocks)


def _one_a_row(lengths: np.ndarray, capacity: Capacity, packing: str):
  """All examples, each in a row of its own, as parts of `_with_blocks`."""
  for first in range(0, len(lengths), _CHUNK):
    part = lengths[first : first + _CHUNK]
    alone = dataclasses.replace(capacity, rows=len(part))
    yield part, packing_of(packing)(part, alone), len(part)


def _safe_packed(lengths, batch_size, row_multiple, width) -> Capacity:
  """The safe capacity of packed rows of `width` tokens.

  First fit opens a row only for an example, of at most m tokens, that fits no
  row before it. So with S tokens in a batch all rows but the last hold more
  than T − m tokens, and any two together more than T:

    R ≤ 1 + (S − 1) // (T − m + 1),   R ≤ 2 (S // (T + 1)) + [S mod (T + 1) > 0]

  with S the sum of the `batch_size` longest. Typical batches need about half.
  """
  tokens, targets, completions = sizes(lengths).T
  total = int(np.sort(tokens)[-batch_size:].sum())
  pairs, rest = divmod(total, width + 1)
  rows = min(
    batch_size,
    1 + (total - 1) // (width - int(tokens.max()) + 1),
    2 * pairs + (rest > 0),
  )
  examples = min(batch_size, width // int(tokens.min()))
  return Capacity(
    rows=_round_up(rows, row_multiple),
    tokens=width,
    targets=int((width * targets // tokens).max()),
    slots=int(completions.max()) * examples,
    examples=examples,
  )


def _packed_widths(lengths, max_row_length: int | None) -> list[int]:
  """Row lengths worth trying: one to four times the longest example."""
  longest = int(sizes(lengths)[:, 0].max())
  if max_row_length is None:
    return sorted({bucket(int(longest * by)) for by in (1, 1.5, 2, 3, 4)})
  _row_length(lengths, max_row_length)
  return [max_row_length]


def _planned_widths(
  lengths, batches, row_multiple: int, max_row_length: int | None
) -> list[int]:
  """Row lengths worth trying for batches that are known.

  Long rows waste the least at their ends: those that hold the largest batch in
  the fewest rows, up to eight times the longest example.
  """
  if max_row_length is not None:
    return _packed_widths(lengths, max_row_length)
  tokens = sizes(lengths)[:, 0]
  longest = int(tokens.max())
  largest = max(int(tokens[members].sum()) for members in batches)
  widths = [longest * by for by in (1, 1.5, 2, 3, 4, 6, 8)]
  widths += [largest / (row_multiple * rows) for rows in (1, 2, 3, 4)]
  widths = {bucket(math.ceil(width), _FINE) for width in widths}
  return sorted(w for w in widths if longest <= w <= bucket(8 * longest, _FINE))


def _shortest(plans: list[Capacity], slack: float) -> Capacity:
  """The shortest rows within a share of the fewest tokens."""
  fewest = min(plan.rows * plan.tokens for plan in plans)
  return next(p for p in plans if p.rows * p.tokens <= (1 + slack) * fewest)


def _row_length(
  lengths: np.ndarray, max_row_length: int | None, cells: int | None = None
) -> int:
  """Bucket of the longest row, or of the longest of its equal cells."""
  branches = lengths[:, 1:]
  taken = branches.sum(1) if cells is None else branches.max(1)
  longest = int((lengths[:, 0] + taken).max())
  if max_row_length is None:
    return bucket(longest)
  limit = max_row_length // (cells or 1)
  if longest > limit:
    raise LayoutError(
      f'max_row_length is {max_row_length} and the longest example needs '
      f'{(cells or 1) * longest} tokens: shorten the texts or raise it'
    )
  return min(bucket(longest), limit)


def _round_up(size: int, multiple: int) -> int:
  return -(-size // multiple) * multiple

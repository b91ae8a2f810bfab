"""Which blocks of tokens see which: attention that costs what texts cost.

A row of `T` tokens is cut into `M` blocks of equal size. A block of queries
meets the blocks that hold something its tokens see and no others; what is not
seen within a block is masked. The lists of blocks have static lengths, planned
with the other sizes of a batch.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from alignment.data.packing import BlockSizes, LayoutError, Places
from alignment.types import Blocks

BLOCK_SIZES = {256: 32, 1024: 64, 1 << 62: 128}
"""Tokens of a block, by the most tokens of an example: more of them mask more
scores, fewer make more and smaller products."""
_LISTS = 4  # each more computes fewer scores and compiles more operations
_CUTS = 12  # where a list may end, at most
_WORTH = 0.6  # of the scores of whole rows; above, gathering does not pay


class Pairs(NamedTuple):
  """Blocks that meet, in order of row, query, key; each `[P]`."""

  row: np.ndarray
  query: np.ndarray
  key: np.ndarray


def block_size(longest: int) -> int:
  """Tokens of a block for examples of at most `longest` tokens."""
  return next(size for most, size in BLOCK_SIZES.items() if longest <= most)


def pairs_of(
  lengths: np.ndarray, places: Places, tokens: int, size: int
) -> Pairs:
  """The pairs of blocks in which a token of one sees a token of the other.

  Args:
    lengths: `[B, 1 + K]` length table of the batch.
    places: where its pieces stand.
    tokens: `T` of a row.
    size: tokens of a block.
  """
  blocks = -(-tokens // size)
  start = places.start
  length = lengths[:, places.piece]
  first = start // size
  count = np.where(length > 0, (start + length - 1) // size - first + 1, 0)
  # A completion sees the prompt of its group and itself.
  group, branch = places.group, places.branch
  sees = group[:, :, None] == group[:, None, :]
  sees &= (branch == 0) | np.eye(len(branch), dtype=bool)
  example, looking, seen = np.nonzero(
    sees & (length > 0)[:, :, None] & (length > 0)[:, None, :]
  )
  wide, high = count[example, seen], count[example, looking]
  piece = np.repeat(np.arange(len(example)), wide * high)
  ends = np.cumsum(wide * high)
  within = np.arange(len(piece)) - (ends - wide * high)[piece]
  query = first[example, looking][piece] + within // wide[piece]
  key = first[example, seen][piece] + within % wide[piece]
  row = places.row[example][piece]
  code = (row * blocks + query) * blocks + key
  code = np.unique(code[key <= query])
  return Pairs(code // blocks**2, code // blocks % blocks, code % blocks)


def most_seen(pairs: Pairs, rows: int, blocks: int) -> np.ndarray:
  """`[M]`: the most blocks that the block of rank m of any row sees.

  Blocks of a row are ranked by how many blocks they see, most first: a row
  whose ranks see no more than this fits lists planned with it.
  """
  return np.sort(_counts(pairs, rows, blocks), axis=1)[:, ::-1].max(0)


def plan(most: np.ndarray, size: int) -> BlockSizes:
  """The few lists that hold rows of these ranks in the fewest scores.

  Args:
    most: `[M]`, of `most_seen`, over all rows to come; not all 0.
    size: tokens of a block.
  """
  listed = int((most > 0).sum())
  cuts = 1 + np.flatnonzero(np.diff(most[:listed]))
  cuts = cuts[:: -(-len(cuts) // _CUTS) or 1].tolist()
  plans = []
  for between in itertools.combinations(cuts, min(_LISTS - 1, len(cuts))):
    ends = itertools.pairwise([0, *between, listed])
    plans.append(tuple((b - a, int(most[a])) for a, b in ends))
  return BlockSizes(size, min(plans, key=_products))


def pays(sizes: BlockSizes, tokens: int) -> bool:
  """Whether lists are computed faster than whole rows of `tokens`."""
  return _products(sizes.lists) * sizes.size**2 < _WORTH * tokens**2


def _products(lists: tuple[tuple[int, int], ...]) -> int:
  return sum(count * width for count, width in lists)


def list_blocks(
  pairs: Pairs, rows: int, tokens: int, sizes: BlockSizes
) -> Blocks:
  """The lists of every row.

  Raises:
    LayoutError: a row whose blocks see more than was planned.
  """
  blocks = -(-tokens // sizes.size)
  counts = _counts(pairs, rows, blocks)
  order = np.argsort(-counts, axis=1, kind='stable')
  rank = np.argsort(order, axis=1)
  room = np.zeros(blocks, int)
  widths = np.repeat(*np.array(sizes.lists)[:, ::-1].T)
  room[: len(widths)] = widths
  over = (np.take_along_axis(counts, order, 1) > room).any(1)
  if over.any():
    raise LayoutError(
      f'row {int(np.argmax(over))} does not fit: its attention meets more '
      f'blocks than {sizes}; plan the capacity for it, or without blocks'
    )
  flat = pairs.row * blocks + pairs.query
  starts = np.cumsum(counts.ravel()) - counts.ravel()
  column = np.arange(len(flat)) - starts[flat]
  ranks = rank[pairs.row, pairs.query]
  queries, keys, first = [], [], 0
  for count, width in sizes.lists:
    listed = order[:, first : first + count]
    empty = np.take_along_axis(counts, listed, 1) == 0
    queries.append(np.where(empty, blocks, listed).astype(np.int32))
    here = (ranks >= first) & (ranks < first + count)
    seen = np.full((rows, count, width), blocks, np.int32)
    seen[pairs.row[here], ranks[here] - first, column[here]] = pairs.key[here]
    keys.append(seen)
    first += count
  place = np.where(counts > 0, rank, first).astype(np.int32)
  return Blocks(tuple(queries), tuple(keys), place, sizes.size)


def _counts(pairs: Pairs, rows: int, blocks: int) -> np.ndarray:
  """`[R, M]`: how many blocks each block sees."""
  flat = pairs.row * blocks + pairs.query
  return np.bincount(flat, minlength=rows * blocks).reshape(rows, blocks)

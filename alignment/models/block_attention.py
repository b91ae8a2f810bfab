"""Attention over the lists of blocks that see each other."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import struct

from alignment.models.softmax_mean import softmax_mean
from alignment.types import Array, Blocks


@struct.dataclass
class BlockSight:
  """Who sees whom within the lists of `Blocks`.

  Attributes:
    blocks: the lists.
    visible: of each list `[R, n, b, W · b]` bool, query by key.
    query_at: of each list `[R, n, b]` int32, positions of the queries.
    key_at: of each list `[R, n, W · b]` int32.
  """

  blocks: Blocks
  visible: tuple[Array, ...]
  query_at: tuple[Array, ...]
  key_at: tuple[Array, ...]


def block_sight(
  positions: Array, group: Array, branch: Array, blocks: Blocks
) -> BlockSight:
  """The masks of all lists, from the `[R, T]` arrays of a batch."""
  index = jnp.broadcast_to(jnp.arange(group.shape[1]), group.shape)
  facts = jnp.stack([positions, group, branch, index], axis=-1)
  facts = _cut(facts, blocks, fill=-1)
  visible, query_at, key_at = [], [], []
  for queries, keys in zip(blocks.queries, blocks.keys, strict=True):
    query = _pick(facts, queries, fill=-1)
    key = _pick(facts, keys, fill=-1).reshape(*query.shape[:2], -1, 4)
    looking = jnp.moveaxis(query, -1, 0)[..., None]
    seen = jnp.moveaxis(key, -1, 0)[:, :, :, None]
    visible.append(_sees(looking[1:], seen[1:]))
    query_at.append(query[..., 0])
    key_at.append(key[..., 0])
  return BlockSight(blocks, tuple(visible), tuple(query_at), tuple(key_at))


def _sees(looking: Array, seen: Array) -> Array:
  """Of (group, branch, index) of a query and of a key, as `visibility` does."""
  (group, branch, index), (key_group, key_branch, key_index) = looking, seen
  same_group = (group == key_group) & (group > 0)
  on_path = (key_branch == 0) | (key_branch == branch)
  # Padding beside text sees itself, which is something to normalise.
  return same_group & on_path & (index >= key_index) | (index == key_index)


def block_attend(
  query: Array,
  key: Array,
  value: Array,
  seen: BlockSight,
  softcap: float | None,
  window: Array | int | None,
) -> Array:
  """`attend` of queries that are scaled already; 0 for blocks of padding."""
  blocks = seen.blocks
  rows, length, heads, per_head, features = query.shape
  order = jnp.concatenate(blocks.queries, axis=1)
  query = jnp.moveaxis(_cut(query, blocks), 2, 4)
  query = _move(query, order, blocks.place)
  key, value = _by_head(key, blocks), _by_head(value, blocks)
  outputs, first = [], 0
  for which, keys in enumerate(blocks.keys):
    count, width = keys.shape[1:]
    visible = seen.visible[which]
    if window is not None:
      query_at, key_at = seen.query_at[which], seen.key_at[which]
      visible &= query_at[..., None] - key_at[:, :, None] < window
    shape = (rows, count, heads, width * blocks.size, features)
    outputs.append(
      softmax_mean(
        query[:, first : first + count],
        _of_heads(key, keys, heads).reshape(shape),
        _of_heads(value, keys, heads).reshape(shape),
        visible,
        softcap,
      )
    )
    first += count
  out = _move(jnp.concatenate(outputs, axis=1), blocks.place, order)
  out = jnp.moveaxis(out, 4, 2)
  return out.reshape(rows, -1, heads, per_head, features)[:, :length]


def _cut(array: Array, blocks: Blocks, fill: int = 0) -> Array:
  """`[R, T, …]` to `[R, M, b, …]`, the last block filled up."""
  count, size = blocks.place.shape[1], blocks.size
  missing = count * size - array.shape[1]
  if missing:
    widths = [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)
    array = jnp.pad(array, widths, constant_values=fill)
  return array.reshape(array.shape[0], count, size, *array.shape[2:])


def _by_head(array: Array, blocks: Blocks) -> Array:
  """`[R, T, H, F]` to `[R, H · M, b · F]`: whole rows are gathered fastest."""
  array = jnp.moveaxis(_cut(array, blocks), 3, 1)
  return array.reshape(array.shape[0], -1, math.prod(array.shape[3:]))


def _of_heads(array: Array, keys: Array, heads: int) -> Array:
  """`[R, H · M, X]` and blocks `[R, n, W]` to `[R, n, H, W, X]`."""
  count = array.shape[1] // heads
  # What stands for no block is some block, none of which is visible.
  index = jnp.minimum(keys, count - 1)[:, :, None]
  return _pick(array, index + count * jnp.arange(heads)[:, None])


def _pick(array: Array, index: Array, fill: int = 0) -> Array:
  """array[r, index[r]], `fill` where the index is out of range."""
  take = functools.partial(jnp.take, axis=0, mode='fill', fill_value=fill)
  return jax.vmap(take)(array, index)


@jax.custom_vjp
def _move(array: Array, there: Array, back: Array) -> Array:
  """`_pick` of every block at most once; `back` is the way of the gradient.

  Its gradient by automatic differentiation would be a scatter.
  """
  del back
  return _pick(array, there)


_move.defvjp(
  lambda array, there, back: (_pick(array, there), back),
  lambda back, cotangent: (_pick(cotangent, back), None, None),
)

"""Attention over prompt trees: who sees whom, and the weighted mean."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from alignment.models.block_attention import block_attend, block_sight
from alignment.models.cell_attention import KERNELS, cell_attend, cell_sight
from alignment.models.softmax_mean import softmax_mean
from alignment.types import Array, Blocks, PyTree

ATTENTIONS = ('auto', 'dense', 'blocks', *KERNELS)


def visibility(group: Array, branch: Array) -> Array:
  """Who sees whom in a row of prompt trees.

  visible[i, j] = j ≤ i ∧ group[j] = group[i] > 0 ∧ branch[j] ∈ {0, branch[i]}

  A padding token (group 0) sees itself and nothing else, which gives its
  softmax something to normalise and leaks nothing.

  Args:
    group: `[R, T]` int32.
    branch: `[R, T]` int32.

  Returns:
    `[R, T, T]` bool, query by key.
  """
  length = group.shape[-1]
  causal = jnp.tril(jnp.ones((length, length), bool))
  query_group, key_group = group[:, :, None], group[:, None, :]
  query_branch, key_branch = branch[:, :, None], branch[:, None, :]
  same_group = (query_group == key_group) & (query_group > 0)
  on_path = (key_branch == 0) | (key_branch == query_branch)
  return (causal & same_group & on_path) | jnp.eye(length, dtype=bool)


@struct.dataclass
class Sight:
  """Who sees whom in a batch, prepared once for all layers of a forward pass.

  Attributes:
    way: how `attend` computes, a key of `WAYS`.
    seen: what that way prepared.
  """

  way: str = struct.field(pytree_node=False)
  seen: PyTree


@struct.dataclass
class DenseSight:
  """Who sees whom among all tokens of a row.

  Attributes:
    positions: `[R, T]` int32, what windows are measured in.
    visible: `[R, T, T]` bool of `visibility`.
  """

  positions: Array
  visible: Array


def sight(
  positions: Array,
  group: Array,
  branch: Array,
  blocks: Blocks | None = None,
  *,
  cells: int = 1,
  attention: str = 'auto',
) -> Sight:
  """What `attend` needs to know of a batch.

  Args:
    positions: `[R, T]` int32, inside the group.
    group: `[R, T]` int32, 0 is padding.
    branch: `[R, T]` int32, 0 is the prompt.
    blocks: of the batch, where they were planned.
    cells: of a row, where rows are padded: its completion slots.
    attention: 'dense' (all pairs of a row, masked), 'blocks' (pairs of blocks
      that see each other), 'splash' (of TPUs) or 'cudnn' (of GPUs, operands in
      bfloat16) for padded rows, or 'auto': blocks where they were planned,
      else dense.

  Raises:
    ValueError: another `attention`, blocks that were not planned, or a kernel
      that this backend or layout does not have.
  """
  if attention not in ATTENTIONS:
    raise ValueError(
      f'attention must be one of {ATTENTIONS}, got {attention!r}'
    )
  if attention == 'auto':
    attention = 'dense' if blocks is None else 'blocks'
  if attention == 'dense':
    return Sight('dense', DenseSight(positions, visibility(group, branch)))
  if attention in KERNELS:
    seen = cell_sight(positions, group, branch, cells, attention)
    return Sight('cells', seen)
  if blocks is None:
    raise ValueError(
      "attention='blocks': want a batch laid out with blocks; they are planned "
      'where rows are long enough for them to pay'
    )
  return Sight('blocks', block_sight(positions, group, branch, blocks))


def attend(
  query: Array,
  key: Array,
  value: Array,
  sight: Sight,
  *,
  scale: float,
  softcap: float | None = None,
  window: Array | int | None = None,
) -> Array:
  """Softmax attention with grouped keys and values, in float32.

  score[i, j] = cap(scale · query[i] · key[j]), cap(x) = softcap tanh(x/softcap)
  out[i] = Σ_j softmax_j(score[i]) value[j] over visible j with
           positions[i] − positions[j] < window

  Args:
    query: `[R, T, H, G, F]`, G query heads for each of H key-value heads.
    key: `[R, T, H, F]`.
    value: `[R, T, H, F]`.
    sight: of the batch.
    scale: > 0.
    softcap: > 0; None leaves the scores as they are.
    window: ≥ 1, a number or an int32 scalar; None sees all that is visible.

  Returns:
    `[R, T, H, G, F]` float32; of padding, anything finite.
  """
  return WAYS[sight.way](query * scale, key, value, sight.seen, softcap, window)


def dense_attend(
  query: Array,
  key: Array,
  value: Array,
  seen: DenseSight,
  softcap: float | None,
  window: Array | int | None,
) -> Array:
  """`attend` over all pairs of a row; queries are scaled already."""
  visible = seen.visible
  if window is not None:
    at = seen.positions
    visible &= at[:, :, None] - at[:, None, :] < window
  mixed = softmax_mean(
    jnp.moveaxis(query, 1, 3),
    jnp.moveaxis(key, 1, 2),
    jnp.moveaxis(value, 1, 2),
    visible,
    softcap,
  )
  return jnp.moveaxis(mixed, 3, 1)


WAYS = {'dense': dense_attend, 'blocks': block_attend, 'cells': cell_attend}

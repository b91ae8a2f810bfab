"""Attention of padded rows by the kernels of accelerators.

A padded row is cut into cells of equal size, one for every completion: its
prompt, the completion, then padding. There kernels that know causal texts and
their lengths, and no trees, are enough.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from alignment.types import Array

_LANES = 128  # of a TPU; lengths and features are filled up to a multiple
KERNELS = {'splash': 'tpu', 'cudnn': 'gpu'}
"""Name -> the backend it runs on."""


@struct.dataclass
class CellSight:
  """The texts of the cells of padded rows.

  Attributes:
    real: `[R · N, C]` bool, tokens of texts.
    broken: `[R]` bool, rows that are not of such cells.
    kernel: a key of `KERNELS`.
  """

  real: Array
  broken: Array
  kernel: str = struct.field(pytree_node=False)


def cell_sight(
  positions: Array, group: Array, branch: Array, cells: int, kernel: str
) -> CellSight:
  """The cells of a batch whose rows hold `cells` of them.

  Raises:
    ValueError: another backend than the kernel's, or rows that are not cut
      into so many equal cells.
  """
  backend = jax.default_backend()
  if backend != KERNELS[kernel]:
    raise ValueError(
      f'attention={kernel!r}: runs on {KERNELS[kernel]}, this is {backend}'
    )
  return cut_cells(positions, group, branch, cells, kernel)


def cut_cells(
  positions: Array, group: Array, branch: Array, cells: int, kernel: str
) -> CellSight:
  """`cell_sight` on any backend.

  Raises:
    ValueError: rows that are not cut into so many equal cells.
  """
  rows, length = group.shape
  if length % cells:
    raise ValueError(
      f'attention={kernel!r}: rows of {length} tokens are not {cells} equal '
      "cells; lay batches out with packing='padded'"
    )
  cut = functools.partial(jnp.reshape, shape=(rows * cells, length // cells))
  positions, group, branch = map(cut, (positions, group, branch))
  place = jnp.arange(group.shape[1])
  real = group > 0
  # Positions that count from the cell's start leave room for one branch only.
  fits = (positions == place) & (group == group[:, :1]) & (branch <= 1)
  is_text = jnp.all(~real | fits, axis=1)
  is_first = jnp.all(real == (place < jnp.sum(real, 1, keepdims=True)), axis=1)
  broken = jnp.any(~(is_text & is_first).reshape(rows, cells), axis=1)
  return CellSight(real, broken, kernel)


def cell_attend(
  query: Array,
  key: Array,
  value: Array,
  seen: CellSight,
  softcap: float | None,
  window: Array | int | None,
) -> Array:
  """`attend` of queries that are scaled already.

  Rows that are not made of cells come out as NaN, which the step refuses.

  Raises:
    ValueError: a window that differs between scanned layers, or a soft-cap
      under cuDNN.
  """
  if window is not None and not isinstance(window, int):
    raise ValueError(
      f'attention={seen.kernel!r}: scan_layers must be False where windows '
      'differ between layers'
    )
  rows = query.shape[0]
  cells = [
    x.reshape(*seen.real.shape, *x.shape[2:]) for x in (query, key, value)
  ]
  if seen.kernel == 'cudnn':
    out = by_lengths(*cells, seen.real, softcap, window)
  else:
    out = by_segments(*cells, seen.real, softcap, window)
  out = jnp.where(seen.real[..., None, None, None], out, 0.0)
  broken = seen.broken.reshape(rows, *[1] * (query.ndim - 1))
  return jnp.where(broken, jnp.nan, out.reshape(query.shape))


def by_lengths(
  query: Array,
  key: Array,
  value: Array,
  real: Array,
  softcap: float | None,
  window: int | None,
  *,
  implementation: str = 'cudnn',
  dtype: jnp.dtype = jnp.bfloat16,
) -> Array:
  """Causal attention of texts that begin their row, by `jax.nn`.

  Args:
    query: `[B, C, H, G, F]`.
    key: `[B, C, H, F]`.
    value: `[B, C, H, F]`.
    real: `[B, C]` bool.
    softcap: must be None.
    window: ≥ 1, or None.
    implementation: of `jax.nn.dot_product_attention`.
    dtype: of the operands; cuDNN takes no float32.

  Returns:
    `[B, C, H, G, F]` float32; of padding, anything.
  """
  if softcap is not None:
    raise ValueError("attention='cudnn': knows no attention_softcap")
  texts, length, heads, per_head, features = query.shape
  # A row without text lets its first token see itself: no softmax of nothing.
  lengths = jnp.maximum(jnp.sum(real, axis=1), 1).astype(jnp.int32)
  out = jax.nn.dot_product_attention(
    query.reshape(texts, length, -1, features).astype(dtype),
    key.astype(dtype),
    value.astype(dtype),
    scale=1.0,
    is_causal=True,
    query_seq_lengths=lengths,
    key_value_seq_lengths=lengths,
    local_window_size=None if window is None else (window - 1, 0),
    implementation=implementation,
  )
  return out.astype(jnp.float32).reshape(query.shape)


def by_segments(
  query: Array,
  key: Array,
  value: Array,
  real: Array,
  softcap: float | None,
  window: int | None,
  *,
  interpret: bool = False,
) -> Array:
  """Causal attention within text and within padding, by splash attention.

  Padding is a segment of its own, in which every token sees itself: the kernel
  must meet no query that sees nothing. Arguments as of `by_lengths`.
  """
  # Here, as only TPUs need it and it takes long to import.
  from jax.experimental.pallas.ops.tpu import splash_attention as splash

  length, per_head, features = query.shape[1], query.shape[3], query.shape[4]
  size = -(-length // _LANES) * _LANES
  wide = -(-features // _LANES) * _LANES

  def fill(array):  # [B, C, …, F]; features of 0 add nothing to a product
    missing = [(0, 0)] * array.ndim
    missing[1], missing[-1] = (0, size - length), (0, wide - features)
    return jnp.pad(array, missing)

  mask = splash.CausalMask((size, size))
  if window is not None:
    mask &= splash.LocalMask((size, size), (window - 1, 0), offset=0)
  ids = jnp.pad(real.astype(jnp.int32), ((0, 0), (0, size - length)))
  kernel = splash.make_splash_mqa_single_device(
    splash.MultiHeadMask([mask] * per_head),
    attn_logits_soft_cap=softcap,
    interpret=interpret,
  )

  def one_text(query, key, value, ids):
    segments = splash.SegmentIds(ids, ids)
    of_heads = jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=segments))
    return of_heads(query, key, value)

  out = jax.vmap(one_text)(
    jnp.moveaxis(fill(query), 1, 3),  # [B, H, G, C, F]
    jnp.moveaxis(fill(key), 1, 2),
    jnp.moveaxis(fill(value), 1, 2),
    ids,
  )
  out = jnp.moveaxis(out, 3, 1)[:, :length, ..., :features]
  return out.astype(jnp.float32)

"""The vocabulary head: statistics of logits that never exist all at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alignment.models.matmul import matmul
from alignment.types import Array

Statistic = Callable[[Array, Array | None, Array], Any]
"""(logits `[R, C, V]`, other logits or None, target `[R, C]`) -> tree of
`[R, C]`."""


def token_logps(logits: Array, other: Array | None, target: Array) -> Array:
  """log π(target) = logits[target] − logsumexp(logits), nats, `[R, C]`.

  A target outside the vocabulary reads 0 for its logit; it belongs to padding,
  which is masked afterwards.
  """
  # A comparison, not a gather: its gradient is a select that fuses with the
  # softmax, where a gather's is a scatter into a second [R, C, V] buffer.
  columns = jnp.arange(logits.shape[-1], dtype=target.dtype)
  hit = columns == target[..., None]
  selected = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
  return selected - jax.nn.logsumexp(logits, axis=-1)


def token_entropy(logits: Array, other: Array | None, target: Array) -> Array:
  """−Σ_v π(v) log π(v), nats, in [0, log V], `[R, C]`."""
  logps = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.sum(jnp.exp(logps) * logps, axis=-1)


def token_log_sum_squares(
  logits: Array, other: Array | None, target: Array
) -> Array:
  """log Σ_v π(v)², in [−log V, 0], `[R, C]`."""
  twice = jax.nn.logsumexp(2.0 * logits, axis=-1)
  return twice - 2.0 * jax.nn.logsumexp(logits, axis=-1)


STATISTICS: dict[str, Statistic] = {
  'token_logps': token_logps,
  'token_entropy': token_entropy,
  'token_log_sum_squares': token_log_sum_squares,
}


def named_statistics(names: tuple[str, ...]) -> Statistic:
  """One statistic that returns name -> `[R, C]` for every name.

  Raises:
    ValueError: a name that is not in `STATISTICS`.
  """
  for name in names:
    if name not in STATISTICS:
      allowed = tuple(STATISTICS)
      raise ValueError(f'names must be among {allowed}, got {name!r}')

  def statistic(logits, other, target):
    return {name: STATISTICS[name](logits, other, target) for name in names}

  return statistic


def capped(logits: Array, softcap: float | None) -> Array:
  """softcap · tanh(logits / softcap); None leaves them as they are."""
  return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def chunked_head(
  hidden: Array,
  weight: Array,
  target: Array,
  statistic: Statistic,
  *,
  chunk: int,
  matmul_dtype: str = 'float32',
  softcap: float | None = None,
  other: tuple[Array, Array] | None = None,
) -> Any:
  """statistic(hidden · weightᵀ, other logits, target), a chunk at a time.

  Where R · L · V ≤ `chunk` it is computed whole. Otherwise the targets of every
  row are walked in equal pieces, of all rows at once so that rows may be
  sharded, and the backward pass computes the logits of a piece again: a quarter
  more products of the head, for memory that stays the same.

  Args:
    hidden: `[R, L, D]`, final hidden states at the sources.
    weight: `[V, D]`.
    target: `[R, L]` int32.
    statistic: what is kept of the logits.
    chunk: ≥ 1, the most logits at a time; at least one target of every row is
      always taken.
    matmul_dtype: operands of the projection.
    softcap: of the first model's logits, before the statistic.
    other: hidden states `[R, L, D']` and weight `[V, D']` of a second model.

  Returns:
    The tree of `statistic` with leaves `[R, L]`.
  """

  def score(piece):
    own_hidden, other_hidden, piece_target = piece
    logits = matmul(own_hidden, weight, matmul_dtype, transposed=True)
    logits = capped(logits, softcap)
    other_logits = None
    if other is not None:
      other_logits = matmul(
        other_hidden, other[1], matmul_dtype, transposed=True
      )
    return statistic(logits, other_logits, piece_target)

  rows, length = target.shape
  count = math.ceil(length / max(1, chunk // (rows * weight.shape[0])))
  whole = (hidden, None if other is None else other[0], target)
  if count <= 1:
    return score(whole)
  size = math.ceil(length / count)

  def cut(array):
    padding = ((0, 0), (0, count * size - length))
    array = jnp.pad(array, padding + ((0, 0),) * (array.ndim - 2))
    split = array.reshape(array.shape[0], count, size, *array.shape[2:])
    return jnp.moveaxis(split, 1, 0)

  def join(array):
    array = jnp.moveaxis(array, 0, 1)
    return array.reshape(array.shape[0], count * size)[:, :length]

  # The loop already keeps XLA from merging the second computation with the
  # first, so no barriers are asked for.
  score_again = jax.checkpoint(score, prevent_cse=False)
  pieces = jax.lax.map(score_again, jax.tree.map(cut, whole))
  return jax.tree.map(join, pieces)

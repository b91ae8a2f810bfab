"""What decoding remembers of tokens seen before: keys and values by layer."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from alignment.models.attention import Sight, attend, sight
from alignment.models.attention_layer import Look
from alignment.models.head import capped
from alignment.models.softmax_mean import HIDDEN
from alignment.types import Array


@struct.dataclass
class Memory:
  """Keys and values of one layer, in two parts.

  The prompt's are written once and only read afterwards. Those of decoded
  tokens lie at the same place in every row, however long its prompt is, so
  that a step writes one slice and not one entry per row.

  Attributes:
    prompt_key, prompt_value: `[B, Hkv, P, F]` float32.
    key, value: `[B, Hkv, N, F]` float32.
  """

  prompt_key: Array
  prompt_value: Array
  key: Array
  value: Array


def prompt_look(positions: Array, real: Array, room: int) -> Look:
  """How prompts see themselves: causally; starts the memory of every layer.

  Args:
    positions: `[B, P]` int32.
    real: `[B, P]` bool, False on padding.
    room: N, tokens that will be decoded.
  """
  group = real.astype(jnp.int32)
  seen = sight(positions, group, jnp.zeros_like(group))
  return functools.partial(_read_prompt, seen, room)


def _read_prompt(
  seen: Sight, room: int, query, key, value, memory, **options
) -> tuple[Array, Memory]:
  mixed = attend(query, key, value, seen, **options)
  key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
  rows, heads, _, features = key.shape
  empty = jnp.zeros((rows, heads, room, features), key.dtype)
  return mixed, Memory(key, value, empty, empty)


def next_look(lengths: Array, count: Array) -> Look:
  """How one token after each prompt sees everything before it and itself.

  Args:
    lengths: `[B]` int32, tokens of the prompts.
    count: int32 scalar, tokens decoded before this one.
  """
  return functools.partial(_read_next, lengths, count)


def _read_next(
  lengths: Array,
  count: Array,
  query: Array,
  key: Array,
  value: Array,
  memory: Memory,
  *,
  scale: float,
  softcap: float | None,
  window: int | None,
) -> tuple[Array, Memory]:
  """`attend` for `[B, 1, …]`, over both parts of a memory."""

  def written(part: Array, new: Array) -> Array:
    new = jnp.swapaxes(new, 1, 2)
    return lax.dynamic_update_slice_in_dim(part, new, count, axis=2)

  memory = memory.replace(
    key=written(memory.key, key), value=written(memory.value, value)
  )
  prompt = memory.prompt_key.shape[2]
  visible = _visible(lengths, count, prompt, memory.key.shape[2], window)
  query = query[:, 0] * scale
  scores = [
    _product('bhgf,bhpf->bhgp', query, part)
    for part in (memory.prompt_key, memory.key)
  ]
  scores = capped(jnp.concatenate(scores, axis=-1), softcap)
  scores = jnp.where(visible[:, None, None], scores, HIDDEN)
  weights = jax.nn.softmax(scores, axis=-1)
  mixed = _product(
    'bhgp,bhpf->bhgf', weights[..., :prompt], memory.prompt_value
  ) + _product('bhgp,bhpf->bhgf', weights[..., prompt:], memory.value)
  return mixed[:, None], memory


def _visible(lengths, count, prompt: int, room: int, window) -> Array:
  """`[B, P + N]` bool: what the token at position lengths + count sees."""
  rows = lengths[:, None]
  in_prompt = jnp.arange(prompt) < rows
  decoded = jnp.broadcast_to(jnp.arange(room) <= count, (len(lengths), room))
  visible = jnp.concatenate([in_prompt, decoded], axis=1)
  if window is None:
    return visible
  positions = jnp.concatenate(
    [
      jnp.broadcast_to(jnp.arange(prompt), in_prompt.shape),
      rows + jnp.arange(room),
    ],
    axis=1,
  )
  return visible & (rows + count - positions < window)


def _product(equation: str, left: Array, right: Array) -> Array:
  return jnp.einsum(equation, left, right, precision=lax.Precision.HIGHEST)

"""Attention with its weights: from hidden states to what is added to them."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from alignment.models.config import TransformerConfig
from alignment.models.initial import fan_in
from alignment.models.norms import rms_norm
from alignment.models.projection import project
from alignment.models.rotary import Turn, rotate
from alignment.types import Array, PyTree

Look = Callable[..., tuple[Array, PyTree]]
"""(query, key, value, memory, *, scale, softcap, window) -> (what the queries
see `[R, T, Hkv, G, F]`, memory). How tokens see each other is the caller's:
within a batch, or in a memory of tokens seen before."""


class Attention(nn.Module):
  """Grouped-query attention; one product makes queries, keys and values.

  `qkv` is `[D, Hkv, G + 2, F]`: for each key-value head its G query heads, its
  key, its value. Cut along Hkv, every piece is complete.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(
    self,
    inputs: Array,
    turn: Turn,
    look: Look,
    window: Array | int | None,
    memory: PyTree,
  ) -> tuple[Array, PyTree]:
    """`[R, T, D]` to `[R, T, D]`, and the memory that `look` returns."""
    config = self.config
    heads, features = config.num_kv_heads, config.head_dim
    per_head = config.num_heads // heads
    zeros = nn.initializers.zeros
    parts = (heads, per_head + 2, features)
    qkv = self.param('qkv', fan_in(config.width), (config.width, *parts))
    output = self.param(
      'output',
      fan_in(config.num_heads * features * 2 * config.depth),
      (heads, per_head, features, config.width),
    )
    projected = project(self, 'qkv', inputs, qkv)
    if config.qkv_bias:
      projected += self.param('qkv_bias', zeros, parts)
    turning = projected[..., :-1, :]
    if config.qk_norm:
      turning = rms_norm(turning, self._qk_scale(per_head), config)
    if turn is not None:
      turning = rotate(turning, *turn)
    mixed, memory = look(
      turning[..., :-1, :],
      turning[..., -1, :],
      projected[..., -1, :],
      memory,
      scale=config.query_scale or features**-0.5,
      softcap=config.attention_softcap,
      window=window,
    )
    outputs = project(self, 'output', mixed, output, axes=3)
    if config.output_bias:
      outputs += self.param('output_bias', zeros, (config.width,))
    return outputs, memory

  def _qk_scale(self, per_head: int) -> Array:
    """`[G + 1, F]`: the scale of every query head, then that of the key."""
    one = nn.initializers.constant(1.0 - self.config.norm_offset)
    shape = (self.config.head_dim,)
    query = self.param('query_norm', one, shape)
    key = self.param('key_norm', one, shape)
    return jnp.stack([query] * per_head + [key])

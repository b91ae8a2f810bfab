"""A decoder-only transformer that reads prompt trees."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from alignment.models.attention import (
  Sight,
  attend,
  rotary_angles,
  rotate,
  sight,
)
from alignment.models.config import TransformerConfig
from alignment.models.head import chunked_head, named_statistics
from alignment.models.matmul import matmul
from alignment.models.model import Model
from alignment.types import Array, Batch, PyTree

EMBEDDING_SCALE = 0.02
"""Standard deviation of the token tables at the start: logits near 0."""


class RMSNorm(nn.Module):
  """x / √(mean x² + eps) · scale over the last axis."""

  eps: float

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    scale = self.param('scale', nn.initializers.ones, inputs.shape[-1:])
    return _rms_norm(inputs, scale, self.eps)


class Attention(nn.Module):
  """Grouped-query attention; one product makes queries, keys and values.

  `qkv` is `[D, Hkv, G + 2, F]`: for each key-value head its G query heads, its
  key, its value. Cut along Hkv, every piece is complete.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, inputs: Array, rotary, seen: Sight) -> Array:
    config = self.config
    heads, features = config.num_kv_heads, config.head_dim
    per_head = config.num_heads // heads
    qkv = self.param(
      'qkv',
      _fan_in(config.width),
      (config.width, heads, per_head + 2, features),
    )
    output = self.param(
      'output',
      _fan_in(config.num_heads * features * 2 * config.depth),
      (heads, per_head, features, config.width),
    )
    projected = matmul(inputs, qkv, config.matmul_dtype)
    rotated = rotate(projected[..., :-1, :], *rotary)
    mixed = attend(
      rotated[..., :-1, :],
      rotated[..., -1, :],
      projected[..., -1, :],
      seen,
      scale=features**-0.5,
    )
    return matmul(mixed, output, config.matmul_dtype, axes=3)


class MLP(nn.Module):
  """(silu(x · gate) ∗ (x · up)) · down; `gate_up` is `[D, 2, mlp_width]`."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    config = self.config
    gate_up = self.param(
      'gate_up', _fan_in(config.width), (config.width, 2, config.mlp_width)
    )
    down = self.param(
      'down',
      _fan_in(config.mlp_width * 2 * config.depth),
      (config.mlp_width, config.width),
    )
    both = matmul(inputs, gate_up, config.matmul_dtype)
    gated = nn.silu(both[..., 0, :]) * both[..., 1, :]
    return matmul(gated, down, config.matmul_dtype)


class Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, hidden: Array, rotary, seen: Sight):
    config = self.config
    normed = RMSNorm(config.norm_eps, name='attention_norm')(hidden)
    attention = Attention(config, name='attention')
    hidden = hidden + attention(normed, rotary, seen)
    normed = RMSNorm(config.norm_eps, name='mlp_norm')(hidden)
    return hidden + MLP(config, name='mlp')(normed), None


class Decoder(nn.Module):
  """Tokens to hidden states; the heads only hold their weights here."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, tokens, positions, group, branch) -> Array:
    """`[R, T]` arrays to `[R, T, D]`, before the final norm."""
    config = self.config
    table = _normal(EMBEDDING_SCALE)
    shape = (config.vocab_size, config.width)
    embedding = self.param('embedding', table, shape)
    if config.head != 'scalar' and not config.tied_head:
      self.param('head', table, shape)
    if config.head != 'vocabulary':
      self.param('reward_head', nn.initializers.zeros, (config.width,))
    self.param('final_norm', nn.initializers.ones, (config.width,))
    hidden = jnp.take(embedding, tokens, axis=0, mode='clip')
    rotary = rotary_angles(positions, config.head_dim, config.rotary.theta)
    seen = sight(positions, group, branch)
    return self._layers(hidden, rotary, seen)

  def _layers(self, hidden, rotary, seen):
    config = self.config
    layer = Layer
    if config.remat:
      # Inside a scan nothing can be merged with the forward pass anyway.
      layer = nn.remat(Layer, prevent_cse=not config.scan_layers)
    if config.scan_layers:
      scanned = nn.scan(
        layer,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=nn.broadcast,
        length=config.depth,
      )
      return scanned(config, name='layers')(hidden, rotary, seen)[0]
    for index in range(config.depth):
      named = layer(config, name=f'layer_{index}')
      hidden, _ = named(hidden, rotary, seen)
    return hidden


def transformer(config: TransformerConfig) -> Model:
  """The transformer of `config` as pure functions.

  Parameters: `embedding` `[V, D]`, `head` `[V, D]` unless tied, `reward_head`
  `[D]`, `final_norm` `[D]`, and `layer_0`, `layer_1`, … (or `layers`, stacked
  on a first axis) with `attention_norm/scale`, `attention/{qkv,output}`,
  `mlp_norm/scale`, `mlp/{gate_up,down}`. Projections start normal with
  variance 1 / inputs, those that write to the residual stream divided by
  2 · depth; the scalar head starts at 0.

  Returns:
    A model whose `statistics` raise ValueError where `config.head` has no
    vocabulary, and whose `rewards` do where it has no scalar.
  """
  decoder = Decoder(config)
  compiled_init = jax.jit(decoder.init)  # once, whatever the number of seeds

  def init(key: Array) -> PyTree:
    row = jnp.zeros((1, 1), jnp.int32)
    return compiled_init(key, row, row, row, row)['params']

  def hidden_at(params: PyTree, batch: Batch, index: Array) -> Array:
    hidden = decoder.apply(
      {'params': params},
      batch.tokens,
      batch.positions,
      batch.group,
      batch.branch,
    )
    hidden = jnp.take_along_axis(hidden, index[..., None], axis=1, mode='clip')
    return _rms_norm(hidden, params['final_norm'], config.norm_eps)

  def statistics(
    params: PyTree, batch: Batch, names: tuple[str, ...]
  ) -> dict[str, Array]:
    if config.head == 'scalar':
      raise ValueError(
        "head must be 'vocabulary' or 'both' for statistics, got 'scalar'"
      )
    values = chunked_head(
      hidden_at(params, batch, batch.source),
      params['embedding' if config.tied_head else 'head'],
      batch.target,
      named_statistics(names),
      chunk=config.head_chunk,
      matmul_dtype=config.matmul_dtype,
    )
    slots = batch.completions.length.shape[-1]
    counted = (batch.slot >= 0) & (batch.slot < slots)
    return {
      name: jnp.where(counted, value, 0.0) for name, value in values.items()
    }

  def rewards(params: PyTree, batch: Batch) -> Array:
    if config.head == 'vocabulary':
      raise ValueError(
        "head must be 'scalar' or 'both' for rewards, got 'vocabulary'"
      )
    hidden = hidden_at(params, batch, last_tokens(batch))
    values = matmul(hidden, params['reward_head'], 'float32')
    return jnp.where(batch.completions.length > 0, values, 0.0)

  return Model(init, statistics, rewards)


def last_tokens(batch: Batch) -> Array:
  """Where in its row each completion ends, `[R, N]`; T − 1 in empty slots.

  The completions of a row lie in the order of their slots, so the n-th token
  that ends a branch ends slot n.
  """
  edge = jnp.full_like(batch.group[:, :1], -1)
  next_group = jnp.concatenate([batch.group[:, 1:], edge], axis=1)
  next_branch = jnp.concatenate([batch.branch[:, 1:], edge], axis=1)
  moves_on = (next_group != batch.group) | (next_branch != batch.branch)
  ends = moves_on & (batch.group > 0) & (batch.branch > 0)
  ended = jnp.cumsum(ends, axis=1)
  slots = jnp.arange(batch.completions.length.shape[-1])
  # The end of slot n is the first position with n + 1 branches ended.
  before = jnp.sum(ended[:, None, :] <= slots[:, None], axis=-1)
  return jnp.minimum(before, batch.tokens.shape[1] - 1)


def _rms_norm(inputs: Array, scale: Array, eps: float) -> Array:
  mean_square = jnp.mean(inputs * inputs, axis=-1, keepdims=True)
  return inputs * (jax.lax.rsqrt(mean_square + eps) * scale)


def _normal(scale: float):
  def start(key: Array, shape: tuple[int, ...]) -> Array:
    # Drawn flat: a draw with four axes compiles several times more slowly.
    drawn = jax.random.normal(key, (math.prod(shape),), jnp.float32)
    return scale * drawn.reshape(shape)

  return start


def _fan_in(inputs: int):
  return _normal(inputs**-0.5)

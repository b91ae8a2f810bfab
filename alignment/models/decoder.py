"""Layers between the token table and the heads."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from alignment.models.attention_layer import Attention, Look
from alignment.models.config import TransformerConfig
from alignment.models.initial import TABLE_SCALE, normal
from alignment.models.mlp import MLP
from alignment.models.norms import Norm, norm_params
from alignment.models.rotary import Turn, rotary_angles
from alignment.types import Array, PyTree

EVERYTHING = 2**30
"""A window no context fills: layers that differ are one computation in a scan,
where each is given its window as a number."""


class Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); or both at once.

  Attributes:
    config: of the model.
    windowed: whether this layer is; None where every call says so.
  """

  config: TransformerConfig
  windowed: bool | None

  @nn.compact
  def __call__(
    self,
    hidden: Array,
    turns: tuple[Turn, Turn],
    look: Look,
    windowed: Array | None = None,
    memory: PyTree = None,
  ) -> tuple[Array, PyTree]:
    """`[R, T, D]` to `[R, T, D]`; `turns` of plain and of windowed layers."""
    config = self.config
    if self.windowed is not None:
      turn = turns[self.windowed]
      window = config.window if self.windowed else None
    else:
      window = jnp.where(windowed, config.window, EVERYTHING)
      turn = turns[0]
      if config.local_rotary is not None:
        turn = jax.tree.map(lambda *x: jnp.where(windowed, *x), *turns[::-1])
    normed = Norm(config, name='attention_norm')(hidden)
    added, memory = Attention(config, name='attention')(
      normed, turn, look, window, memory
    )
    if config.post_norms:
      added = Norm(config, name='attention_post_norm')(added)
    between = hidden + added
    normed = Norm(config, name='mlp_norm')(
      hidden if config.parallel else between
    )
    added = MLP(config, name='mlp')(normed)
    if config.post_norms:
      added = Norm(config, name='mlp_post_norm')(added)
    return between + added, memory


class FinalNorm(nn.Module):
  """Only holds its parameters; the heads apply it where they read."""

  config: TransformerConfig

  @nn.compact
  def __call__(self):
    norm_params(self, self.config, self.config.width)


class Decoder(nn.Module):
  """Tokens to hidden states; the heads only hold their weights here."""

  config: TransformerConfig

  @nn.compact
  def __call__(
    self,
    tokens: Array,
    positions: Array,
    real: Array,
    look: Look,
    memories: Sequence[PyTree] | None = None,
  ) -> tuple[Array, Sequence[PyTree] | None]:
    """Hidden states before the final norm, and the memories of all layers.

    Args:
      tokens: `[R, T]` int32.
      positions: `[R, T]` int32.
      real: `[R, T]` bool, False on padding. Real tokens at positions there are
        not (`config.context`) come out as NaN.
      look: how tokens see each other.
      memories: of each layer, None for none; not for scanned layers.

    Returns:
      `[R, T, D]` float32, and what `look` returned to each layer.
    """
    config = self.config
    shape = (config.vocab_size, config.width)
    embedding = self.param('embedding', normal(TABLE_SCALE), shape)
    if config.head != 'scalar' and not config.tied_head:
      self.param('head', normal(TABLE_SCALE), shape)
    if config.head != 'vocabulary':
      self.param('reward_head', nn.initializers.zeros, (config.width,))
    FinalNorm(config, name='final_norm')()
    hidden = _rows(embedding, tokens) * config.embedding_scale
    if config.rotary is None:
      table = self.param(
        'positions', normal(TABLE_SCALE), (config.context, config.width)
      )
      hidden += _rows(table, positions)
    hidden, memories = self._layers(
      hidden, self._turns(positions), look, memories
    )
    if config.context is not None:
      beyond = real & (positions >= config.context)
      hidden = jnp.where(beyond[..., None], jnp.nan, hidden)
    return hidden, memories

  def _turns(self, positions: Array) -> tuple[Turn, Turn]:
    config = self.config
    if config.rotary is None:
      return None, None
    plain = rotary_angles(positions, config.head_dim, config.rotary)
    if config.local_rotary is None:
      return plain, plain
    return plain, rotary_angles(positions, config.head_dim, config.local_rotary)

  def _layers(self, hidden, turns, look, memories):
    config = self.config
    layer = Layer
    if config.remat:
      # Inside a scan nothing can be merged with the forward pass anyway.
      layer = nn.remat(Layer, prevent_cse=not config.scan_layers)
    windowed = config.windowed_layers
    if config.scan_layers:
      scanned = nn.scan(
        layer,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=(nn.broadcast, nn.broadcast, 0),
        length=config.depth,
      )
      alike = len(set(windowed)) == 1
      layers = scanned(config, windowed[0] if alike else None, name='layers')
      flags = None if alike else jnp.asarray(windowed)
      return layers(hidden, turns, look, flags)
    kept = []
    for index in range(config.depth):
      named = layer(config, windowed[index], name=f'layer_{index}')
      memory = None if memories is None else memories[index]
      hidden, memory = named(hidden, turns, look, None, memory)
      kept.append(memory)
    return hidden, kept


def _rows(table: Array, index: Array) -> Array:
  return jnp.take(table, index, axis=0, mode='clip').astype(jnp.float32)

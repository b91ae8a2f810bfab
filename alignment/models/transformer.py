"""A decoder-only transformer that reads prompt trees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from alignment.models.attention import Sight, attend, sight
from alignment.models.attention_layer import Look
from alignment.models.config import TransformerConfig
from alignment.models.decoder import Decoder
from alignment.models.head import chunked_head, named_statistics
from alignment.models.matmul import matmul
from alignment.models.model import Model
from alignment.models.norms import normalise
from alignment.types import Array, Batch, PyTree


def transformer(config: TransformerConfig) -> Model:
  """The transformer of `config` as pure functions.

  Parameters: `embedding` `[V, D]`, `positions` `[context, D]` where they are
  learned, `head` `[V, D]` unless tied, `reward_head` `[D]`, `final_norm`, and
  `layer_0`, `layer_1`, … (or `layers`, stacked on a first axis) with
  `attention_norm`, `attention/{qkv,output}`, `mlp_norm`, `mlp/{gate_up,down}`;
  of options `attention_post_norm`, `mlp_post_norm`, `attention/{qkv_bias,
  output_bias,query_norm,key_norm}`, `mlp/{gate_up_bias,down_bias}`. A norm has
  a `scale`, a 'layer' norm a `bias` as well. Projections start normal with
  variance 1 / inputs, those that write to the residual stream divided by
  2 · depth; norms start without effect; biases and the scalar head at 0.

  Returns:
    A model whose `statistics` raise ValueError where `config.head` has no
    vocabulary, and whose `rewards` do where it has no scalar.
  """
  decoder = Decoder(config)
  compiled_init = jax.jit(decoder.init)  # once, whatever the number of seeds

  def init(key: Array) -> PyTree:
    row = jnp.zeros((1, 1), jnp.int32)
    look = tree_look(sight(row, row, row))
    return compiled_init(key, row, row, row > 0, look)['params']

  def hidden_at(params: PyTree, batch: Batch, index: Array) -> Array:
    seen = sight(
      batch.positions,
      batch.group,
      batch.branch,
      batch.blocks,
      cells=batch.completions.length.shape[-1],
      attention=config.attention,
    )
    hidden, _ = decoder.apply(
      {'params': params},
      batch.tokens,
      batch.positions,
      batch.group > 0,
      tree_look(seen),
    )
    hidden = jnp.take_along_axis(hidden, index[..., None], axis=1, mode='clip')
    return normalise(hidden, params['final_norm'], config)

  def statistics(
    params: PyTree, batch: Batch, names: tuple[str, ...]
  ) -> dict[str, Array]:
    if config.head == 'scalar':
      raise ValueError(
        "head must be 'vocabulary' or 'both' for statistics, got 'scalar'"
      )
    values = chunked_head(
      hidden_at(params, batch, batch.source),
      vocabulary_table(params, config),
      batch.target,
      named_statistics(names),
      chunk=config.head_chunk,
      matmul_dtype=config.matmul_dtype,
      softcap=config.logit_softcap,
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


def tree_look(seen: Sight) -> Look:
  """How the tokens of prompt trees see each other: the `look` of a decoder."""
  return Partial(_look, seen)


def _look(seen: Sight, query, key, value, memory, **options):
  return attend(query, key, value, seen, **options), memory


def vocabulary_table(params: PyTree, config: TransformerConfig) -> Array:
  """`[V, D]`, what the vocabulary head multiplies hidden states with."""
  return params['embedding' if config.tied_head else 'head']


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

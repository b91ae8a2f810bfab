"""Small random prompt trees and models for the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment.data.layout import Group, capacity_for, lay_out, owners
from alignment.models.config import TransformerConfig
from alignment.models.rotary import Rotary

PACKINGS = ('padded', 'shared', 'packed')
NAMES = ('token_logps', 'token_entropy', 'token_log_sum_squares')


def small_config(**changes):
  """Every size different, grouped heads."""
  sizes = dict(
    vocab_size=11,
    width=12,
    depth=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_width=10,
  )
  return TransformerConfig(**(sizes | changes))


FAMILIES = {
  'mistral': small_config(window=3),
  'qwen 2': small_config(qkv_bias=True, rotary=Rotary(theta=100.0)),
  'gemma 2': small_config(
    window=3,
    windowed=(True, False),
    norm_offset=1.0,
    post_norms=True,
    activation='gelu_tanh',
    query_scale=0.7,
    attention_softcap=2.0,
    logit_softcap=3.0,
    embedding_scale=12**0.5,
    tied_head=True,
  ),
  'gemma 3': small_config(
    window=2,
    windowed=(True, False),
    rotary=Rotary(theta=200.0, scaling='linear', factor=4.0),
    local_rotary=Rotary(theta=20.0),
    norm_offset=1.0,
    post_norms=True,
    qk_norm=True,
    context=30,
  ),
  'gpt 2': small_config(
    rotary=None,
    context=30,
    norm='layer',
    activation='gelu_tanh',
    gated=False,
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    tied_head=True,
    num_kv_heads=4,
  ),
  'gpt neox': small_config(
    rotary=Rotary(fraction=0.7),
    norm='layer',
    norm_eps=1e-2,
    parallel=True,
    activation='gelu',
    gated=False,
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
  ),
  'everything': small_config(
    context=30,
    window=3,
    windowed=(False, True),
    rotary=Rotary(fraction=0.7, scaling='linear', factor=2.0),
    local_rotary=Rotary(theta=20.0, fraction=0.7),
    norm='layer',
    norm_offset=0.5,
    post_norms=True,
    qk_norm=True,
    parallel=True,
    activation='gelu',
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    query_scale=0.6,
    attention_softcap=2.0,
    logit_softcap=4.0,
    embedding_scale=2.5,
  ),
}
"""Every option of a model on and off, windows shorter than the texts."""


def random_groups(seed=0, count=4, vocab=11):
  """Pairs with prompts of 1 to 4 and completions of 1 to 5 tokens."""
  rng = np.random.default_rng(seed)

  def text(low, high):
    length = rng.integers(low, high + 1)
    return rng.integers(0, vocab, length).astype(np.int32)

  groups = [
    Group(prompt=text(1, 4), completions=(text(1, 5), text(1, 5)), index=i)
    for i in range(count - 1)
  ]
  # A completion of one token: its last token is also its first.
  one = Group(prompt=text(3, 3), completions=(text(1, 1), text(4, 4)), index=7)
  return [*groups, one]


def random_batch(packing='packed', seed=0, count=4, vocab=11):
  groups = random_groups(seed, count, vocab)
  limit = 40 if packing == 'packed' else None
  capacity = capacity_for(
    groups, packing=packing, batch_size=count, max_row_length=limit
  )
  return groups, lay_out(groups, capacity, packing)


def random_params(model, seed=0):
  """Parameters far from their start, where nothing is nearly linear."""
  rng = np.random.default_rng(seed)

  def drawn(shape):
    centre, scale = (1.0, 0.3) if len(shape.shape) == 1 else (0.0, 0.4)
    values = rng.normal(centre, scale, shape.shape)
    return jnp.asarray(values, jnp.float32)

  return jax.tree.map(drawn, jax.eval_shape(model.init, jax.random.key(0)))


def per_completion(groups, batch, values):
  """`[R, L]` values as (example, completion) -> its list, layout removed."""
  index, number = owners(batch)
  values = np.asarray(values)
  found = {}
  for row, slot in np.argwhere(index >= 0):
    key = (int(index[row, slot]), int(number[row, slot]))
    found[key] = values[row][batch.slot[row] == slot]
  wanted = {(g.index, k) for g in groups for k in range(len(g.completions))}
  assert set(found) == wanted
  return found

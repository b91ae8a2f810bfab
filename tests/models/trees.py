"""Small random prompt trees and models for the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment.data.layout import Group, capacity_for, lay_out, owners
from alignment.models.config import TransformerConfig

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

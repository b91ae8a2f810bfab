"""A model and batches small enough to differentiate many times."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from alignment.data.layout import Group, capacity_for, lay_out
from alignment.losses.preference import METHODS, reads
from alignment.models.model import Model
from alignment.types import Batch, Frozen

VOCAB, WIDTH = 24, 16

PLAIN = tuple(name for name in METHODS if 'label_prob' not in reads(name))


def small_model() -> Model:
  """A bigram network with matrices, a vector, and no coupling of rows."""

  def init(key):
    keys = jax.random.split(key, 3)
    shapes = (VOCAB, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, VOCAB)
    names = 'embedding', 'up', 'down'
    weights = {
      name: 0.5 * jax.random.normal(k, shape)
      for name, k, shape in zip(names, keys, shapes, strict=True)
    }
    return {'layer': weights, 'norm': jnp.linspace(0.5, 1.5, WIDTH)}

  def statistics(params, batch, names):
    layer = params['layer']
    before = jnp.take_along_axis(batch.tokens, batch.source, axis=1)
    hidden = layer['embedding'][before] * params['norm']
    logits = jnp.tanh(hidden @ layer['up']) @ layer['down']
    logps = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logps, batch.target[..., None], axis=-1)[
      ..., 0
    ]
    squares = jax.nn.logsumexp(2 * logps, axis=-1)
    values = {'token_logps': picked, 'token_log_sum_squares': squares}
    real = batch.slot < batch.completions.length.shape[-1]
    return {name: jnp.where(real, values[name], 0.0) for name in names}

  def rewards(params, batch):
    del params
    return jnp.zeros(batch.completions.length.shape)

  return Model(init, statistics, rewards)


MODEL = small_model()


def pairs(count: int, seed: int = 0, **fields) -> list[Group]:
  """Random pairs of unequal lengths, with weights and reference_logps."""
  rng = np.random.default_rng(seed)

  def text(low, high):
    return rng.integers(1, VOCAB, rng.integers(low, high)).astype(np.int32)

  groups = []
  for index in range(count):
    completions = (text(2, 7), text(2, 7))
    values = {
      'weight': float(rng.uniform(0.5, 2.0)),
      'coefficient': float(rng.uniform(0.5, 1.5)),
      'chosen': int(rng.integers(2)),
      'reference_logps': tuple(
        float(-3.0 * len(c) + rng.normal()) for c in completions
      ),
      **fields,
    }
    values['rejected'] = 1 - values['chosen']
    groups.append(Group(text(1, 4), completions, index=index, **values))
  return groups


def batch_of(groups, rows: int = 16, packing: str = 'shared') -> Batch:
  """One batch; rows beyond the groups are empty."""
  capacity = capacity_for(
    groups, packing=packing, batch_size=len(groups), row_multiple=rows
  )
  return lay_out(groups, capacity, packing)


def unit_pairs(count: int, seed: int = 0, **fields) -> list[Group]:
  """Pairs that every method accepts: weights and coefficients 1."""
  return pairs(count, seed, weight=1.0, coefficient=1.0, **fields)


def frozen(**hyper) -> Frozen:
  return Frozen(hyper={k: jnp.float32(v) for k, v in hyper.items()})


def flat(tree) -> np.ndarray:
  """Every number of a tree as one vector."""
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

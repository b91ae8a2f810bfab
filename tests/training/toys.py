"""A step, its state and its data, small enough to run by the thousand."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from alignment.types import TrainState, Weighted

_ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = jax.random.key(7)
_ROWS = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class ToyBatch:
  """`x` [4, 3], `y` [4], `index` [4] = 10 · step + row, `group` [4, 3]."""

  x: np.ndarray
  y: np.ndarray
  index: np.ndarray
  group: np.ndarray

  def __getitem__(self, rows) -> ToyBatch:
    return jax.tree.map(lambda array: array[rows], self)


def batches(start_step: int) -> Iterator[ToyBatch]:
  """Endless batches, each a function of its global step."""
  step = start_step
  while True:
    rng = np.random.default_rng([11, step])
    group = np.ones((_ROWS, 3), np.int32)
    group[0] = 0
    yield ToyBatch(
      x=rng.normal(size=(_ROWS, 3)).astype(np.float32),
      y=rng.normal(size=_ROWS).astype(np.float32),
      index=10 * step + np.arange(_ROWS, dtype=np.int32),
      group=group,
    )
    step += 1


def fresh() -> TrainState:
  """Momentum and a running mean, so that every part of the state matters."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params={'w': jnp.zeros(3)},
    opt_state={'momentum': jnp.zeros(3)},
    extra={'mean': jnp.zeros(())},
  )


def toy_step(state, frozen, batch, key):
  """Noisy least squares with momentum; refuses what is not finite."""
  noise = jax.random.normal(jax.random.fold_in(key, state.step), (3,))

  def loss(w):
    errors = batch.x @ (w + 0.01 * noise) - batch.y
    return jnp.sum(errors**2), errors

  (value, errors), grad = jax.value_and_grad(loss, has_aux=True)(
    state.params['w']
  )
  finite = jnp.isfinite(value)
  momentum = 0.9 * state.opt_state['momentum'] + grad
  new = TrainState(
    step=state.step + 1,
    params={'w': state.params['w'] - 0.01 * momentum},
    opt_state={'momentum': momentum},
    extra={'mean': 0.9 * state.extra['mean'] + 0.1 * value},
  )
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
  metrics = {
    'loss': Weighted(value, jnp.float32(batch.y.shape[0])),
    'grad_norm': jnp.linalg.norm(grad),
    'nonfinite': ~finite,
    'nonfinite_index': jnp.where(jnp.isfinite(errors), -1, batch.index),
  }
  return kept.replace(step=state.step + 1), metrics


def python(code: str, *arguments) -> subprocess.Popen:
  """A Python program beside the tests, on one device."""
  environment = {**os.environ, 'PYTHONPATH': str(_ROOT)}
  environment.pop('XLA_FLAGS', None)
  return subprocess.Popen(
    [sys.executable, '-c', code, *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment,
  )


def assert_same(a, b) -> None:
  """Every leaf of two trees, bit by bit."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))

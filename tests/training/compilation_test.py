"""One program per batch shape: what compiles in the loop, and who is told."""

import concurrent.futures
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.training.loop import train
from alignment.types import Frozen
from tests.training.toys import KEY, batches, fresh, toy_step


@pytest.fixture(autouse=True)
def no_warnings():
  with warnings.catch_warnings():
    warnings.simplefilter('error', RuntimeWarning)
    yield


def _own(**options):
  """A compiled step with a cache that no other test shares."""
  return jax.jit(lambda *arguments: toy_step(*arguments), **options)


def test_nothing_compiles_in_the_loop():
  step = _own(donate_argnums=0)
  train(step, fresh(), Frozen(), batches, num_steps=30, key=KEY)
  assert step._cache_size() == 1


def test_a_step_that_compiles_again_is_reported_with_the_reason():
  @jax.jit
  def step(state, frozen, batch, key):
    state, metrics = toy_step(state, frozen, batch, key)
    params = {'w': state.params['w'].astype(jnp.bfloat16)}
    return state.replace(params=params), metrics

  with pytest.warns(
    RuntimeWarning,
    match=r'step 2 compiled again.*params/w: float32\[3\].*bfloat16\[3\]',
  ):
    train(step, fresh(), Frozen(), batches, num_steps=3, key=KEY)


def test_a_new_batch_shape_may_compile_once():
  def growing(start):
    for i, batch in enumerate(batches(start), start):
      yield batch if i % 2 else batch[:2]

  step = _own()
  train(step, fresh(), Frozen(), growing, num_steps=6, key=KEY)
  assert step._cache_size() == 2


def test_loops_of_other_threads_compile_without_a_warning():
  step = jax.jit(toy_step)

  def cell(width):
    make = lambda start: (b[:width] for b in batches(start))  # noqa: E731
    return train(step, fresh(), Frozen(), make, num_steps=20, key=KEY)

  alone = [cell(width) for width in (1, 2, 3, 4)]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    together = list(pool.map(cell, (1, 2, 3, 4)))
  for a, b in zip(alone, together, strict=True):
    np.testing.assert_array_equal(a.params['w'], b.params['w'])

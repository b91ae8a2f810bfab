"""Visibility, rotary positions, grouped heads, fully hidden queries."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment.models.attention import (
  DenseSight,
  Sight,
  attend,
  sight,
  visibility,
)
from tests.models.trees import random_batch


def _random(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def test_visibility_is_the_path_to_the_root():
  _, batch = random_batch('packed')
  rows, length = batch.tokens.shape
  got = np.asarray(visibility(batch.group, batch.branch))
  for r in range(rows):
    for i in range(length):
      for j in range(length):
        group, branch = batch.group[r], batch.branch[r]
        wanted = i == j or (
          group[i] > 0
          and group[j] == group[i]
          and j <= i
          and branch[j] in (0, branch[i])
        )
        assert got[r, i, j] == wanted, (r, i, j)
  assert (batch.group == 0).any()


def test_grouped_heads_are_repeated_keys_and_values():
  query = _random(2, 5, 2, 3, 4)
  key, value = _random(2, 5, 2, 4, seed=1), _random(2, 5, 2, 4, seed=2)
  group = jnp.array([[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]])
  branch = jnp.array([[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]])
  seen = sight(jnp.zeros_like(group), group, branch)
  grouped = attend(query, key, value, seen, scale=0.5)
  repeat = lambda x: jnp.repeat(x, 3, axis=2)  # noqa: E731
  many = attend(
    query.reshape(2, 5, 6, 1, 4), repeat(key), repeat(value), seen, scale=0.5
  )
  np.testing.assert_allclose(grouped.reshape(many.shape), many, atol=1e-6)


def test_attention_is_the_softmax_mean():
  query = _random(1, 4, 1, 2, 3)
  key, value = _random(1, 4, 1, 3, seed=1), _random(1, 4, 1, 3, seed=2)
  visible = np.tril(np.random.default_rng(0).random((1, 4, 4)) < 0.5)
  visible |= np.eye(4, dtype=bool)
  positions = jnp.zeros((1, 4), jnp.int32)
  seen = Sight('dense', DenseSight(positions, jnp.asarray(visible)))
  got = np.asarray(attend(query, key, value, seen, scale=3**-0.5))
  q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
  for i in range(4):
    seen = np.flatnonzero(visible[0, i])
    for head in range(2):
      scores = k[0, seen, 0] @ q[0, i, 0, head] / np.sqrt(3)
      weights = np.exp(scores) / np.exp(scores).sum()
      wanted = weights @ v[0, seen, 0]
      np.testing.assert_allclose(got[0, i, 0, head], wanted, atol=1e-6)


def test_padding_is_finite_and_leaks_nothing():
  group = jnp.array([[0, 1, 1, 0, 1, 0]])
  branch = jnp.array([[0, 0, 1, 1, 1, 0]])
  seen = sight(jnp.zeros_like(group), group, branch)
  query = _random(1, 6, 1, 1, 4)
  key, value = _random(1, 6, 1, 4, seed=1), _random(1, 6, 1, 4, seed=2)
  padding = np.asarray(group[0] == 0)

  def real(query, key, value):
    mixed = attend(query, key, value, seen, scale=0.5)
    return jnp.sum(jnp.sin(mixed)[:, ~padding])

  out = attend(query, key, value, seen, scale=0.5)
  grads = jax.grad(real, argnums=(0, 1, 2))(query, key, value)
  assert np.isfinite(out).all()
  # A query of padding reads itself alone.
  np.testing.assert_array_equal(out[0, padding, 0, 0], value[0, padding, 0])
  for grad in grads:
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad[0, padding], 0.0)
    assert (np.abs(grad[0, ~padding]).sum(-1) > 0).any()

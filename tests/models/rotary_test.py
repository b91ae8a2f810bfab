"""Which features turn, how fast, and what that does to scores."""

import jax.numpy as jnp
import numpy as np

from alignment.models.rotary import Rotary, rotary_angles, rotate


def _random(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


def test_scores_depend_on_the_difference_of_positions():
  query, key = _random(1, 2, 1, 1, 8), _random(1, 2, 1, 1, 8, seed=1)

  def score(first, second):
    angles = rotary_angles(jnp.array([[first, second]]), 8, Rotary(theta=100.0))
    q = rotate(query, *angles)[0, 0, 0, 0]
    k = rotate(key, *angles)[0, 1, 0, 0]
    return float(q @ k)

  np.testing.assert_allclose(score(9, 4), score(105, 100), rtol=1e-4)
  np.testing.assert_allclose(score(4, 9), score(0, 5), rtol=1e-4)
  assert abs(score(9, 4) - score(4, 9)) > 1e-2
  assert abs(score(9, 4) - score(9, 3)) > 1e-2


def test_rotation_turns_complex_numbers():
  positions = np.array([[0, 3, 50]])
  features = np.asarray(_random(1, 3, 2, 2, 6), np.float64)
  angles = rotary_angles(jnp.asarray(positions), 6, Rotary())
  got = rotate(jnp.asarray(features, jnp.float32), *angles)
  theta = 10_000.0 ** (-2 * np.arange(3) / 6)
  turn = np.exp(1j * positions[..., None] * theta)[:, :, None, None]
  turned = (features[..., :3] + 1j * features[..., 3:]) * turn
  wanted = np.concatenate([turned.real, turned.imag], -1)
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)

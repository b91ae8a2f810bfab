"""Which features turn, how fast, and what that does to scores."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

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


def test_the_rest_of_a_head_stays():
  features = _random(1, 3, 2, 2, 10)
  angles = rotary_angles(jnp.array([[2, 5, 9]]), 10, Rotary(fraction=0.6))
  alone = rotary_angles(jnp.array([[2, 5, 9]]), 6, Rotary())
  got = rotate(features, *angles)
  np.testing.assert_array_equal(got[..., :6], rotate(features[..., :6], *alone))
  np.testing.assert_array_equal(got[..., 6:], features[..., 6:])


def test_scalings_of_every_frequency():
  theta, factor, context, n = 50.0, 8.0, 64, 12
  plain = [theta ** (-2 * k / n) for k in range(n // 2)]

  def llama3(f, k):
    turns = context * f / (2 * math.pi)
    if turns > 4:
      return f
    if turns < 1:
      return f / factor
    kept = (turns - 1) / 3
    return (1 - kept) * f / factor + kept * f

  def yarn(f, k):
    def pair(turns):
      # The k at which 2 pi turns / theta^(-2k / n) is the context.
      return n / 2 * math.log(context / (2 * math.pi * turns), theta)

    first, last = math.floor(pair(8.0)), math.ceil(pair(0.5))
    assert 0 <= first < last < n - 1
    slowed = min(max((k - first) / (last - first), 0), 1)
    return f / factor * slowed + f * (1 - slowed)

  wanted = {
    'none': lambda f, k: f,
    'linear': lambda f, k: f / factor,
    'llama3': llama3,
    'yarn': yarn,
  }
  for scaling, one in wanted.items():
    rotary = Rotary(
      theta=theta,
      scaling=scaling,
      factor=factor,
      original_context=context,
      beta_fast=8.0,
      beta_slow=0.5,
    )
    want = [one(f, k) for k, f in enumerate(plain)]
    np.testing.assert_allclose(rotary.frequencies(n), want, rtol=1e-12)


def test_yarn_scales_cosine_and_sine():
  rotary = Rotary(scaling='yarn', factor=4.0, attention_factor=1.3)
  cos, sin = rotary_angles(jnp.array([[3]]), 6, rotary)
  np.testing.assert_allclose(cos**2 + sin**2, 1.3**2, rtol=1e-6)


@pytest.mark.parametrize(
  'change',
  [
    {'theta': 1.0},
    {'fraction': 0.0},
    {'fraction': 1.5},
    {'scaling': 'dynamic'},
    {'factor': 0.5},
    {'factor': float('inf')},
    {'original_context': 0},
    {'low_freq_factor': 4.0},
    {'beta_slow': 32.0},
    {'attention_factor': float('nan')},
  ],
  ids=str,
)
def test_refuses_values_out_of_range(change):
  name, value = next(iter(change.items()))
  with pytest.raises(ValueError, match=f'{name} must be .*{value}'):
    Rotary(**change)

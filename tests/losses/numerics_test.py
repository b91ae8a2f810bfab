"""Total scalar functions against float64 and at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import numerics


def test_log1mexp_keeps_its_digits_at_both_ends():
  x = np.asarray([-1e-30, -1e-8, -1e-3, -0.69, -0.7, -3.0, -20.0, -80.0])
  # Either form is exact in float64 on its side.
  expected = [
    np.log(-np.expm1(y)) if y > -1 else np.log1p(-np.exp(y)) for y in x
  ]
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      numerics.log1mexp(jnp.asarray(x)), expected, rtol=1e-12
    )
  # Float32 has 24 bits: a few units in the last place.
  np.testing.assert_allclose(
    numerics.log1mexp(jnp.asarray(x, jnp.float32)), expected, rtol=1e-6
  )


@pytest.mark.parametrize('x', [0.0, -0.0, -1e-45, -1e-38, -1e4])
def test_log1mexp_is_finite_with_finite_gradient(x):
  value, gradient = jax.value_and_grad(numerics.log1mexp)(jnp.float32(x))
  assert np.isfinite(value) and np.isfinite(gradient)


@pytest.mark.parametrize('a', [-1.3, -1e-6, 0.0, 1e-6, 0.4, 2.0])
def test_deformed_and_its_gradient(a):
  x = np.asarray([-5.0, -0.3, 0.0, 0.7, 4.0])
  expected = x if a == 0 else np.expm1(a * x) / a
  value, gradient = jax.vmap(
    jax.value_and_grad(lambda y: numerics.deformed(a, y))
  )(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(gradient, np.exp(a * x), rtol=1e-5)


def test_exponents_are_clamped_not_infinite():
  x = jnp.asarray([79.0, 81.0, 1e4])
  assert np.isfinite(numerics.safe_exp(x)).all()
  np.testing.assert_array_equal(
    jax.grad(lambda y: jnp.sum(numerics.safe_exp(y)))(x)[1:], 0.0
  )
  assert np.isfinite(numerics.deformed(2.0, x)).all()


def test_as_float_widens_half_precision_and_keeps_float64():
  assert numerics.as_float(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
  assert numerics.as_float(jnp.ones(2, jnp.int32)).dtype == jnp.float32
  with jax.enable_x64(True):
    assert numerics.as_float(np.ones(2)).dtype == jnp.float64
    assert numerics.as_float(np.ones(2, np.float32)).dtype == jnp.float32


@pytest.mark.parametrize(
  'value',
  [0.5, -0.1, float('nan'), np.asarray([0.1, 0.5]), jnp.asarray([0.2, 0.7])],
)
def test_check_range_names_argument_value_and_range(value):
  with pytest.raises(ValueError, match=r'epsilon = \S+ is outside \[0, 0.5\)'):
    numerics.check_range('epsilon', value, 0.0, 0.5, '[)')


def test_check_range_lets_traced_and_good_values_pass():
  numerics.check_range('epsilon', np.asarray([0.0, 0.49]), 0.0, 0.5, '[)')

  def traced(x):
    numerics.check_range('epsilon', x, 0.0, 0.5, '[)')
    return x

  jax.jit(traced)(0.7)

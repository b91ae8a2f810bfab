"""Total scalar functions and range checks that every loss leans on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from alignment.types import Array

MAX_EXPONENT_32 = 80.0
MAX_EXPONENT_64 = 700.0


def as_float(x: Array) -> Array:
  """`x` in float32, or in float64 where it already is float64."""
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def log_sigmoid(z: Array) -> Array:
  """log σ(z) = −log(1 + e^{−z}), finite with finite gradient for finite z."""
  return -jax.nn.softplus(-z)


def safe_exp(x: Array) -> Array:
  """e^x, the exponent clamped at 80 (float32) or 700 (float64).

  Above the clamp the value is the constant e^80 (e^700) and the gradient 0.
  """
  limit = MAX_EXPONENT_64 if x.dtype == jnp.float64 else MAX_EXPONENT_32
  return jnp.exp(jnp.minimum(x, limit))


@jax.custom_jvp
def _expm1(x: Array) -> Array:
  return jnp.expm1(x)


@_expm1.defjvp
def _expm1_jvp(primals, tangents):
  # e^x itself: the built-in rule adds 1 to expm1(x), which leaves only rounding
  # of the slope in the lower tail.
  return jnp.expm1(primals[0]), jnp.exp(primals[0]) * tangents[0]


def deformed(a: Array, x: Array) -> Array:
  """(e^{a·x} − 1) / a, which tends to x as a → 0.

  The exponent is clamped as in `safe_exp`.
  """
  limit = MAX_EXPONENT_64 if x.dtype == jnp.float64 else MAX_EXPONENT_32
  is_zero = jnp.asarray(a) == 0
  safe_a = jnp.where(is_zero, 1.0, a)
  return jnp.where(is_zero, x, _expm1(jnp.minimum(a * x, limit)) / safe_a)


def log1mexp(x: Array) -> Array:
  """log(1 − e^x) for x < 0, without cancellation.

  Clamp: x is read as at most −tiny (the smallest normal number), so that a
  completion of probability 1 gives a finite number; the gradient there is 0.

  Source: Mächler, Accurately Computing log(1 − exp(−|a|)), 2012.
  """
  x = jnp.minimum(x, -jnp.finfo(x.dtype).tiny)
  is_small = x > -0.6931471805599453
  near = jnp.log(-jnp.expm1(jnp.where(is_small, x, -1.0)))
  far = jnp.log1p(-jnp.exp(jnp.where(is_small, -1.0, x)))
  return jnp.where(is_small, near, far)


def check_range(
  name: str,
  value: Array | float,
  low: float,
  high: float,
  closed: str = '[]',
) -> None:
  """Refuses `value` outside an interval, if it is known at trace time.

  Args:
    name: what the caller calls it.
    value: scalar or array; a traced value passes unchecked.
    low: lower end.
    high: upper end.
    closed: `'[]'`, `'[)'`, `'(]'` or `'()'`: which ends belong to it.

  Raises:
    ValueError: naming the argument, its value and the interval.
  """
  if isinstance(value, jax.core.Tracer):
    return
  array = np.asarray(value)
  above = array >= low if closed[0] == '[' else array > low
  below = array <= high if closed[1] == ']' else array < high
  is_bad = ~(above & below)  # a NaN is outside
  if is_bad.any():
    first = array.reshape(-1)[int(np.argmax(is_bad.reshape(-1)))]
    interval = f'{closed[0]}{low:g}, {high:g}{closed[1]}'
    raise ValueError(f'{name} = {first:g} is outside {interval}')

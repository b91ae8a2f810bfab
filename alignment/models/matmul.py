"""The product of activations and weights, in the precision asked for."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from alignment.types import Array


def matmul(
  inputs: Array, weight: Array, matmul_dtype: str, axes: int = 1
) -> Array:
  """Contracts the last `axes` of `inputs` with the first `axes` of `weight`.

  float32: operands as they are, at the highest precision the device has (an
  accelerator would otherwise round them). bfloat16: operands rounded to
  bfloat16, products summed in float32, in the forward and in both backward
  products; the cotangent is rounded as an operand too. Reverse mode only.

  Args:
    inputs: `[..., *contracted]` float32.
    weight: `[*contracted, *features]` float32.
    matmul_dtype: 'float32' or 'bfloat16'.
    axes: how many axes are contracted.

  Returns:
    `[..., *features]` float32.
  """
  if matmul_dtype == 'float32':
    return _contract(inputs, weight, axes, lax.Precision.HIGHEST)
  return _bfloat16_matmul(inputs, weight, axes)


def _contract(inputs, weight, axes, precision=None):
  last = tuple(range(inputs.ndim - axes, inputs.ndim))
  first = tuple(range(axes))
  return lax.dot_general(
    inputs,
    weight,
    ((last, first), ((), ())),
    precision=precision,
    preferred_element_type=jnp.float32,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _bfloat16_matmul(inputs, weight, axes):
  return _forward(inputs, weight, axes)[0]


def _forward(inputs, weight, axes):
  inputs = inputs.astype(jnp.bfloat16)
  # The rounded activations are what the backward pass keeps: half the memory.
  return _contract(inputs, weight.astype(jnp.bfloat16), axes), (inputs, weight)


def _backward(axes, residuals, cotangent):
  inputs, weight = residuals
  cotangent = cotangent.astype(jnp.bfloat16)
  batch = tuple(range(inputs.ndim - axes))
  features = cotangent.ndim - len(batch)
  weight_grad = lax.dot_general(
    inputs,
    cotangent,
    ((batch, batch), ((), ())),
    preferred_element_type=jnp.float32,
  )
  trailing = (
    tuple(range(len(batch), cotangent.ndim)),
    tuple(range(weight.ndim - features, weight.ndim)),
  )
  inputs_grad = lax.dot_general(
    cotangent,
    weight.astype(jnp.bfloat16),
    (trailing, ((), ())),
    preferred_element_type=jnp.float32,
  )
  return inputs_grad, weight_grad


_bfloat16_matmul.defvjp(_forward, _backward)

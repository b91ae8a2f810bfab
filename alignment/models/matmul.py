"""The product of activations and weights, in the precision asked for."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from alignment.types import Array


def matmul(
  inputs: Array,
  weight: Array,
  matmul_dtype: str,
  *,
  axes: int = 1,
  transposed: bool = False,
) -> Array:
  """Contracts the last `axes` of `inputs` with the first of `weight`.

  float32: operands as they are, at the highest precision the device has (an
  accelerator would otherwise round them). bfloat16: operands rounded to
  bfloat16, products summed in float32, in the forward and in both backward
  products; the cotangent is rounded as an operand too. Reverse mode only.

  Args:
    inputs: `[..., *contracted]` float32.
    weight: `[*contracted, *features]` float32; `[*features, *contracted]`
      where `transposed`.
    matmul_dtype: 'float32' or 'bfloat16'.
    axes: how many axes are contracted.
    transposed: contract the last `axes` of `weight` instead of the first.

  Returns:
    `[..., *features]` float32.
  """
  weight_axes = tuple(range(weight.ndim))
  contracted = weight_axes[-axes:] if transposed else weight_axes[:axes]
  if matmul_dtype == 'float32':
    return _product(inputs, weight, contracted, lax.Precision.HIGHEST)
  return _bfloat16_matmul(inputs, weight, contracted)


def _product(inputs, weight, contracted, precision=None):
  last = tuple(range(inputs.ndim - len(contracted), inputs.ndim))
  return _dot(inputs, weight, last, contracted, precision)


def _dot(left, right, left_axes, right_axes, precision=None):
  return lax.dot_general(
    left,
    right,
    ((left_axes, right_axes), ((), ())),
    precision=precision,
    preferred_element_type=jnp.float32,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _bfloat16_matmul(inputs, weight, contracted):
  return _forward(inputs, weight, contracted)[0]


def _forward(inputs, weight, contracted):
  # The rounded activations are what the backward pass keeps: half the memory.
  inputs = inputs.astype(jnp.bfloat16)
  outputs = _product(inputs, weight.astype(jnp.bfloat16), contracted)
  return outputs, (inputs, weight)


def _backward(contracted, residuals, cotangent):
  inputs, weight = residuals
  cotangent = cotangent.astype(jnp.bfloat16)
  batch = tuple(range(inputs.ndim - len(contracted)))
  trailing = tuple(range(len(batch), cotangent.ndim))
  features = tuple(a for a in range(weight.ndim) if a not in contracted)
  inputs_grad = _dot(cotangent, weight.astype(jnp.bfloat16), trailing, features)
  # In the order of the weight's own axes: a product that has to be transposed
  # afterwards is folded by XLA into one its CPU backend cannot run.
  if contracted[0] == 0:
    return inputs_grad, _dot(inputs, cotangent, batch, batch)
  return inputs_grad, _dot(cotangent, inputs, batch, batch)


_bfloat16_matmul.defvjp(_forward, _backward)

"""The heart of attention: softmax-weighted means, and their gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from alignment.types import Array

HIDDEN = -1e30
"""Score of a pair that may not meet: finite, and exp of it is exactly 0."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def softmax_mean(
  query: Array,
  key: Array,
  value: Array,
  visible: Array,
  softcap: float | None,
) -> Array:
  """out[i] = Σ_j softmax_j(cap(query[i] · key[j])) value[j] over visible j.

  cap(x) = softcap · tanh(x / softcap). float32 at the highest precision the
  device has. The backward pass keeps the weights, and takes from them
  Σ_j weight · ∂weight = out · ∂out, which saves a pass over all pairs of the
  way automatic differentiation goes. Reverse mode only.

  Args:
    query: `[..., H, G, I, F]`, scaled, G query heads for each of H.
    key: `[..., H, J, F]`.
    value: `[..., H, J, F]`.
    visible: `[..., I, J]` bool; a query that sees nothing gets a finite mean.
    softcap: > 0; None leaves the scores as they are.

  Returns:
    `[..., H, G, I, F]` float32.

  Source: the gradient as in Dao et al., "FlashAttention: Fast and Memory-
  Efficient Exact Attention with IO-Awareness", arXiv:2205.14135, appendix B.2.
  """
  return _forward(query, key, value, visible, softcap)[0]


def _forward(query, key, value, visible, softcap):
  rows = _stacked(query)
  scores = _product('...if,...jf->...ij', rows, key)
  scores = scores.reshape(query.shape[:-1] + key.shape[-2:-1])
  slope = None
  if softcap is not None:
    slope = jnp.tanh(scores / softcap)
    scores = softcap * slope
  scores = jnp.where(visible[..., None, None, :, :], scores, HIDDEN)
  weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
  weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
  out = _product('...ij,...jf->...if', _stacked(weights), value)
  out = out.reshape(query.shape)
  return out, (query, key, value, weights, slope, out)


def _backward(softcap, kept, cotangent):
  query, key, value, weights, slope, out = kept
  shape = query.shape
  shared = jnp.sum(cotangent * out, axis=-1, keepdims=True)
  cotangent, weights = _stacked(cotangent), _stacked(weights)
  value_grad = _product('...ij,...if->...jf', weights, cotangent)
  pulled = _product('...if,...jf->...ij', cotangent, value)
  pulled = weights * (pulled - _stacked(shared))
  if softcap is not None:
    pulled = pulled * _stacked(1.0 - slope * slope)
  query_grad = _product('...ij,...jf->...if', pulled, key).reshape(shape)
  key_grad = _product('...ij,...if->...jf', pulled, _stacked(query))
  return query_grad, key_grad, value_grad, None


softmax_mean.defvjp(_forward, _backward)


def _stacked(array: Array) -> Array:
  """`[..., G, I, X]` to `[..., G · I, X]`: the heads of a key as queries."""
  return array.reshape(array.shape[:-3] + (-1,) + array.shape[-1:])


def _product(subscripts: str, left: Array, right: Array) -> Array:
  return jnp.einsum(subscripts, left, right, precision=lax.Precision.HIGHEST)

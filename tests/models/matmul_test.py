"""Precision of the weight products, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models.matmul import matmul

CASES = [
  ((3, 5, 7), (7, 4), 1, False),
  ((3, 5, 7), (7, 2, 4), 1, False),
  ((3, 5, 2, 7), (2, 7, 4), 2, False),
  ((3, 5, 7), (11, 7), 1, True),
  ((3, 5, 7), (7,), 1, False),
]


def _inputs(case):
  rng = np.random.default_rng(3)
  left, right, axes, transposed = case
  x, w = (rng.normal(size=shape) for shape in (left, right))
  if transposed:
    out = np.einsum('...i,oi->...o', x, w)
  else:
    out = np.tensordot(x, w, axes)
  g = rng.normal(size=out.shape)
  return (jnp.asarray(a, jnp.float32) for a in (x, w, g)), out


def _run(case, dtype):
  (x, w, g), out = _inputs(case)

  def product(x, w):
    return matmul(x, w, dtype, axes=case[2], transposed=case[3])

  # Compiled: not every product that XLA folds can run on every backend.
  @jax.jit
  def both(x, w, g):
    value, back = jax.vjp(product, x, w)
    return value, *back(g)

  return both(x, w, g), out, (x, w, g, product)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_float32_is_the_product(case):
  (value, *grads), out, (x, w, g, product) = _run(case, 'float32')
  np.testing.assert_allclose(value, out, rtol=1e-5, atol=1e-5)
  for grad, like in zip(grads, (x, w), strict=True):
    assert grad.shape == like.shape
  # <g, f(x, w)> is linear in each operand: Euler's identity fixes the scale.
  np.testing.assert_allclose(np.vdot(grads[0], x), np.vdot(g, out), rtol=1e-4)
  np.testing.assert_allclose(np.vdot(grads[1], w), np.vdot(g, out), rtol=1e-4)


@pytest.mark.parametrize('case', CASES, ids=str)
def test_bfloat16_rounds_operands_and_nothing_else(case):
  (value, *grads), _, (x, w, g, _) = _run(case, 'bfloat16')
  x, w, g = (a.astype(jnp.bfloat16).astype(jnp.float32) for a in (x, w, g))
  exact = lambda x, w: matmul(  # noqa: E731
    x, w, 'float32', axes=case[2], transposed=case[3]
  )
  wanted, back = jax.vjp(exact, x, w)
  for got, want in zip((value, *grads), (wanted, *back(g)), strict=True):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_bfloat16_under_vmap_and_transposition():
  # The gradient of a table read both ways (a tied head) sums two products.
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(4, 6, 5)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(5, 5)), jnp.float32)

  def loss(w, x):
    hidden = matmul(x, w, 'bfloat16')
    return jnp.sum(jnp.sin(matmul(hidden, w, 'bfloat16', transposed=True)))

  whole = jax.jit(jax.grad(lambda w: jax.vmap(loss, (None, 0))(w, x).sum()))
  one = sum(jax.grad(loss)(w, x[i]) for i in range(4))
  # Rounded operands differ where a float32 intermediate is on a boundary.
  np.testing.assert_allclose(whole(w), one, rtol=2e-2, atol=2e-2)

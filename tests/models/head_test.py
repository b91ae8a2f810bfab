"""The chunked head: values, gradients and how much exists at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from alignment.models.head import chunked_head, named_statistics
from tests.models.trees import NAMES

R, L, D, V = 3, 10, 6, 17


def _inputs():
  rng = np.random.default_rng(1)
  hidden = rng.normal(size=(R, L, D))
  weight = rng.normal(size=(V, D))
  target = rng.integers(0, V, (R, L))
  return hidden, weight, target


def _jax_inputs():
  hidden, weight, target = _inputs()
  return (
    jnp.asarray(hidden, jnp.float32),
    jnp.asarray(weight, jnp.float32),
    jnp.asarray(target, jnp.int32),
  )


def test_statistics_against_float64():
  hidden, weight, target = _inputs()
  logits = hidden @ weight.T
  probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  wanted = {
    'token_logps': np.log(
      np.take_along_axis(probabilities, target[..., None], -1)[..., 0]
    ),
    'token_entropy': -(probabilities * np.log(probabilities)).sum(-1),
    'token_log_sum_squares': np.log((probabilities**2).sum(-1)),
  }
  got = chunked_head(*_jax_inputs(), named_statistics(NAMES), chunk=R * V * L)
  assert set(got) == set(wanted)
  for name in wanted:
    np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5, atol=1e-5)


def test_statistics_of_extreme_logits_are_finite():
  hidden = jnp.array([[[1e4], [-1e4], [0.0]]])
  weight = jnp.array([[1.0], [-1.0], [0.5]])
  target = jnp.array([[0, 0, 2]])
  run = functools.partial(chunked_head, chunk=99)

  def total(hidden):
    values = run(hidden, weight, target, named_statistics(NAMES))
    return sum(jnp.sum(value) for value in values.values()), values

  grad, values = jax.grad(total, has_aux=True)(hidden)
  np.testing.assert_allclose(values['token_logps'][0, :2], [0.0, -2e4])
  np.testing.assert_allclose(values['token_entropy'][0, 2], np.log(3), 1e-6)
  for value in (grad, *values.values()):
    assert np.isfinite(value).all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('chunk', [1, 2 * R * V, 4 * R * V, 9 * R * V])
def test_chunks_change_nothing(chunk, dtype):
  hidden, weight, target = _jax_inputs()
  cotangent = jnp.asarray(
    np.random.default_rng(5).normal(size=(3, R, L)), jnp.float32
  )

  def loss(hidden, weight, chunk):
    values = chunked_head(
      hidden,
      weight,
      target,
      named_statistics(NAMES),
      chunk=chunk,
      matmul_dtype=dtype,
    )
    return sum(jnp.sum(c * values[n]) for c, n in zip(cotangent, NAMES))  # noqa: B905

  both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
  value, grads = both(hidden, weight, chunk)
  whole_value, whole_grads = both(hidden, weight, R * V * L)
  np.testing.assert_allclose(value, whole_value, rtol=1e-5)
  for grad, whole in zip(grads, whole_grads, strict=True):
    np.testing.assert_allclose(grad, whole, rtol=1e-4, atol=1e-5)


def test_a_divergence_reads_two_models():
  hidden, weight, target = _inputs()
  rng = np.random.default_rng(2)
  other_hidden, other_weight = (
    rng.normal(size=(R, L, 4)),
    rng.normal(size=(V, 4)),
  )

  def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))

  p, q = (
    log_softmax(hidden @ weight.T),
    log_softmax(other_hidden @ other_weight.T),
  )
  wanted = (np.exp(p) * (p - q)).sum(-1)

  def divergence(logits, other, target):
    ours, theirs = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    return jnp.sum(jnp.exp(ours) * (ours - theirs), -1)

  for chunk in (3 * R * V, L * R * V):
    got = chunked_head(
      *_jax_inputs(),
      divergence,
      chunk=chunk,
      other=(
        jnp.asarray(other_hidden, jnp.float32),
        jnp.asarray(other_weight, jnp.float32),
      ),
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def _shapes(jaxpr):
  """Shapes of everything computed in a jaxpr and in the jaxprs inside it."""
  for equation in jaxpr.eqns:
    yield from (var.aval.shape for var in equation.outvars)
    for inner in jaxprs_in_params(equation.params):
      yield from _shapes(inner)


@pytest.mark.parametrize('chunk_targets', [2, 5])
def test_no_more_logits_exist_than_a_chunk(chunk_targets):
  hidden, weight, target = _jax_inputs()

  def loss(hidden, weight, chunk):
    statistic = named_statistics(NAMES)
    values = chunked_head(hidden, weight, target, statistic, chunk=chunk)
    return sum(jnp.sum(value) for value in values.values())

  def largest(chunk):
    grad = jax.grad(functools.partial(loss, chunk=chunk), argnums=(0, 1))
    jaxpr = jax.make_jaxpr(grad)(hidden, weight).jaxpr
    return max(
      np.prod(shape) for shape in _shapes(jaxpr) if shape and shape[-1] == V
    )

  assert largest(R * chunk_targets * V) == R * chunk_targets * V
  assert largest(R * L * V) == R * L * V  # the search does find the whole


def test_unknown_statistic_is_refused():
  with pytest.raises(ValueError, match="'perplexity'"):
    named_statistics(('token_logps', 'perplexity'))

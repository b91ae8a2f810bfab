"""Links: values, symmetry, and behaviour at the ends of the margin."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import links

LINKS = {
  'logistic': links.logistic,
  'shifted': partial(links.shifted, gamma=1.3),
  'squared': partial(links.squared, beta=0.2),
  'hinge': links.hinge,
  'sigmoid': links.sigmoid,
  'unhinged': links.unhinged,
  'ramp': links.ramp,
  'exo': partial(links.exo, label_smoothing=0.07),
  'discopop': partial(links.discopop, tau=0.4),
  'discopop_identity_gate': partial(links.discopop, tau=1.0),
  'gce': partial(links.gce, q=0.7),
  'gce_q_0': partial(links.gce, q=0.0),
  'gce_q_1': partial(links.gce, q=1.0),
  'truncated_gce': partial(links.truncated_gce, q=0.6, threshold=0.3),
  'sce': partial(links.sce, forward_weight=0.3, reverse_weight=2.0),
  'holder': partial(links.holder, gamma=1.7),
}
EXTREMES = np.asarray(
  [
    s * m
    for m in (0, 1e-4, 0.5, 1, 9, 40, 88, 90, 104, 800, 1e4)
    for s in (-1, 1)
  ]
)


def _value_and_gradient(link, z):
  return jax.jit(jax.vmap(jax.value_and_grad(link)))(z)


@pytest.mark.parametrize('name', LINKS)
def test_float32_is_float64_rounded_up_to_1e4(name):
  value, gradient = _value_and_gradient(
    LINKS[name], jnp.asarray(EXTREMES, jnp.float32)
  )
  assert value.dtype == gradient.dtype == jnp.float32
  with jax.enable_x64(True):
    exact = _value_and_gradient(
      LINKS[name], jnp.asarray(EXTREMES.astype(np.float32), jnp.float64)
    )
  # Float32 forms differences of numbers of order 1: 1e-6 absolute.
  for mine, theirs in zip((value, gradient), exact, strict=True):
    assert np.isfinite(mine).all()
    np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)


def test_discopop_with_a_wide_gate_is_clamped_where_it_overflows():
  z = jnp.asarray([-1e4, -300.0, -10.0])
  value, gradient = _value_and_gradient(partial(links.discopop, tau=3.0), z)
  assert np.isfinite(value).all() and np.isfinite(gradient).all()
  np.testing.assert_allclose(
    value[2], 10.0 * (1 - 1 / (1 + np.exp(10 / 3))) + np.exp(10.0) / (
      1 + np.exp(10 / 3)
    ), rtol=1e-5,
  )  # fmt: skip


@pytest.mark.parametrize(
  'link, constant',
  [(links.sigmoid, 1.0), (links.unhinged, 2.0), (links.ramp, 1.0)],
)
def test_symmetric_links_sum_to_a_constant(link, constant):
  z = jnp.linspace(-7.0, 7.0, 57)
  np.testing.assert_allclose(link(z) + link(-z), constant, rtol=1e-6)


@pytest.mark.parametrize('name', ['logistic', 'hinge', 'squared', 'exo'])
def test_other_links_do_not(name):
  z = jnp.asarray([0.0, 2.5])
  sums = LINKS[name](z) + LINKS[name](-z)
  assert abs(float(sums[1] - sums[0])) > 0.1


def test_gce_runs_from_logistic_to_sigmoid():
  z = jnp.linspace(-6.0, 6.0, 25)
  np.testing.assert_allclose(
    links.gce(z, 1e-3), links.logistic(z), rtol=4e-3, atol=1e-6
  )
  np.testing.assert_array_equal(links.gce(z, 0.0), links.logistic(z))
  np.testing.assert_allclose(links.gce(z, 1.0), links.sigmoid(z), rtol=1e-5)


def test_truncated_gce_is_gce_above_and_constant_below_the_threshold():
  z = jnp.asarray([-4.0, -1.0, -0.5, 0.0, 3.0])
  p = 1 / (1 + np.exp(-np.asarray(z, np.float64)))
  expected = (1 - np.maximum(p, 0.3) ** 0.6) / 0.6
  value, gradient = _value_and_gradient(LINKS['truncated_gce'], z)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_array_equal(gradient[:2], 0.0)
  assert (gradient[2:] < 0).all()


def test_exo_is_bounded_by_minus_log_of_the_flip_rate():
  value = links.exo(jnp.linspace(-200.0, 200.0, 401), 0.02)
  assert float(value.max()) <= -np.log(0.02) + 1e-5
  assert float(value.min()) >= -1e-6  # a KL divergence


def test_exo_is_the_kl_divergence_between_two_coins():
  p = 1 / (1 + np.exp(-1.3))
  expected = p * np.log(p / 0.8) + (1 - p) * np.log((1 - p) / 0.2)
  np.testing.assert_allclose(links.exo(jnp.float32(1.3), 0.2), expected, 1e-5)


def test_holder_near_gamma_0_is_not_the_logistic_loss():
  # (loss + 1)/gamma → −log p + p − 1; float32 leaves three digits of it.
  z = jnp.asarray([-2.0, 0.5])
  p = 1 / (1 + np.exp(-np.asarray(z, np.float64)))
  np.testing.assert_allclose(
    (links.holder(z, 1e-3) + 1) / 1e-3, -np.log(p) + p - 1, rtol=5e-3
  )


@pytest.mark.parametrize(
  'link, keywords, argument',
  [
    (links.exo, {'label_smoothing': 0.0}, 'label_smoothing'),
    (links.exo, {'label_smoothing': 0.5}, 'label_smoothing'),
    (links.discopop, {'tau': 0.0}, 'tau'),
    (links.gce, {'q': 1.5}, 'q'),
    (links.truncated_gce, {'q': 0.5, 'threshold': 1.0}, 'threshold'),
    (links.holder, {'gamma': 0.0}, 'gamma'),
  ],
)
def test_bad_values_are_refused(link, keywords, argument):
  with pytest.raises(ValueError, match=f'{argument} = .* is outside'):
    link(jnp.zeros(2), **keywords)


def test_exo_takes_a_traced_flip_rate_of_0_without_nan():
  value, gradient = jax.jit(
    jax.value_and_grad(lambda z, flip: links.exo(z, flip))
  )(jnp.float32(0.3), 0.0)
  assert np.isfinite(value) and np.isfinite(gradient)

"""Label corrections: what they promise in expectation over flips."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import corrections, links

LINKS = {
  'logistic': links.logistic,
  'shifted': partial(links.shifted, gamma=0.8),
  'squared': partial(links.squared, beta=0.3),
  'hinge': links.hinge,
  'sigmoid': links.sigmoid,
  'gce': partial(links.gce, q=0.5),
}


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture
def z():
  return np.random.default_rng(3).normal(scale=3.0, size=17)


@pytest.fixture
def flip():
  return np.random.default_rng(4).uniform(0.0, 0.45, size=17)


@pytest.mark.parametrize('name', LINKS)
def test_backward_is_unbiased_over_flips_for_any_link(name, z, flip):
  link = LINKS[name]
  corrected = partial(corrections.backward, link, label_smoothing=flip)
  expected = (1 - flip) * corrected(z) + flip * corrected(-z)
  np.testing.assert_allclose(expected, link(z), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('name', LINKS)
def test_backward_is_the_inverse_transition_applied_to_the_losses(
  name, z, flip
):
  link = LINKS[name]
  mine = corrections.backward(link, z, flip)
  for i in range(len(z)):
    transition = [[1 - flip[i], flip[i]], [flip[i], 1 - flip[i]]]
    losses = np.asarray([link(z[i]), link(-z[i])])
    np.testing.assert_allclose(
      mine[i], np.linalg.solve(transition, losses)[0], rtol=1e-9
    )


def test_backward_of_the_link_with_a_target_needs_the_shift_in_the_link(z):
  """With the shift in the argument the same recipe is biased."""
  flip = 0.2
  shifted = partial(links.shifted, gamma=0.8)
  inside = lambda x: corrections.backward(links.logistic, x - 0.8, flip)  # noqa: E731
  right = (1 - flip) * corrections.backward(shifted, z, flip)
  right += flip * corrections.backward(shifted, -z, flip)
  # The naive form flips the label by x − 0.8 → −(x − 0.8).
  wrong = (1 - flip) * inside(z) + flip * inside(-z)
  np.testing.assert_allclose(right, shifted(z), rtol=1e-10)
  assert np.max(np.abs(wrong - shifted(z))) > 0.05


def test_variance_of_the_backward_logistic_loss_over_flips(z):
  flip = 0.3
  kept = corrections.backward(links.logistic, z, flip)
  flipped = corrections.backward(links.logistic, -z, flip)
  mean = (1 - flip) * kept + flip * flipped
  variance = (1 - flip) * (kept - mean) ** 2 + flip * (flipped - mean) ** 2
  np.testing.assert_allclose(
    variance, flip * (1 - flip) * z**2 / (1 - 2 * flip) ** 2, rtol=1e-9
  )


def test_backward_squared_is_squared_with_a_larger_target(z):
  flip, beta = 0.2, 0.3
  h = z / beta
  robust = corrections.backward(
    partial(links.squared, beta=beta), beta * h, flip
  )
  target = 1 / (2 * beta * (1 - 2 * flip))
  difference = np.asarray(robust - (h - target) ** 2)
  np.testing.assert_allclose(difference, difference[0], atol=1e-9)


@pytest.mark.parametrize('name', LINKS)
def test_conservative_is_the_expected_loss_of_a_flipped_label(name, z, flip):
  link = LINKS[name]
  np.testing.assert_allclose(
    corrections.conservative(link, z, flip),
    corrections.soft_label(link, z, 1 - flip),
    rtol=1e-12,
  )


def test_conservative_is_stationary_at_the_smoothed_label():
  flip = 0.15
  at = np.log((1 - flip) / flip)
  slope = jax.grad(lambda x: corrections.conservative(links.logistic, x, flip))(
    at
  )
  np.testing.assert_allclose(slope, 0.0, atol=1e-12)


@pytest.mark.parametrize('link', [links.sigmoid, links.unhinged, links.ramp])
def test_flips_only_rescale_a_symmetric_link(link, z):
  flip = 0.3
  constant = float(link(jnp.float64(0.0)) * 2)
  np.testing.assert_allclose(
    corrections.conservative(link, z, flip),
    (1 - 2 * flip) * link(z) + flip * constant,
    rtol=1e-10,
  )


def test_forward_is_the_negative_log_of_the_mixed_probability(z, flip):
  p = 1 / (1 + np.exp(-z))
  np.testing.assert_allclose(
    corrections.forward(links.logistic, z, flip),
    -np.log((1 - flip) * p + flip * (1 - p)),
    rtol=1e-10,
  )


def test_forward_gradient_is_the_em_gradient(z, flip):
  p = 1 / (1 + np.exp(-z))
  posterior = (1 - flip) * p / ((1 - flip) * p + flip * (1 - p))
  gradient = jax.vmap(
    jax.grad(lambda x, e: corrections.forward(links.logistic, x, e))
  )(z, flip)
  np.testing.assert_allclose(gradient, p - posterior, rtol=1e-8, atol=1e-14)


def test_forward_without_flips_is_logistic_at_any_margin():
  z = jnp.asarray([-1e4, -50.0, 0.3, 1e4], jnp.float32)
  forward = partial(
    corrections.forward, links.logistic, label_smoothing=jnp.float32(0.0)
  )
  np.testing.assert_array_equal(forward(z), links.logistic(z))
  gradient = jax.grad(lambda x: jnp.sum(forward(x)))(z)
  # One rounding of float32 apart.
  np.testing.assert_allclose(
    gradient, jax.grad(lambda x: jnp.sum(links.logistic(x)))(z), rtol=1e-6
  )


def test_forward_is_bounded_and_learns_the_flip_rate():
  z = jnp.asarray([-600.0, -30.0, 2.0])
  assert (corrections.forward(links.logistic, z, 0.1) <= -np.log(0.1)).all()
  slope = jax.vmap(
    jax.grad(lambda e, x: corrections.forward(links.logistic, x, e)), (None, 0)
  )(0.1, z)
  p = 1 / (1 + np.exp(-np.asarray(z)))
  np.testing.assert_allclose(slope, -(1 - 2 * p) / (0.9 * p + 0.1 * (1 - p)))


@pytest.mark.parametrize('link', [links.hinge, links.sigmoid, LINKS['squared']])
def test_forward_is_refused_for_other_links(link):
  with pytest.raises(ValueError, match='defined for logistic only'):
    corrections.forward(link, jnp.zeros(2), 0.1)


@pytest.mark.parametrize('name', ['conservative', 'backward', 'forward'])
@pytest.mark.parametrize('value', [0.5, -0.01, 0.9, np.asarray([0.1, 0.5])])
def test_flip_rates_outside_the_half_open_interval_are_refused(name, value):
  with pytest.raises(
    ValueError, match=r'label_smoothing = .* is outside \[0, 0.5\)'
  ):
    corrections.CORRECTIONS[name](links.logistic, jnp.zeros(2), value)


def test_label_probabilities_are_checked():
  with pytest.raises(ValueError, match=r'label_prob = 1.2 is outside \[0, 1\]'):
    corrections.soft_label(links.logistic, jnp.zeros(2), 1.2)

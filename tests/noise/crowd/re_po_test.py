"""Reliabilities from the pair probabilities of a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit

from alignment.losses import corrections, links
from alignment.noise.crowd.re_po import (
  fixed_point,
  label_weights,
  update_reliability,
)


def test_weights_by_bayes():
  p, eta = np.array([0.9, 0.2, 0.3]), np.array([0.8, 0.6, 0.7])
  want = p * eta / (p * eta + (1 - p) * (1 - eta))
  np.testing.assert_allclose(label_weights(p, eta), want, rtol=1e-6)
  np.testing.assert_allclose(label_weights(1 - eta, eta), 0.5, rtol=1e-6)
  with pytest.raises(ValueError, match='win_probs'):
    label_weights(np.array([1.2]), 0.9)
  with pytest.raises(ValueError, match='reliability'):
    label_weights(p, 1.0)


def test_the_gradient_is_that_of_the_forward_correction():
  z, eta = jnp.array([-2.0, -0.3, 0.4, 3.0]), 0.8

  def weighted(z):
    w = jax.lax.stop_gradient(label_weights(jax.nn.sigmoid(z), eta))
    return jnp.sum(w * links.logistic(z) + (1 - w) * links.logistic(-z))

  def forward(z):
    return jnp.sum(corrections.forward(links.logistic, z, 1 - eta))

  np.testing.assert_allclose(
    jax.grad(weighted)(z), jax.grad(forward)(z), rtol=1e-5, atol=1e-6
  )


def test_a_batch_moves_only_its_annotators():
  found = update_reliability(
    jnp.array([0.9, 0.9, 0.9]),
    jnp.array([0.2, 0.6, 0.9, 0.0]),
    jnp.array([2, 2, 0, -1]),
    rate=0.1,
  )
  np.testing.assert_allclose(found, [0.9, 0.9, 0.9 - 0.05], rtol=1e-6)


def test_the_fixed_point_is_the_likeliest_reliability():
  rng = np.random.default_rng(0)
  p = expit(rng.normal(0.5, 2, 400))
  who = rng.integers(0, 3, 400)
  eta, weights = map(np.asarray, fixed_point(p, who, 4))
  for a in range(3):
    mine = p[who == a]

    def loss(x, mine=mine):
      return -np.sum(np.log(mine * x + (1 - mine) * (1 - x)))

    best = optimize.minimize_scalar(loss, bounds=(1e-6, 1 - 1e-6)).x
    # Float32, and stops where a step is below 1e-6: slow EM leaves more.
    assert eta[a] == pytest.approx(best, abs=2e-3)
    assert np.mean(weights[who == a]) == pytest.approx(eta[a], abs=1e-4)
  assert eta[3] == 0.5


def test_reliabilities_of_calibrated_probabilities():
  """3 x 4,000 pairs; P is exact before the annotator flips: error .01."""
  rng = np.random.default_rng(1)
  p_first = expit(rng.normal(0, 3, 12_000))
  truth = rng.random(12_000) < p_first
  who = rng.integers(0, 3, 12_000)
  skill = np.array([0.95, 0.8, 0.6])
  label = truth == (rng.random(12_000) < skill[who])
  eta, _ = fixed_point(np.where(label, p_first, 1 - p_first), who, 3)
  np.testing.assert_allclose(eta, skill, atol=0.04)


def test_unknown_annotators_count_for_nobody():
  p = np.array([0.9, 0.8, 0.1])
  eta, weights = fixed_point(p, np.array([0, 0, -1]), 1)
  alone, _ = fixed_point(p[:2], np.array([0, 0]), 1)
  np.testing.assert_allclose(eta, alone, rtol=1e-6)
  np.testing.assert_allclose(weights[2], 0.1, rtol=1e-6)

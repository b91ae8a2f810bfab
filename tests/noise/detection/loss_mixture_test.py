"""Two-component mixtures of losses, against simulated truth and by hand."""

import numpy as np
import pytest
from scipy import stats

from alignment.noise.detection.loss_mixture import (
  beta_mixture,
  gaussian_mixture,
)


def two_kinds(rng, rows=3000, share=0.25):
  wrong = rng.random(rows) < share
  losses = np.where(wrong, rng.normal(3, 0.5, rows), rng.normal(1, 0.3, rows))
  return losses, wrong


def test_normal_components_are_found():
  """Standard errors of means and shares are about .01 at 3000 rows."""
  losses, wrong = two_kinds(np.random.default_rng(0))
  fit = gaussian_mixture(losses, max_iterations=200, tolerance=1e-9)
  low, span = losses.min(), np.ptp(losses)
  np.testing.assert_allclose(low + span * fit.means, [1, 3], atol=0.05)
  np.testing.assert_allclose(fit.shares, [0.75, 0.25], atol=0.03)
  # The floor of 5e-4 is part of the variances.
  spread = span * np.sqrt(fit.variances - 5e-4)
  np.testing.assert_allclose(spread, [0.3, 0.5], atol=0.05)
  assert np.mean((fit.clean < 0.5) != wrong) < 0.01


def test_posterior_is_bayes_of_the_components_reported():
  losses, _ = two_kinds(np.random.default_rng(1), 200)
  x = (losses - losses.min()) / np.ptp(losses)
  fit = gaussian_mixture(losses)
  joint = fit.shares * stats.norm.pdf(
    x[:, None], fit.means, np.sqrt(fit.variances)
  )
  np.testing.assert_allclose(fit.clean, joint[:, 0] / joint.sum(1), rtol=1e-9)


def test_beta_components_are_found():
  rng = np.random.default_rng(2)
  wrong = rng.random(5000) < 0.3
  losses = np.where(wrong, rng.beta(8, 2, 5000), rng.beta(2, 10, 5000))
  fit = beta_mixture(losses, max_iterations=300, tolerance=1e-10)
  np.testing.assert_allclose(fit.shares, [0.7, 0.3], atol=0.03)
  # Scaling to the range moves the means a little: the ends are .002 and .99.
  np.testing.assert_allclose(fit.means, [1 / 6, 0.8], atol=0.02)
  assert np.mean((fit.clean < 0.5) != wrong) < 0.03


@pytest.mark.parametrize('mixture', [gaussian_mixture, beta_mixture])
def test_order_and_scale_of_the_losses_play_no_part(mixture):
  losses, _ = two_kinds(np.random.default_rng(3), 300)
  order = np.random.default_rng(4).permutation(300)
  fit, moved = mixture(losses), mixture(7 * losses[order] - 2)
  np.testing.assert_allclose(
    moved.clean, fit.clean[order], rtol=1e-6, atol=1e-9
  )
  assert np.all(np.diff(fit.means) > 0)


@pytest.mark.parametrize('mixture', [gaussian_mixture, beta_mixture])
def test_edges(mixture):
  assert np.all(mixture(np.full(5, 2.0)).clean == 1)
  two = mixture(np.array([0.0, 1.0]))
  assert two.clean[0] > 0.99 > 0.01 > two.clean[1]
  for bad in (np.array([1.0]), np.array([1.0, np.nan])):
    with pytest.raises(ValueError, match='losses'):
      mixture(bad)

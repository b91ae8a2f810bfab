"""Sharpness: recovered where it is known, 0 where there is nothing to know."""

import numpy as np
import pytest
from scipy import optimize, special

from alignment.noise.detection.temperature import sharpen, sharpness


def drawn(rng, rows, classes, true_sharpness, rate=0.0):
  """Probabilities that are wrong by a power, and labels flipped at a rate."""
  probs = special.softmax(rng.normal(0, 1.5, (rows, classes)), axis=1)
  right = probs**true_sharpness
  right /= right.sum(axis=1, keepdims=True)
  label = np.array([rng.choice(classes, p=p) for p in right])
  flips = rng.random(rows) < rate
  other = (label + rng.integers(1, classes, rows)) % classes
  return probs, np.where(flips, other, label)


@pytest.mark.parametrize(
  ('classes', 'truth', 'rate'),
  [(2, 0.4, 0.0), (3, 2.5, 0.0), (2, 1.5, 0.3), (4, 1.5, 0.4)],
)
def test_the_power_is_recovered(classes, truth, rate):
  rng = np.random.default_rng(classes)
  probs, label = drawn(rng, 6000, classes, truth, rate)
  found = sharpness(probs, np.eye(classes)[label], rate)
  # The standard error is about 4 % at no flips, 8 % at .3-.4.
  assert found == pytest.approx(truth, rel=0.2)
  if rate:
    plain = sharpness(probs, np.eye(classes)[label])
    assert plain < 0.75 * found


def test_it_is_the_optimum_for_shares_too():
  rng = np.random.default_rng(7)
  probs = rng.dirichlet(np.ones(3), 80)
  shares = rng.dirichlet(np.ones(3), 80)

  def cost(s):
    return -np.sum(shares * special.log_softmax(s * np.log(probs), axis=1))

  shares[:40] = probs[:40]
  best = optimize.minimize_scalar(cost, bounds=(0, 5), method='bounded').x
  assert 0.1 < best < 2
  assert sharpness(probs, shares) == pytest.approx(best, abs=1e-5)


def test_its_scale_follows_the_model():
  rng = np.random.default_rng(8)
  probs, label = drawn(rng, 500, 2, 1.0)
  flat = probs**0.001
  flat /= flat.sum(axis=1, keepdims=True)
  found = sharpness(flat, np.eye(2)[label])
  assert found == pytest.approx(
    1000 * sharpness(probs, np.eye(2)[label]), rel=1e-3
  )


def test_a_model_that_is_wrong_or_even_gets_zero():
  rng = np.random.default_rng(9)
  probs, label = drawn(rng, 500, 2, 1.0)
  assert sharpness(probs, np.eye(2)[1 - label]) == 0
  assert sharpness(np.full((4, 2), 0.5), np.eye(2)[[0, 1, 1, 0]]) == 0


def test_sharpen():
  probs = np.array([[0.9, 0.1], [1.0, 0.0]])
  np.testing.assert_allclose(sharpen(probs, 1.0), probs, atol=1e-7)
  np.testing.assert_allclose(sharpen(probs, 0.0), 0.5)
  np.testing.assert_allclose(sharpen(probs, 2.0)[0], [81 / 82, 1 / 82])

"""Complements and composed rates."""

import jax
import numpy as np
import pytest

from alignment.noise.corruption.catalogue import symmetric
from alignment.noise.labels import (
  complement,
  effective_flip_rate,
  noise_metrics,
  says_something,
)


def _noisy(flip_rate, seed=0, size=4000):
  clean = np.random.default_rng(seed).random(size) < 0.3
  return clean, symmetric(
    jax.random.key(seed), clean, index=np.arange(size), flip_rate=flip_rate
  )


def test_complement_turns_everything_and_undoes_itself():
  clean, labels = _noisy(0.3)
  other = complement(labels)
  np.testing.assert_array_equal(other.label, ~labels.label)
  np.testing.assert_array_equal(other.label ^ other.is_flipped, clean)
  np.testing.assert_allclose(other.flip_rate, 0.7, rtol=1e-6)
  again = complement(other)
  np.testing.assert_array_equal(again.label, labels.label)


def test_at_half_the_two_mirror_each_other():
  """Any statistic linear in ±label: the two halves cancel exactly."""
  clean, labels = _noisy(0.5)
  sign = np.where(clean, 1, -1)
  score = sign * np.where(labels.label, 1, -1)
  mirrored = sign * np.where(complement(labels).label, 1, -1)
  assert np.sum(score + mirrored) == 0
  # Neither knows the truth: four standard deviations of 4,000 coins.
  assert abs(score.mean()) < 4 / np.sqrt(4000)


def test_effective_rate_is_that_of_two_flips_in_a_row():
  clean, once = _noisy(0.2, size=40_000)
  twice = symmetric(
    jax.random.key(99), once.label, index=np.arange(40_000), flip_rate=0.3
  )
  expected = effective_flip_rate(0.2, 0.3)
  assert expected == pytest.approx(0.2 * 0.7 + 0.3 * 0.8)
  # Four standard deviations of 40,000 draws.
  assert np.mean(twice.label != clean) == pytest.approx(expected, abs=0.0098)


def test_effective_rate_of_means_falls_short_by_twice_the_covariance():
  rng = np.random.default_rng(0)
  first, second = rng.random((2, 100))
  mean = effective_flip_rate(first, second).mean()
  of_means = effective_flip_rate(first.mean(), second.mean())
  covariance = np.mean(first * second) - first.mean() * second.mean()
  assert mean == pytest.approx(of_means - 2 * covariance)
  np.testing.assert_allclose(effective_flip_rate(first, 0.5), 0.5)


def test_effective_rate_refuses():
  with pytest.raises(ValueError, match='second=1.5'):
    effective_flip_rate(0.1, 1.5)


def test_metrics_report_what_happened():
  _, labels = _noisy(0.25)
  metrics = noise_metrics(labels)
  assert float(metrics['noise/expected_rate'].mean()) == pytest.approx(0.25)
  realised = float(metrics['noise/realised_rate'].mean())
  assert realised == pytest.approx(labels.is_flipped.mean(), rel=1e-6)
  assert realised != 0.25


def test_a_complement_keeps_ties_and_skips():
  _, noisy = _noisy(0.2, size=4)
  unsure = noisy.replace(
    label_prob=np.array([1, 0.5, 1, 0.5]), weight=np.array([1, 1, 0, 0])
  )
  turned = complement(unsure)
  np.testing.assert_array_equal(turned.label, ~unsure.label)
  np.testing.assert_array_equal(turned.label_prob, unsure.label_prob)
  np.testing.assert_array_equal(
    says_something(turned), [True, False, False, False]
  )
  found = noise_metrics(unsure)['noise/realised_rate']
  assert float(found.weight) == 1 and float(found.total) == noisy.is_flipped[0]

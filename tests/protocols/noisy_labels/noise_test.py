"""Noise on grades: its rate, its shape, who is hit."""

import jax
import numpy as np
import pytest

from alignment.protocols.noisy_labels import world
from alignment.protocols.noisy_labels.noise import (
  NOISE,
  realised_transition,
  uneven_matrix,
)

PART = world.graded_ballots(1, world.Sizes(3000, 50, 50), 4).train


def _draw(name, rate=0.3, seed=0):
  return NOISE[name](jax.random.key(seed), PART, 4, rate)


@pytest.mark.parametrize('rate', [0.1, 0.4])
@pytest.mark.parametrize('name', NOISE)
def test_the_mean_rate_is_as_asked(name, rate):
  noisy = _draw(name, rate)
  # Exact counts round by class; the other is binomial, ±3 deviations.
  slack = 0.003 if name != 'instance_dependent' else 3 * (0.25 / 3000) ** 0.5
  assert abs(noisy.is_flipped.mean() - rate) < slack
  np.testing.assert_allclose(np.mean(noisy.flip_rate), rate, atol=0.003)
  np.testing.assert_array_equal(noisy.is_flipped, noisy.label != PART.label)


def test_shapes_of_the_transitions():
  found = {
    name: realised_transition(PART.label, _draw(name).label, 4)
    for name in NOISE
  }
  off = ~np.eye(4, dtype=bool)
  np.testing.assert_allclose(found['symmetric'][off], 0.1, atol=0.003)
  pair = found['pair_flip']
  np.testing.assert_allclose(pair[np.arange(4), [1, 2, 3, 0]], 0.3, atol=0.003)
  errors = 1 - np.diag(found['class_conditional'])
  np.testing.assert_allclose(errors / errors[3], [4, 3, 2, 1], rtol=0.05)
  far = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) > 1
  assert found['instance_dependent'][far].max() == 0.0


def test_instance_dependent_noise_hits_close_cases():
  noisy = _draw('instance_dependent')
  distance = PART.distance
  assert distance[noisy.is_flipped].mean() < 0.8 * distance.mean()
  assert np.all(noisy.flip_rate <= 0.5)
  order = np.argsort(distance)
  assert np.all(np.diff(noisy.flip_rate[order]) <= 1e-7)
  flipped = noisy.is_flipped
  np.testing.assert_array_equal(noisy.label[flipped], PART.neighbour[flipped])


def test_noise_that_needs_a_boundary_is_refused_without_one():
  bare = world.Part(PART.features, PART.label, PART.group)
  with pytest.raises(ValueError, match='only the embedded task knows'):
    NOISE['instance_dependent'](jax.random.key(0), bare, 4, 0.2)


def test_the_uneven_matrix_has_the_mean_error_asked_for():
  matrix = uneven_matrix(5, 0.3)
  np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
  np.testing.assert_allclose(1 - np.diag(matrix).mean(), 0.3)
  assert np.all(np.diff(np.diag(matrix)) > 0)


def test_an_absent_class_stays_itself():
  found = realised_transition(np.asarray([0, 0]), np.asarray([0, 1]), 3)
  np.testing.assert_array_equal(found, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])

"""Scenarios label, divide and fit as they say; and tuning cannot always win."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse, special

from alignment.losses.preference import METHODS
from alignment.metrics.preference import accuracy
from alignment.protocols import noise_scenarios
from alignment.protocols.noise_scenarios import (
  ARMS,
  NEED_RATE,
  Scenario,
  fit_arm,
  label,
  play,
  reduce_features,
)
from tests.protocols.penalisers import penalised_pairs


def scenario(**about):
  given = {
    'noise': 'symmetric',
    'flip_rate': 0.2,
    'preference': 'argmax',
    'size': 200,
  }
  return Scenario(**given | about)


def test_arms_are_preference_losses_and_their_defaults():
  """The same number as the loss of that name, of log-probabilities."""
  h = np.linspace(-4, 4, 9)
  zero = jnp.zeros(9)
  for name, link in ARMS.items():
    method = METHODS[name]
    given = {'beta': 1.0}
    if 'label_smoothing' in inspect.signature(method).parameters:
      assert name in NEED_RATE
      given['label_smoothing'] = 0.15
    expected = method(jnp.asarray(h), zero, zero, zero, **given)
    np.testing.assert_allclose(link(h, 0.15), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('noise', noise_scenarios.KINDS)
def test_labels_flip_at_the_rate(noise):
  rng = np.random.default_rng(0)
  margin = rng.normal(0, 2, 6000)
  longer = rng.standard_normal(6000)
  labels = label(rng, scenario(noise=noise), margin, longer)
  flipped = labels != np.sign(margin)
  # Annotators are 20: their realised mean varies with who judged how often.
  assert flipped.mean() == pytest.approx(0.2, abs=0.025)
  if noise == 'length_biased':
    assert np.all(labels[flipped] == np.sign(longer[flipped]))
  if noise == 'margin_dependent':
    close = np.abs(margin) < 1
    assert flipped[close].mean() > 2 * flipped[~close].mean()


def test_bradley_terry_labels_are_drawn_before_they_flip():
  rng = np.random.default_rng(1)
  margin = np.full(20_000, 1.0)
  labels = label(rng, scenario(preference='bt', flip_rate=0.1), margin, None)
  expected = 0.1 + 0.8 * special.expit(1.0)
  assert np.mean(labels > 0) == pytest.approx(expected, abs=0.015)


def test_a_length_bias_flips_no_more_than_it_can():
  rng = np.random.default_rng(2)
  margin = rng.standard_normal(500)
  # The longer one is better but for few: most flips asked for are impossible.
  longer = np.where(rng.random(500) < 0.05, -1, 1) * np.sign(margin)
  labels = label(
    rng, scenario(noise='length_biased', flip_rate=0.4), margin, longer
  )
  np.testing.assert_array_equal(labels, longer)


@pytest.mark.parametrize('arm', ['forward', 'gce', 'sympo', 'holder_dpo'])
def test_a_bounded_loss_wins_where_tuning_cannot(arm):
  """Two parameters and penalisers: the plain fit puts half of the pairs on the
  wrong side at every l2, whatever is selected."""
  rng = np.random.default_rng(3)
  x, _, labels = penalised_pairs(rng, 2000, 0.2)
  seen, _, votes = penalised_pairs(rng, 500, 0.2)
  test, truth, _ = penalised_pairs(rng, 1000, 0.0)

  def score(arm):
    return accuracy(
      truth * (test @ fit_arm(arm, x, labels, (seen, votes), 0.2))
    )

  assert score('dpo') < 0.6
  assert score(arm) > 0.95


def test_plain_training_recovers_an_easy_truth():
  rng = np.random.default_rng(4)
  features = rng.standard_normal((1500, 4))
  margin = features @ np.array([1.0, -2.0, 0.5, 0.0])
  scores = play(
    rng,
    scenario(flip_rate=0.1, size=600),
    features,
    margin,
    np.arange(1500),
    list(ARMS),
    assumed=0.1,
  )
  assert np.all(scores > 0.9) and scores.shape == (len(ARMS),)


def test_hidden_features_cannot_be_used():
  rng = np.random.default_rng(5)
  features = rng.standard_normal((1500, 4))
  # All that matters is in the last two columns.
  margin = features @ np.array([0.0, 0.0, 2.0, -1.0])
  scores = play(
    rng,
    scenario(visible=0.5, size=500),
    features,
    margin,
    np.arange(1500),
    ['dpo'],
    assumed=0.2,
  )
  assert abs(scores[0] - 0.5) < 0.08


def test_parts_share_no_group():
  rng = np.random.default_rng(6)
  group = rng.integers(0, 30, 900)
  train, validation, test = noise_scenarios._divide(rng, group, 300)
  assert len(train) == 300 and len(validation) == 75 and len(test) >= 100
  parts = [set(group[part]) for part in (train, validation, test)]
  assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]
  with pytest.raises(ValueError, match='2 groups'):
    noise_scenarios._divide(rng, np.arange(900) % 2, 300)


@pytest.mark.parametrize('width', [3, 50])
def test_reduced_features_keep_the_leading_directions(width):
  rng = np.random.default_rng(7)
  dense = rng.standard_normal((200, width)) * np.linspace(2, 0.1, width)
  found = reduce_features(sparse.csr_array(dense), 6)
  assert found.shape == (200, min(width, 6))
  left, sizes, _ = np.linalg.svd(dense, full_matrices=False)
  expected = (left * sizes)[:, :6]
  expected /= np.sqrt(np.mean(expected[:, 0] ** 2))
  np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)

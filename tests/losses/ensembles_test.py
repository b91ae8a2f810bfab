"""Committees of reward models, and the strength of a label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.ensembles import (
  ENSEMBLES,
  Strength,
  centred,
  label_strength,
  weakest,
)

_RNG = np.random.default_rng(3)
REWARDS = _RNG.normal(scale=2.0, size=(4, 3, 7))


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _numpy(name, rewards, penalty):
  average = sum(rewards) / len(rewards)
  variance = sum((r - average) ** 2 for r in rewards) / len(rewards)
  return {
    'mean': average,
    'worst': np.sort(rewards, axis=0)[0],
    'mean_minus_std': average - penalty * variance**0.5,
    'mean_minus_variance': average - penalty * variance,
  }[name]


@pytest.mark.parametrize('name', ENSEMBLES)
def test_equation(name):
  hyper = {'penalty': 0.7} if 'minus' in name else {}
  np.testing.assert_allclose(
    ENSEMBLES[name](REWARDS, **hyper), _numpy(name, REWARDS, 0.7), rtol=1e-12
  )


@pytest.mark.parametrize('name', ENSEMBLES)
def test_a_committee_that_agrees_is_its_member_with_a_finite_gradient(name):
  same = jnp.broadcast_to(REWARDS[0], REWARDS.shape)
  np.testing.assert_allclose(ENSEMBLES[name](same), REWARDS[0], rtol=1e-12)
  pull = jax.grad(lambda r: jnp.sum(ENSEMBLES[name](r)))(same)
  np.testing.assert_allclose(pull.sum(axis=0), 1.0, rtol=1e-9)


@pytest.mark.parametrize('name', ENSEMBLES)
def test_centring_takes_away_what_comparisons_leave_free(name):
  """A constant per member and prompt changes no member's comparisons."""
  free = _RNG.normal(scale=5.0, size=(4, 3, 1))
  np.testing.assert_allclose(
    ENSEMBLES[name](centred(REWARDS + free)),
    ENSEMBLES[name](centred(REWARDS)),
    atol=1e-12,
  )
  differences = np.diff(ENSEMBLES[name](REWARDS + free), axis=-1)
  apart = np.abs(differences - np.diff(ENSEMBLES[name](REWARDS), axis=-1))
  # Only the mean does not care; the others may rank otherwise without it.
  assert (apart.max() > 0.1) == (name != 'mean')


def test_a_negative_penalty_is_refused():
  for name in ('mean_minus_std', 'mean_minus_variance'):
    with pytest.raises(ValueError, match='penalty = -1 is outside'):
      ENSEMBLES[name](REWARDS, penalty=-1.0)


def test_strength_counts_only_models_that_did_not_see_the_pair():
  margins = _RNG.normal(size=(5, 8))
  has_seen = _RNG.random((5, 8)) < 0.5
  has_seen[2] = False
  poisoned = np.where(has_seen, np.nan, margins)
  found = label_strength(poisoned, has_seen)
  for b in range(8):
    own = margins[~has_seen[:, b], b]
    np.testing.assert_allclose(found.mean[b], np.mean(own))
    np.testing.assert_allclose(found.std[b], np.std(own), atol=1e-12)
    assert found.count[b] == own.size


def test_a_pair_that_every_model_saw_is_refused():
  has_seen = np.zeros((3, 4), bool)
  has_seen[:, 2] = True
  with pytest.raises(ValueError, match='pair 2 must be left out'):
    label_strength(np.ones((3, 4)), has_seen)
  with pytest.raises(ValueError, match='both must be'):
    label_strength(np.ones((3, 4)), has_seen[:2])
  with pytest.raises(ValueError, match='finite'):
    label_strength(np.full((3, 4), np.inf), np.zeros((3, 4), bool))


def test_weakest_takes_the_lowest_share_below_zero():
  mean = np.asarray([0.3, -2.0, 1.0, -0.1, -0.7, 4.0, 0.0])
  strength = Strength(mean, np.ones(7), np.full(7, 3))
  flips = lambda share: np.flatnonzero(weakest(strength, share)).tolist()  # noqa: E731
  assert flips(0.0) == []
  assert flips(0.29) == [1, 4]
  assert flips(1.0) == [1, 3, 4]
  with pytest.raises(ValueError, match='share'):
    weakest(strength, 1.5)

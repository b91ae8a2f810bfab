"""Fits against float64 by hand, cross-fitting, repairs, selection."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize

from alignment.metrics.auroc import auroc
from alignment.metrics.preference import best_temperature_nll
from alignment.protocols.reward.arms import CONTROLS, Arm
from alignment.protocols.reward.cells import cells_of
from alignment.protocols.reward.fitting import TREATMENTS, fit_arm
from tests.protocols.reward.worlds import TRUTH, task, world

WORLD = world()


def _minimised(loss, start=None):
  """Weights that minimise a float64 function of them, by another method."""
  start = np.zeros(len(TRUTH)) if start is None else start
  return scipy.optimize.minimize(loss, start, method='BFGS', tol=1e-9).x


def _softplus(x):
  return np.logaddexp(0, x)


def test_every_penalty_is_fitted_in_the_order_given():
  own = task(WORLD, 0.2)
  found = own.fit('backward', label_smoothing=0.2)
  h = own.sign[:, None] * own.world.train.differences.toarray()
  for weights, l2 in zip(found, own.l2, strict=True):

    def loss(w, l2=l2):
      z = h @ w
      kept, swapped = _softplus(-z), _softplus(z)
      return np.mean((0.8 * kept - 0.2 * swapped) / 0.6) + l2 / 2 * w @ w

    np.testing.assert_allclose(weights, _minimised(loss), atol=2e-4)


def test_centring_counts_the_sum_of_both_rewards():
  own = task(WORLD, 0.2, centring=0.7)
  found = TREATMENTS['centred'](Arm('x', 'centred'), own)
  train = own.world.train
  h = own.sign[:, None] * train.differences.toarray()
  both = train.sums.toarray()
  for weights, l2 in zip(found, own.l2, strict=True):

    def loss(w, l2=l2):
      square = 0.7 * np.mean((both @ w) ** 2)
      return np.mean(_softplus(-h @ w)) + square + l2 / 2 * w @ w

    np.testing.assert_allclose(weights, _minimised(loss), atol=2e-4)


def test_unflipped_is_a_fit_to_the_right_labels_alone():
  own = task(WORLD, 0.3)
  found = TREATMENTS['unflipped'](CONTROLS[1], own)
  right = own.labels['train'] == own.world.train.first_is_better
  h = own.sign[:, None] * own.world.train.differences.toarray()

  def loss(w):
    return np.mean(_softplus(-(h @ w)[right])) + own.l2[0] / 2 * w @ w

  np.testing.assert_allclose(found[0], _minimised(loss), atol=2e-4)


def test_clean_does_not_look_at_the_noisy_labels():
  fits = [fit_arm(CONTROLS[0], task(WORLD, rate)) for rate in (0.1, 0.45)]
  np.testing.assert_array_equal(fits[0].weights, fits[1].weights)
  assert fits[0].noisy_nll == fits[1].noisy_nll


# --- Committees --------------------------------------------------------------


def test_members_have_complementary_halves_of_the_clusters():
  own = task(WORLD, 0.2)
  has_seen, cluster = own.committee.has_seen, own.world.train.cluster
  assert own.committee.paths.shape == (3, 6, len(TRUTH))
  np.testing.assert_array_equal(has_seen[::2], ~has_seen[1::2])
  for seen in has_seen:
    of_cluster = [set(seen[cluster == c]) for c in range(30)]
    assert all(len(values) == 1 for values in of_cluster)
    assert seen.mean() == 0.5
  assert len(np.unique(has_seen, axis=0)) == 6


def test_no_member_judges_what_it_was_trained_on():
  """Turning all labels of a cluster moves only those who have it."""
  own = task(WORLD, 0.2)
  turned = own.world.train.cluster == 7
  labels = {**own.labels, 'train': own.labels['train'] ^ turned}
  other = dataclasses.replace(own, labels=labels)
  moved = np.any(own.committee.paths != other.committee.paths, axis=(0, 2))
  has_it = own.committee.has_seen[:, turned].any(axis=1)
  np.testing.assert_array_equal(moved, has_it)
  assert has_it.sum() == 3
  assert (own.strength.count == 3).all()


def test_one_cluster_has_no_halves():
  alone = task(world(num_clusters=1, per_cluster=40), 0.2)
  with pytest.raises(ValueError, match='two prompts or more'):
    _ = alone.committee


def test_strength_finds_flips_that_its_own_training_would_hide():
  own = task(WORLD, 0.2)
  wrong = own.labels['train'] != own.world.train.first_is_better
  assert auroc(-own.strength.mean, wrong) > 0.9


def test_flip_turns_the_weakest_and_helps_where_they_are_known():
  own = task(WORLD, 0.3)
  repaired = TREATMENTS['flip'](Arm('x', 'flip', assumed=0.3), own)
  as_is = own.fit()
  np.testing.assert_array_equal(
    TREATMENTS['flip'](Arm('x', 'flip', assumed=0.0), own), as_is
  )

  def angle(w):
    return w @ TRUTH / np.linalg.norm(w) / np.linalg.norm(TRUTH)

  assert angle(repaired[0]) > angle(as_is[0])


@pytest.mark.parametrize('name', ['soften', 'margin'])
def test_strength_as_label_or_margin_is_that_loss(name):
  own = task(WORLD, 0.2)
  h = own.sign[:, None] * own.world.train.differences.toarray()
  strength = own.strength.mean
  q = 1 / (1 + np.exp(-strength))

  def loss(w):
    z = h @ w
    losses = {
      'soften': q * _softplus(-z) + (1 - q) * _softplus(z),
      'margin': _softplus(strength - z),
    }[name]
    return np.mean(losses) + own.l2[1] / 2 * w @ w

  found = TREATMENTS[name](Arm('x', name), own)
  np.testing.assert_allclose(found[1], _minimised(loss), atol=2e-4)


# --- Selection and cells -----------------------------------------------------


@pytest.mark.parametrize('combine', ['mean', 'worst'])
def test_selection_is_by_noisy_validation_pairs(combine):
  own = task(WORLD, 0.25)
  found = own.select(own.committee.paths, combine)
  validation = own.world.validation
  reduce = {'mean': np.mean, 'worst': np.min}[combine]
  noisy = np.where(own.labels['validation'], 1, -1)
  nll = []
  for weights in own.committee.paths:
    rewards = validation.rewards(weights)
    rewards = rewards - rewards.mean(axis=-1, keepdims=True)
    gaps = validation.gaps(reduce(rewards, axis=0))
    nll.append(float(best_temperature_nll(noisy * gaps).nll))
  assert found.l2 == own.l2[int(np.argmin(nll))]
  np.testing.assert_allclose(found.noisy_nll, min(nll), rtol=1e-9)


def test_an_estimate_is_used_or_its_arm_is_left_out():
  arm = Arm('forward@estimate', 'estimated', 'forward')
  own = task(WORLD, 0.2)
  rate = own.estimate.rate
  assert 0.05 < rate < 0.4
  np.testing.assert_array_equal(
    TREATMENTS['estimated'](arm, own), own.fit('forward', label_smoothing=rate)
  )
  refusing = task(WORLD, 0.2, estimator='anchors')
  assert refusing.estimate.is_refused and fit_arm(arm, refusing) is None
  (cell,) = cells_of(own, 0.2, [arm], with_pairs=True)
  assert cell['assumed'] == rate and len(cell['selected']['correct']) == 180
  assert cells_of(refusing, 0.2, [arm], with_pairs=True) == []

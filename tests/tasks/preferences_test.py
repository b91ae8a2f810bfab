"""Demonstrators and pairs: what is drawn, how often, and how it is labelled."""

import numpy as np
import pytest

from alignment.tasks import preferences


@pytest.fixture(name='rewards', scope='module')
def _rewards():
  rng = np.random.default_rng(31)
  # A coarse grid, so that ties are common.
  return np.round(rng.normal(size=(9, 14)) * 2) / 2


@pytest.fixture(name='probs', scope='module')
def _probs(rewards):
  return preferences.behaviour(rewards, inverse_temperature=0.7, uniform=0.2)


def draw(rewards, probs, num_pairs, seed=0, **kwargs):
  rng = np.random.default_rng(seed)
  return preferences.preference_pairs(rewards, probs, num_pairs, rng, **kwargs)


def test_behaviour_is_the_mixture(rewards):
  probs = preferences.behaviour(rewards, inverse_temperature=3.0, uniform=0.25)
  soft = np.exp(3 * rewards[4]) / np.exp(3 * rewards[4]).sum()
  np.testing.assert_allclose(probs[4], 0.75 * soft + 0.25 / 14)
  np.testing.assert_allclose(probs.sum(axis=1), 1)
  with pytest.raises(ValueError, match='uniform=1.5'):
    preferences.behaviour(rewards, inverse_temperature=1.0, uniform=1.5)


def test_demonstrations_follow_the_demonstrator(probs):
  num = 90_000
  rng = np.random.default_rng(1)
  prompt, drawn = preferences.demonstrations(probs, num, rng)
  assert np.bincount(prompt).tolist() == [num // 9] * 9
  counts = np.zeros_like(probs)
  np.add.at(counts, (prompt, drawn), 1)
  share = counts / counts.sum(axis=1, keepdims=True)
  # Five standard deviations of a binomial share.
  bound = 5 * np.sqrt(probs * (1 - probs) / (num // 9))
  assert (np.abs(share - probs) < bound).all()


def test_a_completion_of_probability_0_is_never_drawn(rewards):
  probs = np.zeros_like(rewards)
  probs[:, [0, 5, 13]] = [0.2, 0.5, 0.3]
  rng = np.random.default_rng(2)
  _, drawn = preferences.demonstrations(probs, 5000, rng)
  assert set(drawn.tolist()) == {0, 5, 13}


def test_argmax_labels_agree_with_gold_and_nothing_ties(rewards, probs):
  pairs = draw(rewards, probs, 3000)
  gold = (
    rewards[pairs.prompt, pairs.first] - rewards[pairs.prompt, pairs.second]
  )
  np.testing.assert_array_equal(pairs.margin, gold)
  assert (gold != 0).all()
  np.testing.assert_array_equal(pairs.label, gold > 0)
  np.testing.assert_array_equal(pairs.index, np.arange(3000))
  counts = np.bincount(pairs.prompt, minlength=9)
  assert counts.max() - counts.min() <= 1
  # Which comes first says nothing.
  assert abs(pairs.label.mean() - 0.5) < 5 * 0.5 / np.sqrt(3000)


def test_pairs_follow_the_product_given_no_tie(rewards, probs):
  pairs = draw(rewards[:1], probs[:1], 60_000)
  joint = np.outer(probs[0], probs[0])
  joint[rewards[0][:, None] == rewards[0][None, :]] = 0
  joint /= joint.sum()
  counts = np.zeros_like(joint)
  np.add.at(counts, (pairs.first, pairs.second), 1)
  bound = 5 * np.sqrt(joint * (1 - joint) / 60_000) + 1e-12
  assert (np.abs(counts / 60_000 - joint) <= bound).all()


@pytest.mark.parametrize('temperature', [0.4, 1.5])
def test_bt_labels_are_calibrated(rewards, probs, temperature):
  pairs = draw(rewards, probs, 60_000, preference='bt', temperature=temperature)
  for margin in (-1.0, -0.5, 0.5, 1.0, 2.0):
    label = pairs.label[pairs.margin == margin]
    expected = 1 / (1 + np.exp(-margin / temperature))
    bound = 5 * np.sqrt(expected * (1 - expected) / len(label))
    assert abs(label.mean() - expected) < bound


def test_preference_changes_labels_only(rewards, probs):
  hard = draw(rewards, probs, 500, seed=4)
  soft = draw(rewards, probs, 500, seed=4, preference='bt')
  for name in ('index', 'prompt', 'first', 'second', 'margin'):
    np.testing.assert_array_equal(getattr(hard, name), getattr(soft, name))
  assert (hard.label != soft.label).any()


def test_same_generator_same_pairs(rewards, probs):
  first, again = draw(rewards, probs, 50), draw(rewards, probs, 50)
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a, b)
  other = draw(rewards, probs, 50, seed=1)
  assert (first.first != other.first).any()


def test_bad_values_are_refused(rewards, probs):
  with pytest.raises(ValueError, match="preference='soft'"):
    draw(rewards, probs, 5, preference='soft')
  with pytest.raises(ValueError, match='temperature=0'):
    draw(rewards, probs, 5, temperature=0)
  with pytest.raises(ValueError, match='different reward'):
    draw(np.zeros((2, 3)), np.full((2, 3), 1 / 3), 5)

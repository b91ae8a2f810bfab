"""Noise on an arena's labels: hyperparameters, ties, skips, what is known."""

import dataclasses

import jax
import numpy as np
import pytest

from alignment.noise.corruption.catalogue import INSTEAD, NOISE, hyperparameters
from alignment.protocols.bakeoff import Grid, labelled_order, tune
from alignment.protocols.contestants import Contestant
from alignment.protocols.labelling import (
  Noise,
  at_hand,
  corrupted,
  noisy_labels,
  parse_noise,
  what_is_known,
)
from tests.protocols.arenas import STEPS, toy_arena


def _with_rewards(arena):
  """The arena whose pairs know the rewards that their margins come from."""
  changes = {}
  for name in ('train', 'validation'):
    split = getattr(arena, name)
    margin = split.pairs.gold_margin
    base = np.random.default_rng(0).uniform(1, 2, len(margin))
    rewards = np.stack([base + margin, base], axis=1)[..., None]
    pairs = dataclasses.replace(
      split.pairs, known={'step_rewards': rewards, 'attack_score': margin}
    )
    changes[name] = dataclasses.replace(split, pairs=pairs)
  return dataclasses.replace(arena, **changes)


ARENA = _with_rewards(toy_arena(sizes=(60, 50, 8)))
UNSURE = parse_noise('teacher', ['tie=0.15', 'skip=0.9'], num_features=2)


def test_hyperparameters_reach_the_model():
  found = parse_noise(
    'feature_logistic', ['weights=1.5:-0.5', 'exact=1'], num_features=2
  )
  assert found.hyper == (('weights', (1.5, -0.5)), ('exact', True))
  train, validation = corrupted(ARENA, found, 0.25)
  assert train.is_flipped.sum() == 15 and validation.is_flipped.sum() == 12
  features = what_is_known(ARENA.train.pairs)['features']
  np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-12)
  np.testing.assert_allclose(features.std(axis=0), 1)
  rate = train.flip_rate.astype(float)
  score = np.log(rate / (1 - rate)) - features @ [1.5, -0.5]
  np.testing.assert_allclose(score, score[0], atol=1e-4)
  assert str(found) == 'feature_logistic (weights (1.5, -0.5), exact True)'
  assert str(Noise('symmetric')) == 'symmetric'


def test_every_model_takes_its_place_by_name():
  for name in NOISE:
    assert parse_noise(name, [], num_features=2) == Noise(name)
    assert INSTEAD.get(name, 'flip_rate') in hyperparameters(name)
  assert UNSURE.has_ties
  assert not parse_noise('teacher', ['skip=0.2'], num_features=2).has_ties


def test_features_know_the_longer_loser():
  pairs = ARENA.train.pairs
  first = what_is_known(pairs)['features'][:, 0]
  lengths = pairs.lengths
  longer_loser = np.where(
    at_hand(pairs), lengths[:, 1] - lengths[:, 0], lengths[:, 0] - lengths[:, 1]
  )
  assert np.corrcoef(first, longer_loser)[0, 1] == pytest.approx(1)


@pytest.mark.parametrize(
  ('name', 'entries', 'message'),
  [
    (
      'exact_count',
      ['tau=1'],
      '--noise_hyper=tau=1: --noise=exact_count does ',
    ),
    ('gaussian', ['scale=1'], 'scale=1: stands in the place of --flip_rate'),
    ('symmetric', ['flip_rate=.1'], 'stands in the place of --flip_rate'),
    ('teacher', ['myopia=2'], r'--noise_hyper=myopia=2: myopia=2.0 must be in'),
    ('teacher', ['myopia=low'], 'myopia=low: want name=number'),
    ('teacher', ['tie=inf'], 'tie=inf: want name=number'),
    ('teacher', ['tie=.1', 'exact=1'], 'exact=True: noise .teacher. ties'),
    ('symmetric', ['exact=2'], 'exact=2: want exact=1, or leave it out'),
    ('exact_count', ['exact=1'], 'exact=True is not used by noise'),
    (
      'feature_logistic',
      ['weights=1:2:3'],
      r'weights=\(1.0, 2.0, 3.0\) must be',
    ),
  ],
)
def test_refusals(name, entries, message):
  with pytest.raises(ValueError, match=message):
    parse_noise(name, entries, num_features=2)


def test_what_is_skipped_weighs_nothing_and_a_tie_is_no_flip():
  labels = noisy_labels(ARENA, UNSURE, 0.3)
  rewards = ARENA.train.pairs.known['step_rewards'][..., 0]
  scale = np.abs(rewards).mean()
  skipped = rewards.max(axis=1) <= 0.9 * scale
  tied = np.abs(rewards[:, 0] - rewards[:, 1]) < 0.15 * scale
  assert 0 < skipped.sum() < 60 and 0 < tied.sum() < 60
  np.testing.assert_array_equal(labels.train_weight == 0, skipped)
  np.testing.assert_array_equal(labels.train_label_prob == 0.5, tied)
  assert labels.train_flipped.any()
  assert not (labels.train_flipped & (skipped | tied)).any()
  assert set(labels.validation_weight) == {0.0, 1.0}
  assert not labels.validation_flipped[labels.validation_weight == 0].any()
  plain = noisy_labels(ARENA, Noise('symmetric'), 0.3)
  assert plain.train_label_prob is None and plain.validation_weight is None
  np.testing.assert_array_equal(plain.train_weight, 1)


def test_losses_without_label_prob_leave_ties_out():
  labels = noisy_labels(ARENA, UNSURE, 0.3)
  tied = labels.train_label_prob == 0.5
  for loss, reads_it in (('dpo', False), ('soft_label', True)):
    contestant = Contestant(loss, hyper=(('beta', 0.5),))
    for batch in labelled_order(contestant, ARENA, labels):
      examples = jax.tree.map(np.asarray, batch.examples)
      real = examples.index >= 0
      index = examples.index[real]
      left_out = labels.train_weight[index] == 0
      if not reads_it:
        left_out |= tied[index]
      np.testing.assert_array_equal(examples.weight[real] == 0, left_out)
      np.testing.assert_array_equal(
        examples.label_prob[real],
        np.where(tied[index], 0.5, 1) if reads_it else 1,
      )


def test_selection_reads_the_labels_that_say_something_only():
  """The criterion does not see validation pairs of weight 0."""
  labels = noisy_labels(ARENA, UNSURE, 0.1)
  silent = labels.validation_weight == 0
  other = labels._replace(validation_flipped=labels.validation_flipped ^ silent)
  whole = labels._replace(validation_weight=None)
  grid = Grid((0.3,), (STEPS,))
  contestant = Contestant('dpo', hyper=(('beta', 0.5),))
  scores = [
    tune(contestant, ARENA, found, grid).curve[0].noisy_nll
    for found in (labels, other, whole)
  ]
  assert scores[0] == scores[1] != scores[2]

"""One draw of noise: who is trained on what, and what is reported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.classification import CLASSIFICATION
from alignment.protocols.noisy_labels import learner, trial, world
from alignment.protocols.noisy_labels.methods import (
  ASSUMED,
  METHODS,
  Arm,
  line_up,
)
from alignment.protocols.noisy_labels.plan import Plan, orders

WORLD = world.graded_ballots(2, world.Sizes(240, 80, 100), 3)
PLAN = Plan(8, 30, 3, 40, (1e-2, 3e-2), keep_rows=True)
ARMS = line_up(
  ['conservative', 'backward', 'gce', 'elr', 'peer', 'small_loss']
  + ['co_teaching', 'divide_mix'],
  ['estimated'],
)


@pytest.fixture(scope='module')
def row():
  return trial.run_trial(WORLD, 'symmetric', 0.3, 7, ARMS, PLAN)


def test_every_classification_loss_is_a_method():
  assert {m.loss for m in METHODS.values()} == set(CLASSIFICATION)
  assert {n for n, m in METHODS.items() if m.scheme == 'all'} == set(
    CLASSIFICATION
  )


def test_every_arm_and_both_controls_are_scored(row):
  expected = [str(arm) for arm in ARMS] + [trial.UNFLIPPED, trial.CLEAN]
  assert {*row['arms'], *row['refused']} == set(expected)
  for name, arm in row['arms'].items():
    assert len(arm['curve']) == 3, name
    assert arm['selected']['step'] in (10, 20, 30)
    assert arm['last']['step'] == 30 and arm['last']['learning_rate'] == 1e-2
    hits = np.array([c == '1' for c in arm['right']])
    assert len(hits) == 100
    np.testing.assert_allclose(hits.mean(), arm['selected']['accuracy'])
    assert 0 <= arm['selected']['fitted'] <= 1


def test_a_row_is_json_and_the_same_again(row):
  again = trial.run_trial(WORLD, 'symmetric', 0.3, 7, ARMS[:3], PLAN)
  text = json.dumps(row)
  for name in list(again['arms']):
    assert json.loads(text)['arms'][name] == again['arms'][name]
  assert row['realised_rate'] == pytest.approx(0.3, abs=0.01)


def test_the_stop_is_chosen_by_noisy_labels_alone():
  """The clean labels of validation may be anything."""
  labels = trial.draw_labels(WORLD, 'symmetric', 0.3, 7)
  stops = [
    trial.Stop(1e-2, 10, *(np.zeros(n, int) for n in (240, 80, 100))),
    trial.Stop(1e-2, 20, np.zeros(240, int), labels.validation, np.ones(100)),
  ]
  found = trial.scores(stops, WORLD, labels, PLAN)
  assert found['selected']['step'] == 20
  clean = labels._replace(validation=np.zeros(80, int))
  found = trial.scores(stops, WORLD, clean, PLAN)
  assert found['selected']['step'] == 10


def test_noise_of_training_and_validation_are_two_draws():
  labels = trial.draw_labels(WORLD, 'pair_flip', 0.3, 7)
  assert np.mean(labels.train != WORLD.train.label) == pytest.approx(
    0.3, abs=0.02
  )
  flips = labels.validation != WORLD.validation.label
  assert flips.mean() == pytest.approx(0.3, abs=0.03)
  assert np.any(flips != labels.is_flipped[:80])


def test_the_unflipped_control_never_reads_a_wrong_label():
  labels = trial.draw_labels(WORLD, 'symmetric', 0.3, 7)
  kept = ~labels.is_flipped
  garbled = labels._replace(
    train=np.where(kept, labels.train, (labels.train + 1) % 3)
  )
  one, two = (
    trial.train(Arm('cross_entropy'), WORLD, given, 7, PLAN, None, kept)
    for given in (labels, garbled)
  )
  np.testing.assert_array_equal(one[-1].test, two[-1].test)


def test_divide_mix_needs_the_other_learner_and_softens_wrong_labels():
  labels = trial.draw_labels(WORLD, 'symmetric', 0.3, 7)
  state = learner.start(
    tuple(jax.random.split(jax.random.key(0))),
    jnp.asarray(WORLD.train.features),
    8,
    3,
  )
  data = learner.Data(
    jnp.asarray(WORLD.train.features),
    (jnp.asarray(labels.train),) * 2,
    jnp.ones(240),
  )
  order = orders(0, 2, 240, PLAN._replace(steps=90))
  state = learner.advance(
    state, data, order, 1.0, 1e-2, {}, loss='cross_entropy', scheme='all'
  )
  first, second = trial._divided(state, data, labels.train)
  for target in (first, second):
    np.testing.assert_allclose(target.sum(axis=1), 1.0, rtol=1e-5)
  own = np.asarray(first)[np.arange(240), labels.train]
  wrong = labels.is_flipped
  assert own[wrong].mean() < own[~wrong].mean() - 0.1
  assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.01


def test_line_up():
  arms = line_up(['gce', 'forward', 'cross_entropy'], ASSUMED)
  assert [str(arm) for arm in arms] == [
    'cross_entropy',
    'gce',
    'forward, true T',
    'forward, estimated T',
    'forward, wrong T',
  ]
  with pytest.raises(ValueError, match='--method=nope: must be one of'):
    line_up(['nope'], ASSUMED)
  with pytest.raises(ValueError, match='--assume=guess: must be one of'):
    line_up(['forward'], ['guess'])
  assert line_up(['forward'], []) == line_up(['forward'], ASSUMED)
  with pytest.raises(ValueError, match='none of --method=gce is told'):
    line_up(['gce'], ['true'])

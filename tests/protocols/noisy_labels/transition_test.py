"""Transitions that are estimated, and what they amount to."""

import numpy as np
import pytest

from alignment.noise.corruption.classes import (
  pair_flip_matrix,
  symmetric_matrix,
)
from alignment.protocols.noisy_labels.methods import Arm
from alignment.protocols.noisy_labels.plan import Plan
from alignment.protocols.noisy_labels.transition import (
  anchor_transition,
  complaint,
  estimate_transition,
  mean_rate,
)
from alignment.protocols.noisy_labels.world import Part

RNG = np.random.default_rng(9)


def _easy(size=1500):
  """Three classes, each with one feature of its own: a linear model can hold
  the chances of every label."""
  label = RNG.integers(0, 3, size).astype(np.int32)
  features = 3 * np.eye(3)[label]
  return Part(
    features.astype(np.float32), label, np.arange(size, dtype=np.int32)
  )


@pytest.mark.parametrize('estimator', ['confident_joint', 'anchors'])
def test_the_transition_of_an_easy_task_is_found(estimator):
  part = _easy()
  truth = pair_flip_matrix(3, 0.3)
  noisy = np.array([RNG.choice(3, p=truth[y]) for y in part.label])
  plan = Plan(0, 200, 2, 750, (3e-2,), estimator)
  found = estimate_transition(part, noisy, 3, 0, plan)
  np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
  # 500 rows per class: a share of .3 is known to ±.04 (two deviations); the
  # probabilities of a single anchor row also have to converge.
  slack = 0.06 if estimator == 'confident_joint' else 0.09
  np.testing.assert_allclose(found, truth, atol=slack)


def test_out_of_fold_models_never_saw_the_group_they_are_asked_about():
  """Labels that only memory could know are at chance out of fold."""
  size = 300
  group = np.arange(size, dtype=np.int32) // 3
  features = np.eye(100, dtype=np.float32)[group]
  label = RNG.integers(0, 2, 100)[group].astype(np.int32)
  part = Part(features, label, group)
  plan = Plan(0, 200, 2, 50, (1e-1,), 'anchors')
  found = estimate_transition(part, label, 2, 0, plan)
  # Seen rows would have probabilities near 0 and 1 here.
  assert np.abs(found - found.mean(axis=0)).max() < 0.35


def test_anchor_rows_are_those_at_the_97th_percentile():
  probs = RNG.dirichlet(np.ones(3), 201)
  found = anchor_transition(probs)
  for c in range(3):
    higher = np.sum(probs[:, c] > found[c, c])
    assert higher == 200 - int(0.97 * 200)


def test_mean_rate_weighs_classes_by_their_clean_share():
  transition = np.array([[0.9, 0.1, 0], [0, 0.5, 0.5], [0.2, 0, 0.8]])
  shares = np.array([0.5, 0.3, 0.2])
  counts = np.round(shares @ transition * 10000).astype(int)
  label = np.repeat(np.arange(3), counts)
  np.testing.assert_allclose(
    mean_rate(label, transition), shares @ [0.1, 0.5, 0.2], atol=1e-4
  )
  for classes in (2, 4):
    label = np.arange(100) % classes
    wild = symmetric_matrix(classes, 0.99)
    assert mean_rate(label, wild) < 1 - 1 / classes


def test_what_cannot_be_used_is_complained_of():
  flat = np.full((3, 3), 1 / 3)
  assert 'inverted' in complaint(Arm('backward', 'estimated'), flat)
  assert not complaint(Arm('forward', 'estimated'), flat)
  assert not complaint(Arm('gce'), None)
  lost = np.array([[0.9, 0.1], [np.nan, np.nan]])
  assert 'unknown' in complaint(Arm('co_teaching', 'estimated'), lost)

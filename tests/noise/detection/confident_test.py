"""Confident learning's marks and scores, from their definitions."""

import numpy as np
import pytest

from alignment.noise.confident_joint import calibrated_joint, whole_counts
from alignment.noise.detection import confident
from tests.noise.confident_joint_test import labelled


@pytest.mark.parametrize('classes', [2, 4])
def test_scores(classes):
  label, probs, _ = labelled(1, classes=classes)
  rows = zip(label, probs, strict=True)
  own, margin, entropy = [], [], []
  for s, p in rows:
    own.append(p[s])
    margin.append((p[s] - max(np.delete(p, s)) + 1) / 2)
    x = -sum(p * np.log(p)) / np.log(classes) / p[s]
    entropy.append(np.log(1 + x) / x)
  for name, want in zip(confident.QUALITY, (own, margin, entropy), strict=True):
    np.testing.assert_allclose(
      confident.QUALITY[name](label, probs), want, rtol=1e-9
    )


def test_scores_are_total():
  label = np.array([0, 1, 1])
  probs = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
  for score in confident.QUALITY.values():
    found = score(label, probs)
    assert found[0] == 1
    assert found[1] == 0
    assert 0 < found[2] < 1


def test_prune_by_class_takes_the_lowest_of_each_class():
  label, probs, _ = labelled(2, rows=500)
  joint = whole_counts(calibrated_joint(label, probs))
  marked = confident.prune_by_class(label, probs)
  for s in range(3):
    own = probs[label == s, s]
    count = joint[s].sum() - joint[s, s]
    limit = np.sort(own)[count - 1]
    disagrees = probs[label == s].argmax(axis=1) != s
    np.testing.assert_array_equal(
      marked[label == s], (own <= limit) & disagrees
    )
  assert 20 < marked.sum() < 250


def test_prune_by_noise_rate_takes_the_largest_leads():
  label, probs, _ = labelled(3, rows=500)
  joint = whole_counts(calibrated_joint(label, probs))
  want = np.zeros(500, bool)
  for s in range(3):
    for y in set(range(3)) - {s}:
      lead = np.where(label == s, probs[:, y] - probs[:, s], -np.inf)
      want[np.argsort(lead)[500 - joint[s, y] :]] = True
  want &= probs.argmax(axis=1) != label
  marked = confident.prune_by_noise_rate(label, probs)
  np.testing.assert_array_equal(marked, want)
  np.testing.assert_array_equal(
    confident.both(label, probs), want & confident.prune_by_class(label, probs)
  )


@pytest.mark.parametrize('name', list(confident.FILTERS))
def test_marked_labels_are_wrong_more_often(name):
  label, probs, true = labelled(4, rows=2000)
  marked = confident.FILTERS[name](label, probs)
  wrong = label != true
  assert wrong[marked].mean() > 1.5 * wrong.mean()
  if not name.startswith('low_'):
    assert np.all(probs.argmax(axis=1)[marked] != label[marked])


@pytest.mark.parametrize('name', list(confident.FILTERS))
def test_a_model_at_chance_marks_nothing(name):
  rng = np.random.default_rng(5)
  label = rng.integers(0, 2, 200)
  assert not confident.FILTERS[name](label, np.full((200, 2), 0.5)).any()


def test_equal_scores_are_counted_out_exactly():
  """All rows of class 0 look alike: as many are marked as the joint says."""
  label = np.repeat([0, 1], [40, 40])
  probs = np.repeat([[0.3, 0.7], [0.35, 0.65]], [40, 40], axis=0)
  probs[:20] = [0.9, 0.1]
  errors = whole_counts(calibrated_joint(label, probs))[0, 1]
  assert 0 < errors <= 20
  assert confident.prune_by_class(label, probs).sum() == errors


def test_a_class_is_never_emptied():
  """The joint says that both rows of class 0 err, one to each other class."""
  label = np.array([0, 0, 1, 1, 2, 2])
  probs = np.array(
    [
      [0.2, 0.7, 0.1],
      [0.2, 0.1, 0.7],
      [0.1, 0.6, 0.3],
      [0.1, 0.6, 0.3],
      [0.1, 0.3, 0.6],
      [0.1, 0.3, 0.6],
    ]
  )
  errors = whole_counts(calibrated_joint(label, probs))[0]
  assert errors.tolist() == [0, 1, 1]
  assert confident.prune_by_class(label, probs).tolist() == [True] + 5 * [False]

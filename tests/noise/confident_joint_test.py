"""The confident joint beside its definition, row by row."""

import numpy as np
import pytest

from alignment.noise.confident_joint import (
  calibrated_joint,
  confident_class,
  confident_joint,
  posterior_matrix,
  thresholds,
  transition_matrix,
  whole_counts,
)


def labelled(seed=0, rows=300, classes=3):
  """Labels that follow the probabilities less often for the last class."""
  rng = np.random.default_rng(seed)
  probs = rng.dirichlet(np.linspace(0.5, 1.2, classes), rows)
  true = np.array([rng.choice(classes, p=p) for p in probs])
  noisy = np.where(
    rng.random(rows) < 0.1 * (1 + true), (true + 1) % classes, true
  )
  return noisy, probs, true


def by_the_book(label, probs):
  """Equations 1 and 2, one row at a time."""
  classes = probs.shape[1]
  limit = [probs[label == c, c].mean() for c in range(classes)]
  counts = np.zeros((classes, classes))
  for s, p in zip(label, probs, strict=True):
    confident = [c for c in range(classes) if p[c] >= limit[c]]
    if confident:
      counts[s, max(confident, key=lambda c: p[c])] += 1
  return limit, counts


@pytest.mark.parametrize('classes', [2, 3, 5])
def test_counts_follow_the_definition(classes):
  label, probs, _ = labelled(classes, classes=classes)
  limit, counts = by_the_book(label, probs)
  np.testing.assert_allclose(thresholds(label, probs), limit, rtol=1e-12)
  assert counts[np.eye(classes) == 0].min() > 0
  np.testing.assert_array_equal(confident_joint(label, probs), counts)


def test_the_choice_is_among_confident_classes_only():
  """Class 0 is likeliest, yet below what is usual for it."""
  label = np.array([0, 0, 1, 2, 2])
  probs = np.array(
    [
      [0.9, 0.05, 0.05],
      [0.5, 0.3, 0.2],
      [0.3, 0.3, 0.4],
      [0.2, 0.6, 0.2],
      [0.2, 0.7, 0.1],
    ]
  )
  # Thresholds .7, .3, .15: the second row is confident of 1 and of 2.
  assert confident_class(label, probs).tolist() == [0, 1, 2, 1, 1]


def test_calibration_keeps_the_label_counts():
  label, probs, _ = labelled(3)
  joint = calibrated_joint(label, probs)
  counts = confident_joint(label, probs)
  np.testing.assert_allclose(joint.sum(axis=1), np.bincount(label))
  np.testing.assert_allclose(
    posterior_matrix(joint), posterior_matrix(counts), rtol=1e-12
  )
  assert np.all(np.abs(whole_counts(joint) - joint) < 1)
  np.testing.assert_array_equal(
    whole_counts(joint).sum(axis=1), np.bincount(label)
  )


def test_rounding_gives_to_the_largest_remainders():
  joint = np.array([[2.2, 3.7, 0.1], [1.6, 1.6, 1.8], [4.0, 0.0, 0.0]])
  assert whole_counts(joint).tolist() == [[2, 4, 0], [1, 2, 2], [4, 0, 0]]


def test_a_sharp_model_finds_the_transition():
  """Probabilities of nearly 0 and 1 at the truth: the joint is the counts."""
  label, _, true = labelled(4, rows=4000)
  probs = np.full((4000, 3), 0.01)
  probs[np.arange(4000), true] = 0.98
  joint = calibrated_joint(label, probs)
  exact = np.zeros((3, 3))
  np.add.at(exact, (label, true), 1)
  np.testing.assert_allclose(joint, exact, rtol=1e-9)
  transition = transition_matrix(joint)
  np.testing.assert_allclose(transition.sum(axis=1), 1)
  # Class y flips to the next with probability .1 (1 + y); 3 standard errors.
  for y in range(3):
    assert transition[y, (y + 1) % 3] == pytest.approx(0.1 * (1 + y), abs=0.04)


def test_a_class_that_never_occurs_is_never_confident():
  label, probs, _ = labelled(5)
  label = np.where(label == 2, 0, label)
  assert np.isinf(thresholds(label, probs)[2])
  counts = confident_joint(label, probs)
  assert not counts[2].any() and not counts[:, 2].any()
  assert np.isnan(posterior_matrix(counts)[2]).all()


def test_refusals():
  label, probs, _ = labelled(6)
  with pytest.raises(ValueError, match='shape'):
    confident_joint(label[:-1], probs)
  with pytest.raises(ValueError, match=r'label=0\.\.3'):
    confident_joint(label + (label == 2), probs)
  with pytest.raises(ValueError, match='NaN'):
    confident_joint(label, np.where(probs == probs.max(), np.nan, probs))

"""Transition matrices, exact counts, and votes drawn as they were cast."""

import json

import jax
import numpy as np
import pytest
from scipy import stats

from alignment.noise.corruption.classes import (
  MATRICES,
  calibrated_matrix,
  corrupt_classes,
  pair_flip_matrix,
  resample_votes,
  symmetric_matrix,
)

_KEY = jax.random.key(17)
_MATRIX = np.array([[0.7, 0.3, 0.0], [0.1, 0.5, 0.4], [0.0, 0.0, 1.0]])


def _labels(size: int, shares=(0.5, 0.2, 0.3)) -> np.ndarray:
  return np.random.default_rng(15).choice(len(shares), size, p=shares)


def _table(clean: np.ndarray, label: np.ndarray, size: int) -> np.ndarray:
  return np.bincount(size * clean + label, minlength=size**2).reshape(size, -1)


def test_matrices_are_what_they_are_called():
  for name, matrix in MATRICES.items():
    found = matrix(4, 0.3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(np.diag(found), 0.7, err_msg=name)
  np.testing.assert_allclose(symmetric_matrix(4, 0.3)[0, 1:], 0.1)
  pair = pair_flip_matrix(4, 0.3)
  np.testing.assert_allclose([pair[0, 1], pair[2, 3], pair[3, 0]], 0.3)
  with pytest.raises(ValueError, match='num_classes=1 must be >= 2'):
    pair_flip_matrix(1, 0.3)


def test_labels_follow_the_matrix():
  clean = _labels(20_000)
  labels = corrupt_classes(
    _KEY, clean, index=np.arange(20_000), transition=_MATRIX
  )
  found = _table(clean, labels.label, 3)
  assert np.all(found[_MATRIX == 0] == 0)
  for i in range(2):
    seen = _MATRIX[i] > 0
    expected = _MATRIX[i][seen] * found[i].sum()
    assert stats.chisquare(found[i][seen], expected).pvalue > 1e-3
  np.testing.assert_array_equal(labels.is_flipped, labels.label != clean)
  np.testing.assert_allclose(
    labels.flip_rate, (1 - np.diag(_MATRIX))[clean], rtol=1e-6
  )


def test_scaled_matrices_flip_nested_sets_to_the_same_classes():
  clean, index = _labels(3000), np.arange(3000)
  matrices = [calibrated_matrix(_MATRIX, clean, r) for r in (0.05, 0.15, 0.3)]
  for matrix, rate in zip(matrices, (0.05, 0.15, 0.3), strict=True):
    assert (1 - np.diag(matrix))[clean].mean() == pytest.approx(rate)
  runs = [
    corrupt_classes(_KEY, clean, index=index, transition=m) for m in matrices
  ]
  for lower, higher in zip(runs, runs[1:], strict=False):
    assert np.all(lower.is_flipped <= higher.is_flipped)
    same = lower.is_flipped
    np.testing.assert_array_equal(lower.label[same], higher.label[same])
  np.testing.assert_array_equal(
    calibrated_matrix(_MATRIX, clean, 0.0), np.eye(3)
  )
  with pytest.raises(ValueError, match='flip_rate=0.6 is out of reach'):
    calibrated_matrix(_MATRIX, clean, 0.6)


def test_order_and_company_do_not_matter():
  clean, index = _labels(400), np.random.default_rng(1).permutation(900)[:400]
  whole = corrupt_classes(_KEY, clean, index=index, transition=_MATRIX).label
  part = corrupt_classes(
    _KEY, clean[::-3], index=index[::-3], transition=_MATRIX
  ).label
  np.testing.assert_array_equal(whole[::-3], part)


def test_exact_counts_by_class():
  clean, index = _labels(701), np.random.default_rng(2).permutation(701)
  labels = corrupt_classes(
    _KEY, clean, index=index, transition=_MATRIX, exact=True
  )
  found = _table(clean, labels.label, 3)
  wanted = _MATRIX * found.sum(axis=1, keepdims=True)
  assert np.all(np.abs(found - wanted) < 1)
  np.testing.assert_allclose(
    labels.flip_rate[clean == 1][0], 1 - found[1, 1] / found[1].sum()
  )
  order = np.random.default_rng(3).permutation(701)
  moved = corrupt_classes(
    _KEY, clean[order], index=index[order], transition=_MATRIX, exact=True
  )
  np.testing.assert_array_equal(labels.label[order], moved.label)
  # Over keys every member of a class is flipped equally often.
  flips = np.mean(
    [
      corrupt_classes(
        key, clean, index=index, transition=_MATRIX, exact=True
      ).is_flipped[clean == 1]
      for key in jax.random.split(_KEY, 100)
    ],
    axis=0,
  )
  assert np.abs(flips - 0.5).max() < 4.5 * 0.05


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'transition': np.ones((3, 3))}, 'rows sum 1'),
    ({'transition': np.ones((2, 3))}, r'shape \(2, 3\)'),
    ({'clean_label': np.array([0, 3])}, r'clean_label=0..3 must lie in \[0, 3'),
    ({'clean_label': np.array([0.0, 1.0])}, 'must be a vector'),
    ({'index': np.arange(3)}, 'index has shape'),
    ({'index': np.zeros(2, int), 'exact': True}, 'index must not repeat'),
  ],
)
def test_refusals(change, message):
  given = {
    'clean_label': np.array([0, 1]),
    'index': np.arange(2),
    'transition': _MATRIX,
  } | change
  with pytest.raises(ValueError, match=message):
    corrupt_classes(_KEY, given.pop('clean_label'), **given)


def test_votes_are_drawn_together():
  joint = np.random.default_rng(16).integers(0, 9, (3, 3, 3))
  clean = _labels(30_000)
  votes = resample_votes(_KEY, clean, index=np.arange(30_000), joint=joint)
  cast = votes.label.reshape(-1, 2)
  np.testing.assert_array_equal(votes.task, np.repeat(np.arange(30_000), 2))
  for i in range(3):
    mine = cast[clean == i]
    found = _table(mine[:, 0], mine[:, 1], 3)
    expected = joint[i] / joint[i].sum() * found.sum()
    seen = joint[i] > 0
    assert np.all(found[~seen] == 0)
    assert stats.chisquare(found[seen], expected[seen]).pvalue > 1e-3
  with pytest.raises(ValueError, match='joint has no counts of class 1'):
    resample_votes(
      _KEY,
      clean,
      index=np.arange(30_000),
      joint=joint * np.array([1, 0, 1])[:, None, None],
    )
  with pytest.raises(ValueError, match='joint has shape'):
    resample_votes(_KEY, clean, index=np.arange(30_000), joint=joint[:2])


@pytest.mark.shared
def test_real_annotators_err_together(shared_dir):
  """CIFAR-10N: three votes on 50,000 images, drawn again from their counts."""
  folder = shared_dir / 'data/cifar10n_noise_stats'
  known = json.loads((folder / 'cifar10n_noise_stats.json').read_text())
  joint = np.zeros((10,) * 4)
  for *cell, count in known['joint_r1r2r3_given_clean_sparse']:
    joint[tuple(cell)] = count
  assert joint.sum() == 50_000
  clean = np.repeat(np.arange(10), joint.sum(axis=(1, 2, 3)).astype(int))
  votes = resample_votes(_KEY, clean, index=np.arange(50_000), joint=joint)
  cast = votes.label.reshape(-1, 3)
  for pair, agreement in known['pairwise_agreement'].items():
    one, other = (int(worker) - 1 for worker in pair.split('-'))
    # Four standard deviations of a share of 50,000.
    assert np.mean(cast[:, one] == cast[:, other]) == pytest.approx(
      agreement, abs=4 * 0.00205
    )
  wrong = cast != clean[:, None]
  all_wrong = known['joint_error_pattern_counts_r1r2r3']['111'] / 50_000
  assert np.mean(wrong.all(axis=1)) == pytest.approx(all_wrong, abs=4 * 0.00065)
  # Independent errors at the same rates would all be wrong half as often.
  assert np.prod(wrong.mean(axis=0)) < 0.6 * all_wrong

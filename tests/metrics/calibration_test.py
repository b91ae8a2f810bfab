"""Calibration: hand-made tables, bins by brute force, known miscalibration."""

import numpy as np
import pytest

from alignment.metrics.calibration import (
  brier_score,
  expected_calibration_error,
)


def test_brier_by_hand():
  probs, outcomes = np.array([0.9, 0.2, 0.5]), np.array([1.0, 0.5, 0.0])
  np.testing.assert_allclose(
    brier_score(probs, outcomes), (0.01 + 0.09 + 0.25) / 3
  )


@pytest.mark.parametrize('num_bins', [1, 4, 7])
def test_bins_hold_equally_many_rows(num_bins):
  rng = np.random.default_rng(0)
  probs = rng.random(28)
  outcomes = (rng.random(28) < probs**2).astype(float)
  order = np.argsort(probs)
  expected = sum(
    len(rows) / 28 * abs(probs[rows].mean() - outcomes[rows].mean())
    for rows in np.split(order, num_bins)
  )
  found = expected_calibration_error(probs, outcomes, num_bins=num_bins)
  np.testing.assert_allclose(found, expected)


def test_equal_claims_are_one_bin():
  probs = np.full(40, 0.7)
  outcomes = np.arange(40) < 10
  np.testing.assert_allclose(expected_calibration_error(probs, outcomes), 0.45)


def test_calibrated_claims_have_almost_none_and_halved_logits_have_theirs():
  rng = np.random.default_rng(1)
  logits = rng.normal(scale=2.0, size=200_000)
  truth = 1 / (1 + np.exp(-logits))
  outcomes = (rng.random(len(truth)) < truth).astype(float)
  # √(15 / 200,000)·.3 = .003 is what chance alone leaves.
  assert expected_calibration_error(truth, outcomes) < 0.006
  timid = 1 / (1 + np.exp(-logits / 2))
  np.testing.assert_allclose(
    expected_calibration_error(timid, outcomes),
    np.mean(np.abs(timid - truth)),
    atol=0.006,
  )


@pytest.mark.parametrize(
  'probs, outcomes, message',
  [
    ([0.5], [1.0, 0.0], 'must be'),
    ([], [], 'must be'),
    ([1.2], [1.0], 'probs must lie'),
    ([0.2], [np.nan], 'outcomes must lie'),
  ],
)
def test_refusals(probs, outcomes, message):
  for measure in (brier_score, expected_calibration_error):
    with pytest.raises(ValueError, match=message):
      measure(np.array(probs), np.array(outcomes))
  with pytest.raises(ValueError, match='num_bins=0'):
    expected_calibration_error(np.ones(3), np.ones(3), num_bins=0)

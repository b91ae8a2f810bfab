"""Accuracy, likelihood at the best temperature, fit of flips, baselines."""

import numpy as np
import pytest
from scipy import special

from alignment.metrics.preference import (
  accuracy,
  best_temperature_nll,
  flipped_fit_share,
  length_only_accuracy,
  majority_accuracy,
)


def _nll(margins, s):
  return np.mean(np.logaddexp(0, -s * margins))


def test_accuracy_counts_ties_as_stated():
  margins = np.array([0.2, -1.0, 0.0, 3.0, 1e-300])
  assert accuracy(margins) == pytest.approx(3.5 / 5)
  assert accuracy(margins, tie_credit=0) == pytest.approx(3 / 5)
  assert accuracy(np.zeros(7)) == 0.5
  assert accuracy([np.inf, -np.inf]) == 0.5
  weights = np.array([0.0, 1.0, 2.0, 1.0, 0.0])
  assert accuracy(margins, weights) == pytest.approx(2 / 4)
  stack = np.stack([margins, -margins])
  np.testing.assert_allclose(accuracy(stack), [0.7, 0.3])


def test_best_temperature_matches_a_grid():
  rng = np.random.default_rng(0)
  margins = rng.normal(0.4, 1.0, (3, 4, 200)) * rng.gamma(1, 5, (3, 4, 1))
  found = best_temperature_nll(margins)
  assert found.nll.shape == found.inverse_temperature.shape == (3, 4)
  for i in np.ndindex(3, 4):
    x = margins[i]
    grid = np.linspace(0, 20 / np.abs(x).mean(), 4001)
    losses = [_nll(x, s) for s in grid]
    assert found.nll[i] <= min(losses) + 1e-12
    assert found.nll[i] == pytest.approx(min(losses), abs=1e-4)
    assert found.nll[i] == pytest.approx(
      _nll(x, found.inverse_temperature[i]), abs=1e-12
    )
    nearest = grid[np.argmin(losses)]
    assert found.inverse_temperature[i] == pytest.approx(
      nearest, abs=1.01 * grid[1]
    )


def test_best_temperature_ignores_the_scale():
  margins = np.random.default_rng(1).normal(0.3, 1.0, 500)
  at_one = best_temperature_nll(margins)
  for scale in (1e-200, 1e-6, 1e5, 1e200):
    scaled = best_temperature_nll(scale * margins)
    assert scaled.nll == pytest.approx(at_one.nll, rel=1e-12)
    assert scaled.inverse_temperature * scale == pytest.approx(
      at_one.inverse_temperature, rel=1e-9
    )


def test_best_temperature_recovers_the_true_one():
  """Labels drawn at temperature 1 / 2.5: s is the maximum-likelihood slope."""
  rng = np.random.default_rng(2)
  truth = rng.normal(size=40_000)
  label = rng.random(40_000) < special.expit(2.5 * truth)
  found = best_temperature_nll(np.where(label, truth, -truth))
  # The standard error of the slope is about .02.
  assert found.inverse_temperature == pytest.approx(2.5, abs=0.08)


@pytest.mark.parametrize(
  ('margins', 'nll', 's'),
  [
    (np.zeros(5), np.log(2), 0.0),
    (-np.ones(5), np.log(2), 0.0),
    (np.array([1.0, -1.0]), np.log(2), 0.0),
    (np.array([1.0, 2.0, -5.0]), np.log(2), 0.0),
    (np.array([3.0, 0.1]), 0.0, np.inf),
    (np.array([3.0, 0.0, 0.0, 1e-9]), np.log(2) / 2, np.inf),
    # All equal but one: σ(s) = 3 / 4.
    (np.array([2.0, 2.0, 2.0, -2.0]), 0.5623351446188083, np.log(3) / 2),
  ],
)
def test_best_temperature_by_hand(margins, nll, s):
  found = best_temperature_nll(margins)
  assert found.nll == pytest.approx(nll, abs=1e-12)
  assert found.inverse_temperature == pytest.approx(s, rel=1e-12)


def test_best_temperature_with_outliers_and_near_separation():
  rng = np.random.default_rng(3)
  margins = rng.normal(0.5, 1, 300)
  margins[0] = 1e7
  found = best_temperature_nll(margins)
  # The outlier is right, so it costs nothing and must not set the scale.
  others = best_temperature_nll(margins[1:])
  assert found.inverse_temperature == pytest.approx(
    others.inverse_temperature, rel=1e-6
  )
  nearly = np.append(np.ones(9), -1e-12)
  found = best_temperature_nll(nearly)
  assert np.isfinite(found.inverse_temperature)
  # 9 σ(−s) = 1e-12 σ(s · 1e-12) gives s = log(1.8e13).
  assert found.inverse_temperature == pytest.approx(np.log(1.8e13), rel=1e-6)


def test_best_temperature_weights_are_repetitions_and_soft_labels():
  rng = np.random.default_rng(4)
  margins, times = rng.normal(0.4, 1, 50), rng.integers(0, 4, 50)
  whole = best_temperature_nll(np.repeat(margins, times))
  weighted = best_temperature_nll(margins, times)
  np.testing.assert_allclose(weighted, whole, rtol=1e-9)
  q = rng.uniform(0.5, 1, 50)
  soft = best_temperature_nll(np.append(margins, -margins), np.append(q, 1 - q))
  s = soft.inverse_temperature
  direct = np.mean(
    q * np.logaddexp(0, -s * margins) + (1 - q) * np.logaddexp(0, s * margins)
  )
  assert soft.nll == pytest.approx(direct, rel=1e-12)
  # A wrong pair of weight 0 does not hide that the rest is separable.
  assert best_temperature_nll([1.0, -1.0], [1.0, 0.0]).nll == 0


def test_flipped_fit_share_looks_at_flips_only():
  is_flipped = np.array([True, False, True, False, True, True])
  margins = np.array([1.0, -9.0, -0.5, 9.0, 0.0, 2.0])
  assert flipped_fit_share(margins, is_flipped) == pytest.approx(2.5 / 4)
  stacked = flipped_fit_share(np.stack([margins, -margins]), is_flipped)
  np.testing.assert_allclose(stacked, [2.5 / 4, 1.5 / 4])
  assert np.isnan(flipped_fit_share(margins, np.zeros(6, bool)))


def test_baselines():
  assert length_only_accuracy([5, 3, 4, 4], [2, 8, 4, 1]) == 2.5 / 4
  # Unsigned lengths must not wrap round.
  short, long = np.array([1], np.uint8), np.array([9], np.uint8)
  assert length_only_accuracy(short, long) == 0
  test = np.array([True, True, True, False])
  assert majority_accuracy([True, False, True], test) == 0.75
  assert majority_accuracy([False], test) == 0.25
  assert majority_accuracy([False, True], test) == 0.5


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: accuracy([]), 'margins of shape'),
    (lambda: accuracy([np.nan]), 'without NaN'),
    (lambda: accuracy([1.0], tie_credit=2), 'tie_credit=2'),
    (lambda: accuracy([1.0, 2.0], [1.0]), 'weights of shape'),
    (lambda: accuracy([1.0], [-1.0]), 'weights of shape'),
    (lambda: accuracy([1.0], [0.0]), 'not all 0'),
    (lambda: best_temperature_nll([1.0, np.inf]), 'must be finite'),
    (lambda: flipped_fit_share([1.0], [True, False]), 'is_flipped has'),
    (lambda: length_only_accuracy([1, 2], [3]), 'rejected_lengths'),
    (lambda: majority_accuracy([], [True]), 'train_label has 0'),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()

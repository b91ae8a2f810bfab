"""Bisection to a mean rate."""

import numpy as np
import pytest

from alignment.noise.corruption.calibration import calibrate, choose_rates


def test_calibrate_inverts_a_known_family():
  def rates(x):
    return np.array([0.5, 0.25]) * (1 - np.exp(-x / 3))

  for x in (1e-6, 0.02, 1.0, 20.0):
    target = rates(x).mean()
    assert calibrate(rates, target) == pytest.approx(x, rel=1e-7)
    assert rates(calibrate(rates, target, unit=1e4)).mean() == pytest.approx(
      target, abs=1e-12
    )
  assert calibrate(rates, 0.375) == np.inf
  assert calibrate(rates, 0.0) == 0
  weighted = calibrate(rates, 0.4, weights=np.array([9.0, 1.0]))
  assert rates(weighted) @ [0.9, 0.1] == pytest.approx(0.4, abs=1e-12)
  with pytest.raises(ValueError, match=r'flip_rate=0.4 is out .*, 0.375\]'):
    calibrate(rates, 0.4)


def test_no_noise_is_always_reachable():
  def rates(x):
    return np.full(3, 0.1 + 0.4 * x / (1 + x) if np.isfinite(x) else 0.5)

  np.testing.assert_array_equal(choose_rates(rates, 0.0, 'x', None, 1.0), 0)
  with pytest.raises(ValueError, match=r'\[0.1, 0.5\]'):
    choose_rates(rates, 0.05, 'x', None, 1.0)

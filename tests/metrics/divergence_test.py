"""Exact divergences against direct sums in extended precision."""

import numpy as np
import pytest

from alignment.metrics.divergence import (
  expectation,
  kl,
  log_mass,
  renormalise,
  tilt,
)


def _logps(shape, seed, mass=0.8):
  rng = np.random.default_rng(seed)
  probs = rng.gamma(0.3, size=shape) + 1e-12
  return np.log(mass * probs / probs.sum(-1, keepdims=True))


def test_mass_is_what_the_enumeration_holds():
  logps = _logps((3, 5, 40), 0, mass=0.37)
  np.testing.assert_allclose(log_mass(logps), np.log(0.37), rtol=1e-12)
  np.testing.assert_allclose(np.exp(renormalise(logps)).sum(-1), 1, rtol=1e-12)
  # Far below what exp can hold.
  np.testing.assert_allclose(log_mass(logps - 5000), np.log(0.37) - 5000)


def test_kl_is_the_direct_sum_whatever_the_masses():
  first, second = _logps((4, 60), 1, 0.9), _logps((4, 60), 2, 0.1)
  p = np.exp(first).astype(np.longdouble)
  q = np.exp(second).astype(np.longdouble)
  p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
  direct = np.sum(p * np.log(p / q), axis=-1)
  np.testing.assert_allclose(
    kl(first, second), direct.astype(float), rtol=1e-12
  )
  np.testing.assert_allclose(kl(first - 900, second + 7), kl(first, second))
  assert np.all(np.abs(kl(first, second) - kl(second, first)) > 1e-2)


def test_kl_of_near_and_equal_distributions():
  logps = _logps((30,), 3)
  assert kl(logps, logps) == 0
  tilted = logps + 1e-7 * np.random.default_rng(4).normal(size=30)
  change = tilted - logps
  p = np.exp(renormalise(logps))
  variance = np.sum(p * change**2) - np.sum(p * change) ** 2
  # Half the variance of the change; log-probabilities near 10 carry 1e-15.
  assert kl(logps, tilted) == pytest.approx(variance / 2, rel=1e-5)
  assert kl(logps, tilted) > 0


def test_kl_with_impossible_completions():
  first = np.log(
    np.array([0.5, 0.5, 0.0, 0.0]) + 0.0,
    where=[1, 1, 0, 0],
    out=np.full(4, -np.inf),
  )
  second = np.log(
    np.array([0.25, 0.25, 0.5, 0.0]),
    where=[1, 1, 1, 0],
    out=np.full(4, -np.inf),
  )
  assert kl(first, second) == pytest.approx(np.log(2), rel=1e-14)
  assert kl(second, first) == np.inf
  stacked = kl(np.stack([first, second]), second)
  np.testing.assert_allclose(stacked, [np.log(2), 0], atol=1e-15)


def test_expectation_ignores_values_without_mass():
  logps = _logps((2, 25), 5)
  values = np.random.default_rng(6).normal(size=(2, 25))
  p = np.exp(logps)
  np.testing.assert_allclose(
    expectation(logps, values), (p * values).sum(-1) / p.sum(-1), rtol=1e-12
  )
  padded = np.pad(logps, ((0, 0), (0, 3)), constant_values=-np.inf)
  poison = np.pad(values, ((0, 0), (0, 3)), constant_values=np.nan)
  np.testing.assert_allclose(
    expectation(padded, poison), expectation(logps, values), rtol=1e-14
  )


def test_tilt_maximises_reward_minus_kl():
  reference = _logps((50,), 7)
  rng = np.random.default_rng(8)
  rewards, beta = rng.normal(size=50), 0.4
  best = tilt(reference, rewards, beta)

  def value(logps):
    return expectation(logps, rewards) - beta * kl(logps, reference)

  # The optimum is beta · log E_ref[exp(rewards / beta)].
  partition = np.log(expectation(reference, np.exp(rewards / beta)))
  assert value(best) == pytest.approx(beta * partition, rel=1e-12)
  for _ in range(20):
    assert value(best + 0.3 * rng.normal(size=50)) < value(best)


def test_tilt_of_huge_rewards_stays_finite():
  out = tilt(_logps((9,), 9), 1e6 * np.arange(9.0), 0.01)
  np.testing.assert_allclose(np.exp(out), np.eye(9)[8], atol=1e-300)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: log_mass([np.nan, 0.0]), 'without NaN'),
    (lambda: log_mass([np.inf, 0.0]), 'without NaN or'),
    (lambda: kl([-np.inf, -np.inf], [0.0, 0.0]), 'some mass'),
    (lambda: tilt([0.0], [1.0], 0.0), 'beta=0.0'),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()

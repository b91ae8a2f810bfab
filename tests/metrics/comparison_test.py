"""The last line of a table, and recovery."""

import numpy as np
import pytest

from alignment.metrics.comparison import best_of, recovery
from alignment.metrics.intervals import clustered_mean, mean_interval


def test_best_and_what_cannot_be_told_from_it():
  rng = np.random.default_rng(0)
  shared = rng.normal(0, 3, 6)
  scores = {
    'worse': shared - 1 + 0.1 * rng.normal(size=6),
    'best': shared + 0.02 + 0.1 * rng.normal(size=6),
    'close': shared + 0.1 * rng.normal(size=6),
  }
  scores['best'] += scores['close'].mean() - scores['best'].mean() + 0.02
  found = best_of(scores)
  assert found.name == 'best'
  assert found.indistinguishable == ('close',)
  assert set(found.differences) == {'worse', 'close'}
  gap = found.differences['worse']
  assert gap == mean_interval(scores['best'] - scores['worse'])
  assert gap.low > 0
  lower = best_of(scores, higher_is_better=False)
  assert lower.name == 'worse' and lower.indistinguishable == ()
  assert lower.differences['best'].high < 0


def test_best_by_cluster_differs_from_best_by_row():
  rng = np.random.default_rng(1)
  groups = np.repeat(np.arange(6), 50)
  effect = np.array([2.0, -1.5, 1.8, -1.2, 1.5, 0.6])[groups]
  scores = {'a': effect + 0.3 * rng.normal(size=300), 'b': np.zeros(300)}
  assert best_of(scores).indistinguishable == ()
  clustered = best_of(scores, groups=groups)
  assert clustered.indistinguishable == ('b',)
  assert clustered.differences['b'] == clustered_mean(scores['a'], groups)


def test_with_one_seed_nothing_is_distinguishable():
  found = best_of({'a': [0.9], 'b': [0.1]})
  assert found.name == 'a' and found.indistinguishable == ('b',)
  assert found.differences['b'].low is None


def test_recovery_covers_a_known_ratio():
  rng = np.random.default_rng(2)
  found = []
  for _ in range(1000):
    shared = rng.normal(0.6, 0.2, 5)
    noisy = shared + rng.normal(0, 0.01, 5)
    clean = shared + 0.15 + rng.normal(0, 0.01, 5)
    method = shared + 0.06 + rng.normal(0, 0.01, 5)
    found.append(recovery(method, noisy, clean).estimate)
  inside = [e.low <= 0.4 <= e.high for e in found]
  # Fieller is exact for normal scores; four standard errors are .028.
  assert np.mean(inside) == pytest.approx(0.95, abs=0.028)


def test_recovery_of_the_baselines():
  rng = np.random.default_rng(3)
  noisy = rng.normal(0.6, 0.02, 5)
  clean = noisy + 0.1 + 0.01 * rng.normal(size=5)
  at_zero = recovery(noisy, noisy, clean).estimate
  np.testing.assert_allclose(at_zero[:3], 0, atol=1e-12)
  at_one = recovery(clean, noisy, clean).estimate
  # A root of a vanishing discriminant: half of float64's digits.
  np.testing.assert_allclose(at_one[:3], 1, atol=1e-6)
  above = recovery(clean + 0.05, noisy, clean).estimate
  assert above.low > 1


def test_recovery_by_definition_holds_the_ratios_not_ruled_out():
  rng = np.random.default_rng(4)
  noisy, clean, method = rng.normal(0, 0.05, (3, 6)) + [[0.5], [0.8], [0.65]]
  estimate = recovery(method, noisy, clean).estimate
  for ratio in np.linspace(-1, 2, 301):
    gap = mean_interval(method - noisy - ratio * (clean - noisy))
    assert (gap.low <= 0 <= gap.high) == (
      estimate.low <= ratio <= estimate.high
    )


def test_recovery_is_undefined_without_a_gap():
  rng = np.random.default_rng(5)
  noisy = rng.normal(0.6, 0.05, 5)
  clean = noisy + np.array([0.02, -0.02, 0.01, -0.01, 0.005])
  found = recovery(noisy + 0.3, noisy, clean)
  assert found.estimate is None
  assert found.gap.low < 0 < found.gap.high
  assert recovery([0.5], [0.4], [0.4]).estimate is None


def test_recovery_of_one_seed_has_no_interval():
  estimate = recovery([0.7], [0.6], [0.8]).estimate
  assert estimate.value == pytest.approx(0.5) and estimate.low is None


def test_refusals():
  with pytest.raises(ValueError, match='at least one method'):
    best_of({})
  with pytest.raises(ValueError, match='same seeds'):
    best_of({'a': [1.0, 2.0], 'b': [1.0]})
  with pytest.raises(ValueError, match='same seeds'):
    recovery([0.1, 0.2], [0.1, 0.2], [0.3])

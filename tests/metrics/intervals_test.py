"""Intervals: coverage by simulation, clusters, none from a single seed."""

import numpy as np
import pytest
from scipy import stats

from alignment.metrics.intervals import (
  Estimate,
  bca_bootstrap,
  cluster_bootstrap,
  clustered_mean,
  covers,
  mean_interval,
  paired_difference,
  percentile_bootstrap,
  wilson,
)


def _coverage(intervals, truth):
  return np.mean([covers(interval, truth) for interval in intervals])


def test_mean_interval_by_hand():
  estimate = mean_interval([1.0, 2.0, 6.0])
  # t(.975, 2) = 4.302653, s² = 7.
  half = 4.302652729911275 * np.sqrt(7 / 3)
  np.testing.assert_allclose(estimate[:3], (3, 3 - half, 3 + half))
  assert estimate.count == 3


def test_mean_interval_covers_as_stated_with_five_seeds():
  values = np.random.default_rng(0).normal(0.7, 2.0, (2000, 5))
  for confidence in (0.8, 0.95):
    found = _coverage([mean_interval(x, confidence) for x in values], 0.7)
    # 2,000 runs: four standard errors of .95 are .02, of .8 are .036.
    assert found == pytest.approx(confidence, abs=0.036)


def test_one_seed_has_no_interval():
  rng = np.random.default_rng(0)
  one, same = np.array([0.3]), np.array(['a'])
  for estimate in (
    mean_interval(one),
    paired_difference(one, one - 0.2),
    clustered_mean(np.array([0.1, 0.5]), np.array(['a', 'a'])),
    cluster_bootstrap(one, same, rng),
    percentile_bootstrap(one, rng),
    bca_bootstrap(one, rng),
  ):
    assert estimate.low is None and estimate.high is None
    assert estimate.count == 1
    assert covers(estimate, 1e9)


def test_pairing_removes_what_seeds_share():
  rng = np.random.default_rng(1)
  shared = rng.normal(0, 5, (800, 6))
  first = shared + 0.3 + 0.1 * rng.normal(size=shared.shape)
  second = shared + 0.1 * rng.normal(size=shared.shape)
  pairs = [paired_difference(a, b) for a, b in zip(first, second, strict=True)]
  assert _coverage(pairs, 0.3) == pytest.approx(0.95, abs=0.031)
  assert _coverage(pairs, 0.0) < 0.05
  width = np.mean([pair.high - pair.low for pair in pairs])
  alone = mean_interval(first[0])
  assert width < (alone.high - alone.low) / 5


def test_clusters_widen_and_cover():
  """Rows of a cluster share an effect: rows lie about their own precision."""
  rng = np.random.default_rng(2)
  rows, groups, boot = [], [], []
  for _ in range(300):
    sizes = rng.integers(8, 25, 12)
    group = np.repeat(np.arange(12), sizes)
    values = rng.normal(0, 1, 12)[group] + rng.normal(0, 1, len(group))
    rows.append(percentile_bootstrap(values, rng, resamples=200))
    groups.append(clustered_mean(values, group))
    boot.append(cluster_bootstrap(values, group, rng, resamples=1000))
  assert _coverage(rows, 0.0) < 0.6
  # 300 runs: four standard errors are .05.
  assert _coverage(groups, 0.0) > 0.89
  assert _coverage(boot, 0.0) > 0.88
  width = [np.mean([e.high - e.low for e in x]) for x in (rows, groups, boot)]
  assert min(width[1:]) > 2 * width[0]
  assert width[2] == pytest.approx(width[1], rel=0.15)


def test_clusters_of_one_row_are_rows():
  rng = np.random.default_rng(3)
  values = rng.exponential(size=40)
  np.testing.assert_allclose(
    clustered_mean(values, rng.permutation(40)), mean_interval(values)
  )


def test_group_labels_may_be_anything_and_in_any_order():
  rng = np.random.default_rng(4)
  values, group = rng.normal(size=60), rng.integers(0, 7, 60)
  order = rng.permutation(60)
  names = np.array([f'title {g}' for g in group])
  np.testing.assert_allclose(
    clustered_mean(values, group), clustered_mean(values[order], names[order])
  )
  first = cluster_bootstrap(values, group, np.random.default_rng(0))
  again = cluster_bootstrap(values, names, np.random.default_rng(0))
  np.testing.assert_allclose(first, again)


def test_bootstraps_cover_and_bca_follows_the_skew():
  rng = np.random.default_rng(5)
  samples = rng.exponential(size=(300, 40))
  plain = [percentile_bootstrap(x, rng, resamples=400) for x in samples]
  shifted = [bca_bootstrap(x, rng, resamples=400) for x in samples]
  assert _coverage(plain, 1.0) > 0.87
  assert _coverage(shifted, 1.0) > 0.88
  lean = [
    np.mean([(e.high - e.value) / (e.value - e.low) for e in found])
    for found in (plain, shifted)
  ]
  # Right-skewed data: the upper arm must be longer, and longer than plain.
  assert lean[1] > lean[0] > 1


@pytest.mark.parametrize('statistic', [np.mean, np.var])
def test_bca_matches_scipy(statistic):
  """The variance is biased downwards, so its correction shows."""
  values = np.random.default_rng(6).gamma(0.7, size=50)
  ours = bca_bootstrap(
    values, np.random.default_rng(0), statistic, resamples=20_000
  )
  theirs = stats.bootstrap(
    (values,), statistic, n_resamples=20_000, method='BCa', rng=1
  ).confidence_interval
  # Two independent sets of resamples: Monte Carlo error of a tail quantile.
  width = ours.high - ours.low
  np.testing.assert_allclose(ours[1:3], theirs, atol=0.02 * width)


def test_bootstrap_takes_other_statistics():
  values = np.random.default_rng(7).normal(size=101)
  estimate = percentile_bootstrap(values, np.random.default_rng(0), np.median)
  assert estimate.value == np.median(values)
  assert estimate.low < estimate.value < estimate.high
  constant = np.full(9, 0.25)
  for bootstrap in (percentile_bootstrap, bca_bootstrap):
    estimate = bootstrap(constant, np.random.default_rng(0))
    assert estimate == Estimate(0.25, 0.25, 0.25, 9)


@pytest.mark.parametrize(('k', 'n'), [(0, 9), (9, 9), (3, 17), (410, 1000)])
def test_wilson_matches_scipy(k, n):
  theirs = stats.binomtest(k, n).proportion_ci(method='wilson')
  np.testing.assert_allclose(
    wilson(k, n)[1:3], (theirs.low, theirs.high), atol=1e-12
  )
  assert covers(wilson(k, n), k / n)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: mean_interval([]), 'values of shape'),
    (lambda: mean_interval([1.0, np.nan]), 'all finite'),
    (lambda: mean_interval([1.0, 2.0], confidence=95), 'confidence=95'),
    (lambda: paired_difference([1.0], [1.0, 2.0]), 'same seeds'),
    (lambda: clustered_mean([1.0, 2.0], ['a']), 'groups has shape'),
    (lambda: wilson(5, 4), 'successes=5'),
    (lambda: wilson(0, 0), 'count'),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()

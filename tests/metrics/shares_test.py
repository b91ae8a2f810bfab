"""Intervals of shares: exact tails, effective trials, coverage."""

import numpy as np
import pytest
from scipy import stats

from alignment.metrics.intervals import covers, wilson
from alignment.metrics.shares import clopper_pearson, clustered_wilson, mid_p


@pytest.mark.parametrize('successes', [1, 7, 38])
def test_clopper_pearson_leaves_half_the_error_in_each_tail(successes):
  found = clopper_pearson(successes, 41, confidence=0.9)
  assert stats.binom.sf(successes - 1, 41, found.low) == pytest.approx(0.05)
  assert stats.binom.cdf(successes, 41, found.high) == pytest.approx(0.05)


def test_clopper_pearson_at_the_ends():
  none, all_of_them = clopper_pearson(0, 20), clopper_pearson(20, 20)
  assert none.low == 0
  assert (1 - none.high) ** 20 == pytest.approx(0.025)
  assert all_of_them.high == 1
  assert all_of_them.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize('successes', [0, 1, 7, 40, 41])
def test_mid_p_counts_the_observed_number_half(successes):
  found = mid_p(successes, 41, confidence=0.9)
  law = stats.binom(41, found.low)
  if successes:
    tail = law.sf(successes) + law.pmf(successes) / 2
    assert tail == pytest.approx(0.05)
  law = stats.binom(41, found.high)
  if successes < 41:
    tail = law.cdf(successes - 1) + law.pmf(successes) / 2
    assert tail == pytest.approx(0.05)
  exact = clopper_pearson(successes, 41, confidence=0.9)
  assert exact.low <= found.low <= found.value <= found.high <= exact.high


@pytest.mark.parametrize('share', [0.1, 0.2, 0.3, 0.4])
def test_mid_p_covers_about_as_often_as_it_says(share):
  chance = stats.binom.pmf(np.arange(301), 300, share)
  covered = [covers(mid_p(k, 300), share) for k in range(301)]
  # The exact interval covers .966 of the first of these.
  assert 0.945 < chance @ covered < 0.962


def test_clustered_wilson_of_independent_rows_is_nearly_wilson():
  rng = np.random.default_rng(0)
  hits = rng.random(4000) < 0.13
  found = clustered_wilson(hits, np.ones(4000), rng.permutation(4000))
  plain = wilson(hits.sum(), 4000)
  # t(3999) for z, and G − 1 for G.
  np.testing.assert_allclose(found[:3], plain[:3], rtol=2e-3)


def test_rows_of_a_group_that_say_the_same_count_once():
  rng = np.random.default_rng(1)
  hits = rng.random(60) < 0.3
  once = clustered_wilson(hits, np.ones(60), np.arange(60))
  copies = clustered_wilson(
    np.repeat(hits, 5), np.ones(300), np.repeat(np.arange(60), 5)
  )
  assert copies == once
  assert copies.count == 60


def test_clustered_wilson_covers_where_groups_differ():
  rng = np.random.default_rng(2)
  group = np.repeat(np.arange(40), 15)
  covered, naive = [], []
  for _ in range(600):
    rate = rng.beta(2, 6, 40)[group]
    hits = rng.random(600) < rate
    covered.append(covers(clustered_wilson(hits, np.ones(600), group), 0.25))
    naive.append(covers(wilson(hits.sum(), 600), 0.25))
  # Standard error of a coverage of .95 is .009.
  assert 0.92 <= np.mean(covered) <= 0.98
  assert np.mean(naive) < 0.85


def test_a_share_without_variance_counts_groups():
  found = clustered_wilson(
    np.full(50, 2), np.full(50, 2), np.repeat(np.arange(10), 5)
  )
  assert found.value == found.high == 1
  quantile = stats.t.ppf(0.975, 9)
  assert found.low == pytest.approx(10 / (10 + quantile**2))


def test_one_group_has_no_interval():
  found = clustered_wilson(np.ones(3), np.full(3, 2), np.zeros(3))
  assert found[:3] == (0.5, None, None)


@pytest.mark.parametrize(
  'successes, counts', [([2, 1], [1, 1]), ([0, 0], [0, 0]), ([1], [1, 1])]
)
def test_bad_counts_are_refused(successes, counts):
  with pytest.raises(ValueError):
    clustered_wilson(np.array(successes), np.array(counts), np.arange(2))
  with pytest.raises(ValueError):
    clopper_pearson(3, 2)

"""Splits by enumeration, the test's size and power, the Beta law."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from alignment.noise.estimation.heterogeneity import (
  beta_mixture_rate,
  fit_beta,
  heterogeneity_test,
)
from alignment.noise.estimation.splits import (
  log_beta,
  log_equal,
  vote_splits,
)
from tests.noise.estimation import votes


def _splits(rng, size, flip_rate, num_votes):
  return vote_splits(votes.table(votes.draw(rng, size, flip_rate, num_votes)))


@pytest.mark.parametrize('num_votes', [2, 3, 4, 5])
def test_splits_at_one_rate_against_every_sequence_of_votes(num_votes):
  splits = _splits(np.random.default_rng(0), 200, 0.3, num_votes)
  prior, rate = 0.37, 0.13
  chance = np.zeros(len(splits.votes))
  for flips in itertools.product((0, 1), repeat=num_votes):
    for true in (0, 1):
      ones = sum(f ^ true for f in flips)
      weight = prior if true else 1 - prior
      weight *= np.prod([rate if f else 1 - rate for f in flips])
      minority = min(ones, num_votes - ones)
      chance[splits.minority == minority] += weight
  np.testing.assert_allclose(np.exp(log_equal(splits, rate)), chance)


def test_splits_of_a_beta_law_integrate_those_of_one_rate():
  splits = _splits(np.random.default_rng(1), 100, 0.3, 5)
  mean, spread = 0.23, 0.17
  law = stats.beta(mean * (1 / spread - 1), (1 - mean) * (1 / spread - 1))
  for cell in range(3):
    expected, _ = integrate.quad(
      lambda e, cell=cell: np.exp(log_equal(splits, e)[cell]) * law.pdf(e),
      0,
      1,
    )
    found = np.exp(log_beta(splits, mean, spread))[cell]
    assert found == pytest.approx(expected, rel=1e-6)


def test_rows_of_several_numbers_of_votes_get_their_own_cells():
  rng = np.random.default_rng(2)
  label = votes.draw(rng, 60, 0.3, 5)
  table = votes.table(label)
  kept = (table.task % 2 == 0) | (table.worker < 3)
  few = type(table)(
    table.task[kept], table.worker[kept], table.label[kept], 60, 5, 2
  )
  splits = vote_splits(few)
  for row, cell in zip(splits.row, splits.cell, strict=True):
    given = label[row, : 5 if row % 2 == 0 else 3]
    assert splits.votes[cell] == len(given)
    assert splits.minority[cell] == min(given.sum(), len(given) - given.sum())
  np.testing.assert_array_equal(
    splits.count, np.bincount(splits.cell, minlength=5)
  )


def test_three_votes_cannot_tell_one_rate_from_many():
  """The same E[ε(1 − ε)], so the same splits: nothing to test."""
  splits = _splits(np.random.default_rng(3), 50, 0.3, 3)
  law = np.array([0.0, 0.4])
  moment = 0.5 * 0.24
  equal = (1 - np.sqrt(1 - 4 * moment)) / 2
  mixed = np.mean([np.exp(log_equal(splits, e)) for e in law], axis=0)
  np.testing.assert_allclose(np.exp(log_equal(splits, equal)), mixed)
  found = heterogeneity_test(
    votes.table(votes.draw(np.random.default_rng(3), 500, 0.3, 3)),
    np.arange(500),
    np.random.default_rng(0),
  )
  assert found.p_value is None and 'four votes' in found.refusal


@pytest.mark.parametrize('grouped', [False, True])
def test_one_rate_is_rejected_as_often_as_it_should(grouped):
  rng = np.random.default_rng(4)
  p_values = []
  for _ in range(300):
    label = votes.draw(rng, 200, 0.2, 5)
    group = np.arange(200)
    if grouped:
      label, group = np.repeat(label, 3, axis=0), np.repeat(group, 3)
    table = votes.table(label)
    found = heterogeneity_test(table, group, rng, resamples=199)
    p_values.append(found.p_value)
  # Standard error .013; the t of few disagreements leans to one side.
  assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10


def test_rates_that_differ_are_found_and_measured():
  rng = np.random.default_rng(5)
  law = rng.choice([0.02, 0.4], 4000, p=[0.6, 0.4])
  found = heterogeneity_test(
    votes.table(votes.draw(rng, 4000, law[:, None], 5)),
    np.arange(4000),
    rng,
    resamples=199,
  )
  assert found.p_value == 1 / 200
  truth = np.var(law * (1 - law))
  # The statistic is the estimate over its standard error.
  error = found.variance / found.statistic
  assert found.variance == pytest.approx(truth, abs=4 * error)
  observed = sum(count for _, _, count, _ in found.splits)
  expected = sum(rows for *_, rows in found.splits)
  assert observed == pytest.approx(expected) == 4000
  assert found.equal_rate < law.mean()


def test_the_beta_law_is_found_again():
  rng = np.random.default_rng(6)
  law = rng.beta(1.5, 8.5, 40_000)
  splits = _splits(rng, 40_000, law[:, None], 7)
  mean, spread = fit_beta(splits)
  # Standard errors are about .001 and .004.
  assert mean == pytest.approx(0.15, abs=0.005)
  assert spread == pytest.approx(1 / 11, abs=0.02)


def test_the_fit_is_the_maximum_on_a_grid():
  rng = np.random.default_rng(7)
  law = rng.beta(1, 4, 800)
  splits = _splits(rng, 800, law[:, None], 5)
  mean, spread = fit_beta(splits)
  best = log_beta(splits, mean, spread) @ splits.count
  for other in np.linspace(0.02, 0.49, 24):
    values = log_beta(splits, other, np.linspace(0.005, 0.9, 60))
    assert best >= (values @ splits.count).max() - 1e-4


def test_equal_rates_agreement_is_too_low_where_the_beta_law_is_not():
  rng = np.random.default_rng(8)
  law = rng.beta(2, 8, 6000)
  found = beta_mixture_rate(
    votes.evidence(votes.draw(rng, 6000, law[:, None], 7)), rng
  )
  assert found.low <= 0.2 <= found.high
  assert found.low > 0.17
  # What two votes would say: E[ε(1 − ε)] = .2 − (.04 + .2 · .8 / 11).
  moment = 0.2 - 0.04 - 0.16 / 11
  assert (1 - np.sqrt(1 - 4 * moment)) / 2 < found.low


def test_no_disagreement_leaves_a_set_from_zero_and_few_votes_a_refusal():
  rng = np.random.default_rng(9)
  found = beta_mixture_rate(votes.evidence(votes.draw(rng, 300, 0, 5)), rng)
  assert (found.rate, found.low) == (0, 0)
  found = beta_mixture_rate(votes.evidence(votes.draw(rng, 300, 0.2, 3)), rng)
  assert 'four votes' in found.refusal and found.rate is None


def test_rows_in_groups_widen_the_interval_of_the_beta_law():
  rng = np.random.default_rng(10)
  label = votes.draw(rng, 1500, rng.beta(2, 12, (1500, 1)), 6)
  once = beta_mixture_rate(votes.evidence(label), rng)
  thrice = beta_mixture_rate(
    votes.evidence(np.repeat(label, 3, 0), np.repeat(np.arange(1500), 3)), rng
  )
  assert thrice.rate == pytest.approx(once.rate, abs=1e-4)
  assert thrice.count == 1500
  # Copies add nothing: the interval is that of the rows without them.
  assert thrice.low == pytest.approx(once.low, abs=2e-3)
  assert thrice.high == pytest.approx(once.high, abs=4e-3)

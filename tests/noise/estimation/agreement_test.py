"""Rates from agreement against enumeration, and what is refused."""

import itertools

import numpy as np
import pytest

from alignment.metrics.intervals import wilson
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.agreement import (
  agreement_bounds,
  agreement_rate,
  pooled_agreement,
  rate_of_agreement,
)
from alignment.noise.estimation.estimate import HALF, ONE_SIDED
from alignment.noise.evidence import Evidence
from tests.noise.estimation import votes

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize('num_classes', [2, 3, 5])
@pytest.mark.parametrize('rate', [0.0, 0.07, 0.31])
def test_the_rate_is_that_at_which_two_votes_agree_so_often(num_classes, rate):
  transition = np.full((num_classes, num_classes), rate / (num_classes - 1))
  np.fill_diagonal(transition, 1 - rate)
  prior = np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum()
  agreement = sum(
    p * transition[true, vote] ** 2
    for true, p in enumerate(prior)
    for vote in range(num_classes)
  )
  assert rate_of_agreement(agreement, num_classes) == pytest.approx(rate)


def test_agreement_at_or_below_chance_is_the_rate_of_chance():
  np.testing.assert_allclose(rate_of_agreement([0.5, 0.3], 2), [0.5, 0.5])
  assert rate_of_agreement(0.2, 4) == pytest.approx(0.75)


def test_pairs_of_votes_against_a_loop_over_them():
  label = votes.draw(np.random.default_rng(1), 40, 0.25, 4)
  agreeing = sum(
    a == b for row in label for a, b in itertools.combinations(row, 2)
  )
  found = pooled_agreement(votes.table(label), np.arange(40))
  assert found.value == pytest.approx(agreeing / (40 * 6))


def test_two_votes_a_row_are_inverted_wilson():
  label = votes.draw(np.random.default_rng(2), 500, 0.2, 2)
  found = agreement_rate(votes.evidence(label), _RNG)
  share = wilson(int(np.sum(label[:, 0] == label[:, 1])), 500)
  ends = [(1 - np.sqrt(2 * a - 1)) / 2 for a in share[:3]]
  np.testing.assert_allclose([found.rate, found.high, found.low], ends)
  assert (found.count, found.flags) == (500, ())


def test_rows_in_groups_widen_the_interval():
  label = np.repeat(votes.draw(np.random.default_rng(3), 200, 0.2, 2), 4, 0)
  alone = agreement_rate(votes.evidence(label), _RNG)
  group = np.repeat(np.arange(200), 4)
  grouped = agreement_rate(votes.evidence(label, group), _RNG)
  assert grouped.rate == alone.rate
  assert grouped.count == 200
  ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
  # Four copies of a row count once: √4, but for the curve of Wilson's ends.
  assert ratio == pytest.approx(2, rel=0.06)


def test_an_interval_that_reaches_one_half_ends_there_and_is_flagged():
  label = votes.draw(np.random.default_rng(4), 120, 0.42, 2)
  found = agreement_rate(votes.evidence(label), _RNG)
  assert found.high == 0.5
  assert HALF in found.flags
  # Exactly half of the pairs agree: no number, the set is left.
  even = np.zeros((100, 2), bool)
  even[:50, 1] = True
  even[:25] ^= True
  found = agreement_rate(votes.evidence(even), _RNG)
  assert found.rate is None
  assert 0.2 < found.low < found.high == 0.5
  assert HALF in found.flags


def test_less_agreement_than_by_chance_is_refused():
  label = np.zeros((400, 2), bool)
  label[:, 1] = np.arange(400) % 10 < 7
  label[::3] ^= True
  for estimator in (agreement_rate, agreement_bounds):
    found = estimator(votes.evidence(label), _RNG)
    assert found.rate is None and found.low is None
    assert 'by chance' in found.refusal


def test_votes_that_always_agree_are_one_sided():
  label = np.repeat(np.random.default_rng(5).random((300, 1)) < 0.4, 2, 1)
  found = agreement_rate(votes.evidence(label), _RNG)
  assert found.rate == found.low == 0
  assert found.flags == (ONE_SIDED,)
  # The rate at which 300 pairs all agree with probability .025 is .0061.
  assert found.high == pytest.approx(0.0061, abs=2e-3)


def test_bounds_hold_the_mean_of_any_law_of_rates_up_to_one_half():
  rng = np.random.default_rng(6)
  for law in (
    rng.choice([0.0, 0.5], 60_000, p=[0.7, 0.3]),
    rng.beta(1, 4, 60_000) / 2,
    np.full(60_000, 0.22),
  ):
    label = votes.draw(rng, 60_000, law[:, None], 2)
    found = agreement_bounds(votes.evidence(label), _RNG)
    assert found.low <= law.mean() <= found.high
    assert found.rate is None and 'identified set' in found.flags
  # At the two extremes the bounds are sharp, up to sampling.
  assert found.low == pytest.approx(0.22, abs=0.01)


def test_bounds_are_those_of_the_moments():
  label = np.zeros((1000, 2), bool)
  label[:500] = True
  label[:200, 1] = False
  found = agreement_bounds(votes.evidence(label), _RNG)
  low, high = wilson(800, 1000)[1:3]
  assert found.high == pytest.approx(1 - low)
  assert found.low == pytest.approx((1 - np.sqrt(2 * high - 1)) / 2)


@pytest.mark.parametrize(
  'case, words',
  [
    ('none', 'no row has two votes'),
    ('single', 'no row has two votes'),
    ('one class', 'same class'),
    ('twice', 'voted twice'),
  ],
)
def test_votes_that_tell_nothing_are_refused_with_a_remedy(case, words):
  label = votes.draw(np.random.default_rng(7), 50, 0.2, 2)
  given = votes.table(label)
  if case == 'none':
    given = None
  elif case == 'single':
    given = votes.table(label[:, :1])
  elif case == 'one class':
    given = votes.table(np.zeros((50, 2), bool))
  else:
    given = VoteTable(given.task, 0 * given.worker, given.label, 50, 2, 2)
  evidence = Evidence(
    label=label[:, 0].astype(np.int32),
    num_classes=2,
    group=np.arange(50),
    votes=given,
  )
  found = agreement_rate(evidence, _RNG)
  assert words in found.refusal
  assert found.rate is None and found.low is None and found.high is None


def test_a_single_group_has_no_interval():
  label = votes.draw(np.random.default_rng(8), 80, 0.2, 2)
  found = agreement_rate(votes.evidence(label, np.zeros(80, int)), _RNG)
  assert found.rate is not None and found.low is None
  assert found.flags == ('no interval: a single unit',)

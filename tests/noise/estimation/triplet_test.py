"""Annotators' own rates: the closed form, dependence, refusals."""

import numpy as np
import pytest

from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.skills import Products, fit_skills
from alignment.noise.estimation.triplet import (
  CORRELATED,
  annotator_rates,
  find_panel,
  independence_p_value,
  triplet_rate,
)
from tests.noise.estimation import votes

_RNG = np.random.default_rng(0)


def test_three_annotators_are_the_closed_form():
  label = votes.draw(
    np.random.default_rng(1), 4000, np.array([0.05, 0.2, 0.33]), 3
  )
  found = annotator_rates(votes.evidence(label))
  sign = 2 * label - 1.0
  c = {
    (a, b): np.mean(sign[:, a] * sign[:, b])
    for a, b in [(0, 1), (0, 2), (1, 2)]
  }
  skills = [
    np.sqrt(c[0, 1] * c[0, 2] / c[1, 2]),
    np.sqrt(c[0, 1] * c[1, 2] / c[0, 2]),
    np.sqrt(c[0, 2] * c[1, 2] / c[0, 1]),
  ]
  for worker, skill in enumerate(skills):
    rate = found[worker]
    assert rate.rate == pytest.approx((1 - skill) / 2, abs=1e-4)
    assert rate.low < (0.05, 0.2, 0.33)[worker] < rate.high
  mean = triplet_rate(votes.evidence(label), _RNG)
  assert mean.rate == pytest.approx((1 - np.mean(skills)) / 2, abs=1e-4)


def test_the_interval_is_where_the_profile_distance_reaches_its_limit():
  """Against a dense grid of skills of the same mean."""
  label = votes.draw(
    np.random.default_rng(2), 500, np.array([0.1, 0.15, 0.25]), 3
  )
  evidence = votes.evidence(label)
  panel = find_panel(evidence.votes, evidence.group)
  products = panel.products
  weight = np.linalg.inv(products.covariance)
  found = triplet_rate(evidence, _RNG)
  for end in (found.low, found.high):
    mean = 1 - 2 * end
    first, second = np.meshgrid(*[np.linspace(0.02, 0.999, 800)] * 2)
    skills = [first, second, 3 * mean - first - second]
    order = list(zip(products.first, products.second, strict=True))
    apart = np.stack(
      [
        products.mean[p] - skills[a] * skills[b]
        for p, (a, b) in enumerate(order)
      ],
      axis=-1,
    )
    distance = np.einsum('...i,ij,...j', apart, weight, apart)
    inside = (skills[2] > 0) & (skills[2] < 1)
    # The end is known to a step of a grid, a fiftieth of its distance.
    assert distance[inside].min() == pytest.approx(3.841, abs=0.2)


def test_four_annotators_weigh_all_pairs_by_their_covariance():
  first, second = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]).T
  rng = np.random.default_rng(3)
  truth = np.array([0.9, 0.7, 0.5, 0.3])
  root = 0.02 * rng.standard_normal((6, 12))
  noise = 0.02 * rng.standard_normal(6)
  products = Products(
    first, second, truth[first] * truth[second] + noise, root @ root.T
  )
  skills, distance = fit_skills(products)
  weight = np.linalg.inv(products.covariance)

  def value(s):
    apart = products.mean - s[first] * s[second]
    return apart @ weight @ apart

  assert distance == pytest.approx(value(skills), rel=1e-6)
  for _ in range(200):
    assert value(skills + 0.01 * rng.standard_normal(4)) >= distance - 1e-6


@pytest.mark.parametrize('grouped', [False, True])
def test_independent_annotators_pass_and_one_who_copies_does_not(grouped):
  rng = np.random.default_rng(4)
  p_values = {False: [], True: []}
  for copies in (False, True):
    for _ in range(40):
      label = votes.draw(rng, 4000, np.array([0.1, 0.2, 0.15, 0.25]), 4)
      if copies:
        same = rng.random(4000) < 0.5
        label[same, 1] = label[same, 0]
      group = np.arange(4000) // (2 if grouped else 1)
      panel = find_panel(votes.table(label), group)
      p_values[copies].append(independence_p_value(panel))
  # Binomial with 40 trials at .05: 8 or more has probability .001.
  assert np.sum(np.array(p_values[False]) < 0.05) <= 7
  # Nearly five standard errors of the log of a tetrad of products.
  assert np.mean(np.array(p_values[True]) < 0.01) > 0.9
  flags = triplet_rate(votes.evidence(label), rng).flags
  assert any(flag.startswith(CORRELATED) for flag in flags)


def test_three_annotators_cannot_be_contradicted():
  label = votes.draw(np.random.default_rng(5), 300, 0.2, 3)
  label[:, 1] = label[:, 0]
  panel = find_panel(votes.table(label), np.arange(300))
  assert independence_p_value(panel) is None


def test_an_annotator_who_is_mostly_wrong_is_named():
  rates = np.array([0.1, 0.15, 0.9])
  label = votes.draw(np.random.default_rng(6), 500, rates, 3)
  found = triplet_rate(votes.evidence(label), _RNG)
  assert found.rate is None
  assert 'workers 0 and 2 disagree' in found.refusal


def test_annotators_without_skill_leave_a_set_to_one_half():
  label = np.random.default_rng(7).random((400, 3)) < 0.5
  found = triplet_rate(votes.evidence(label), _RNG)
  assert found.high == 0.5
  assert 'interval touches 1/2' in found.flags
  assert 'two annotators agree hardly more than by chance' in found.flags


def test_annotators_who_always_agree_are_one_sided():
  label = np.repeat(np.random.default_rng(8).random((300, 1)) < 0.4, 3, 1)
  found = triplet_rate(votes.evidence(label), _RNG)
  assert found.rate == found.low == 0
  assert 0 < found.high < 0.02


def test_a_panel_needs_three_who_share_rows():
  label = votes.draw(np.random.default_rng(9), 200, 0.2, 4)
  table = votes.table(label)
  # Worker 3 has rows of its own; 0 to 2 share all of theirs.
  kept = (table.worker < 3) == (table.task < 100)
  few = VoteTable(
    table.task[kept], table.worker[kept], table.label[kept], 200, 4, 2
  )
  panel = find_panel(few, np.arange(200))
  assert sorted(panel.worker) == [0, 1, 2]
  assert panel.count == 100
  few = VoteTable(
    table.task[kept][:20],
    table.worker[kept][:20],
    table.label[kept][:20],
    200,
    4,
    2,
  )
  assert find_panel(few, np.arange(200)) is None


def test_missing_votes_leave_the_products_of_the_rows_both_judged():
  label = votes.draw(np.random.default_rng(10), 300, 0.2, 3)
  table = votes.table(label)
  kept = (table.worker != 2) | (table.task < 90)
  few = VoteTable(
    table.task[kept], table.worker[kept], table.label[kept], 300, 3, 2
  )
  panel = find_panel(few, np.arange(300))
  sign = 2 * label - 1.0
  shared = {(0, 1): 300, (0, 2): 90, (1, 2): 90}
  for place, (a, b) in enumerate(
    zip(panel.products.first, panel.products.second, strict=True)
  ):
    pair = tuple(sorted((panel.worker[a], panel.worker[b])))
    product = sign[: shared[pair], pair[0]] * sign[: shared[pair], pair[1]]
    assert panel.products.mean[place] == pytest.approx(product.mean())
    # Plus the variance of one disagreement.
    variance = product.var(ddof=1) / len(product) + 4 / len(product) ** 2
    assert panel.products.covariance[place, place] == pytest.approx(
      variance, rel=0.02
    )


@pytest.mark.parametrize('size', [300, 30_000])
def test_the_limit_of_no_disagreement_falls_with_the_rows(size):
  label = np.repeat(np.random.default_rng(12).random((size, 1)) < 0.4, 3, 1)
  found = triplet_rate(votes.evidence(label), _RNG)
  # Of two who agree on all rows it is a few disagreements in `size`.
  assert 0.3 / size < found.high < 3 / size


@pytest.mark.parametrize('groups, size', [(5, None), (7, 3), (12, 4), (400, 5)])
def test_few_groups_allow_few_annotators(groups, size):
  label = votes.draw(np.random.default_rng(11), 400, 0.2, 5)
  panel = find_panel(votes.table(label), np.arange(400) % groups)
  assert (None if panel is None else len(panel.worker)) == size

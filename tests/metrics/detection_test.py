"""Figures of detection: by hand, by resampling rows in a loop, by coverage."""

import numpy as np
import pytest

from alignment.metrics.auroc import auroc
from alignment.metrics.detection import clean_accuracy, detection


def scored(rng, rows=200, levels=None):
  wrong = rng.random(rows) < 0.25
  scores = rng.normal(0, 1, rows) + wrong
  if levels:
    scores = np.round(scores * levels)
  return scores, wrong


def by_hand(scores, wrong, k):
  """Without ties: walk down the list."""
  ordered = wrong[np.argsort(-scores)]
  ranks = np.flatnonzero(ordered) + 1
  average = np.mean(np.arange(1, len(ranks) + 1) / ranks)
  hits = ordered[:k].sum()
  return auroc(scores, wrong), average, hits / k, hits / wrong.sum()


@pytest.mark.parametrize('k', [1, 37, 200])
def test_values(k):
  rng = np.random.default_rng(k)
  scores, wrong = scored(rng)
  found = detection(scores, wrong, np.arange(200), rng, k=k)
  np.testing.assert_allclose(
    [f.value for f in found.values()], by_hand(scores, wrong, k), rtol=1e-12
  )


def test_ties_count_in_part():
  """Equal to the mean over random orders of the tied rows."""
  rng = np.random.default_rng(0)
  scores, wrong = scored(rng, levels=1)
  found = detection(scores, wrong, np.arange(200), rng, k=60)
  draws = [
    by_hand(scores + 1e-6 * rng.random(200), wrong, 60) for _ in range(2000)
  ]
  mean = np.mean(draws, axis=0)
  # Standard errors: .0002 of auroc, .001 at k.
  assert found['auroc'].value == pytest.approx(mean[0], abs=0.001)
  assert found['precision_at_k'].value == pytest.approx(mean[2], abs=0.004)
  assert found['recall_at_k'].value == pytest.approx(mean[3], abs=0.004)


def test_intervals_are_those_of_resampled_rows():
  """Resamples drawn one by one, the rows of a group copied out."""
  rng = np.random.default_rng(1)
  scores, wrong = scored(rng, 240, levels=3)
  groups = rng.integers(0, 40, 240)
  found = detection(scores, wrong, groups, rng, k=60, resamples=4000)
  rows = [np.flatnonzero(groups == g) for g in range(40)]
  draws = []
  for _ in range(1000):
    pick = np.concatenate([rows[g] for g in rng.integers(0, 40, 40)])
    k = round(len(pick) / 4)
    again = detection(scores[pick], wrong[pick], np.zeros(len(pick)), rng, k=k)
    draws.append([f.value for f in again.values()])
  low, high = np.quantile(draws, [0.02, 0.98], axis=0)
  for i, estimate in enumerate(found.values()):
    # Widened to t(39): a quantile of .02 rather than .025; 1000 draws place it
    # to about a tenth of the half-width.
    width = estimate.high - estimate.low
    assert estimate.low == pytest.approx(low[i], abs=0.12 * width)
    assert estimate.high == pytest.approx(high[i], abs=0.12 * width)
    assert estimate.count == 40


@pytest.mark.slow
def test_intervals_cover_where_rows_of_a_group_are_alike():
  """400 data sets of 40 groups; the long run is known from 200,000 rows.

  Binomial error of the coverage is .011. Intervals over rows would cover some
  70 % here, for the rows of a group share their errors.
  """

  def draw(rng, groups):
    place = np.repeat(np.arange(groups), 8)
    hard = rng.normal(0, 1, groups)[place]
    wrong = rng.random(len(place)) < 1 / (1 + np.exp(1.5 - hard))
    return rng.normal(0, 1, len(place)) + wrong + hard / 2, wrong, place

  rng = np.random.default_rng(2)
  scores, wrong, place = draw(rng, 25_000)
  truth = detection(scores, wrong, place * 0, rng, k=len(place) // 4)
  inside = {name: [] for name in truth}
  for _ in range(400):
    scores, wrong, place = draw(rng, 40)
    found = detection(scores, wrong, place, rng, k=80, resamples=400)
    for name, estimate in found.items():
      inside[name].append(estimate.low <= truth[name].value <= estimate.high)
  for name, hits in inside.items():
    assert 0.90 <= np.mean(hits) <= 0.985, (name, np.mean(hits))


def test_one_group_has_no_interval():
  rng = np.random.default_rng(3)
  scores, wrong = scored(rng)
  found = detection(scores, wrong, np.zeros(200), rng)
  assert list(found) == ['auroc', 'average_precision']
  assert found['auroc'].low is None and found['auroc'].count == 1


def test_the_same_seed_gives_the_same_interval():
  scores, wrong = scored(np.random.default_rng(4))
  one, two = (
    detection(scores, wrong, np.arange(200), np.random.default_rng(5), k=20)
    for _ in range(2)
  )
  assert one == two


def test_clean_accuracy_of_a_repair():
  rng = np.random.default_rng(6)
  before = (rng.random(300) < 0.7).astype(float)
  after = np.where(rng.random(300) < 0.5, 1.0, before)
  weight = rng.gamma(1, 1, 300) * (rng.random(300) < 0.9)
  groups = rng.integers(0, 60, 300)
  found = clean_accuracy(before, after, weight, groups)
  ratio = weight @ after / weight.sum()
  assert found['before'].value == pytest.approx(before.mean())
  assert found['after'].value == pytest.approx(ratio)
  assert found['difference'].value == pytest.approx(ratio - before.mean())
  draws = []
  rows = [np.flatnonzero(groups == g) for g in range(60)]
  for _ in range(3000):
    pick = np.concatenate([rows[g] for g in rng.integers(0, 60, 60)])
    kept = weight[pick]
    draws.append(kept @ after[pick] / kept.sum() - before[pick].mean())
  # Linearisation and bootstrap differ by some percent at 60 groups.
  half = (found['difference'].high - found['difference'].low) / 2
  assert half == pytest.approx(2.0 * np.std(draws), rel=0.1)


def test_refusals():
  rng = np.random.default_rng(7)
  scores, wrong = scored(rng)
  groups = np.arange(200)
  for match, arguments in (
    ('k=201', (scores, wrong, groups, 201)),
    ('k=0', (scores, wrong, groups, 0)),
    ('both right and wrong', (scores, wrong | True, groups, 5)),
    ('NaN', (np.where(wrong, np.nan, scores), wrong, groups, 5)),
    ('groups has shape', (scores, wrong, groups[1:], 5)),
    ('is_wrong', (scores, wrong[1:], groups, 5)),
  ):
    with pytest.raises(ValueError, match=match):
      detection(*arguments[:3], rng, k=arguments[3])
  ones = np.ones(3)
  for match, arguments in (
    ('before', (2 * ones, ones, ones)),
    ('after', (ones, ones[:2], ones)),
    ('weight', (ones, ones, 0 * ones)),
  ):
    with pytest.raises(ValueError, match=match):
      clean_accuracy(*arguments, np.arange(3))

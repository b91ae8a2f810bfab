"""A flip rate for every annotator from how often each two of them agree.

With y = ±1 for the two classes and skill s = 1 − 2ε, independent errors give
E[y_a · y_b] = s_a · s_b whatever the classes' frequencies. Three annotators
solve it exactly; from four on it can be contradicted, and is where annotators
copy each other or share a mistake.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from scipy import stats

from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.agreement import (
  two_classes_refusal,
  votes_refusal,
)
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.estimation.likelihood import count_groups
from alignment.noise.estimation.skills import (
  Products,
  fit_skills,
  mean_skill_interval,
)
from alignment.noise.evidence import Evidence

OWN_RATES = (
  'Annotators err independently given the truth, each at one rate for every '
  'row and both classes, and none is wrong more often than right.'
)
FEWEST_SHARED, MOST_ANNOTATORS = 30, 8
NEEDS_THREE = (
  f'no three annotators share {FEWEST_SHARED} rows pair by pair, of six groups '
  'or more; let three label the same rows, or use the agreement of anonymous '
  'votes'
)
# Where products are a third of their standard error χ²(1), 3.84, covers .86-.92
# and this .93-.95: 300 simulations each of 3, 4 and 6 annotators.
_WEAK_LIMIT = 5.0
CORRELATED = 'annotators are not independent'


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
  """Annotators of whom each two judged enough rows together.

  Attributes:
    worker: `[A]` ids, the most active first.
    weight: `[A]` share of the panel's votes.
    products: how each two agree, with the covariance over groups of rows.
    count: rows, or groups, judged by at least two of them.
    num_groups: of groups; None where every row is its own.
  """

  worker: np.ndarray
  weight: np.ndarray
  products: Products
  count: int
  num_groups: int | None


def triplet_rate(evidence: Evidence, _: np.random.Generator) -> RateEstimate:
  """Mean flip rate of a panel's annotators, weighted by their votes.

  `annotator_rates` says what panel, and how.
  """
  panel = _panel_or_refusal(evidence)
  if isinstance(panel, RateEstimate):
    return panel
  return _rate(panel, panel.weight, evidence.group_name)


def annotator_rates(evidence: Evidence) -> dict[int, RateEstimate]:
  """Worker id -> flip rate, for the annotators of the panel.

  The panel is the up to eight most active annotators of whom each two share
  30 rows. Skills minimise the distance of s_a · s_b to the mean products,
  weighted by their covariance; of three annotators that is
  s_1 = √(product_12 · product_13 / product_23). Intervals are profiles of the
  distance at the quantile of χ²(1), or at 5 where a product is less than one
  standard error above 0. From four annotators on the distance left over tests
  independence; below p = .01 every estimate is flagged.

  Returns:
    Empty where there is no panel.

  Source: moments of three annotators, Platanios, Blum and Mitchell, Estimating
  accuracy from unlabeled data, 2014; the distance, Hansen, Large sample
  properties of generalized method of moments estimators, 1982.
  """
  panel = _panel_or_refusal(evidence)
  if isinstance(panel, RateEstimate):
    return {}
  return {
    int(worker): _rate(panel, own, evidence.group_name)
    for worker, own in zip(panel.worker, np.eye(len(panel.worker)), strict=True)
  }


def independence_p_value(panel: Panel) -> float | None:
  """P of so large a distance if errors are independent; None of three."""
  freedom = len(panel.products.mean) - len(panel.worker)
  if freedom < 1:
    return None
  _, distance = fit_skills(panel.products)
  if panel.num_groups is None:
    return float(stats.chi2.sf(distance, freedom))
  # Hotelling's T²: with few groups the covariance is itself uncertain.
  rest = panel.num_groups - freedom
  return float(
    stats.f.sf(distance * rest / freedom / (rest + freedom - 1), freedom, rest)
  )


def find_panel(votes: VoteTable, group: np.ndarray) -> Panel | None:
  """The annotators who overlap pair by pair; None where fewer than three do.

  Args:
    votes: of two classes, at most one of a worker on a row.
    group: `[num_tasks]` what is drawn together.
  """
  given = np.bincount(votes.worker, minlength=votes.num_workers)
  active = np.argsort(-given, kind='stable')[:64]
  active = active[given[active] >= FEWEST_SHARED]
  sign = np.zeros((votes.num_tasks, len(active)))
  place = np.full(votes.num_workers, -1)
  place[active] = np.arange(len(active))
  used = place[votes.worker] >= 0
  sign[votes.task[used], place[votes.worker[used]]] = 2 * votes.label[used] - 1
  shared = np.abs(sign).T @ np.abs(sign)
  chosen: list[int] = []
  for candidate in range(len(active)):
    tried = [*chosen, candidate]
    rows = np.count_nonzero(sign[:, tried], axis=1) > 1
    num_groups = count_groups(np.asarray(group)[rows])
    # Of fewer groups than pairs the covariance has no inverse.
    pairs = len(tried) * (len(tried) - 1) // 2
    if num_groups is not None and num_groups <= pairs + 2 and pairs > 1:
      break
    if np.all(shared[candidate, chosen] >= FEWEST_SHARED):
      chosen = tried
    if len(chosen) == MOST_ANNOTATORS:
      break
  if len(chosen) < 3:
    return None
  sign = sign[:, chosen]
  rows = np.count_nonzero(sign, axis=1) > 1
  group = np.asarray(group)[rows]
  num_groups = count_groups(group)
  products = _products(sign[rows], group)
  weight = np.abs(sign).sum(axis=0)
  return Panel(
    active[chosen],
    weight / weight.sum(),
    products,
    num_groups or len(group),
    num_groups,
  )


def _panel_or_refusal(evidence: Evidence) -> Panel | RateEstimate:
  why = votes_refusal(evidence.votes) or two_classes_refusal(evidence)
  panel = None if why else find_panel(evidence.votes, evidence.group)
  if panel is None:
    return refused('triplet', OWN_RATES, why or NEEDS_THREE)
  products = panel.products
  error = np.sqrt(np.diagonal(products.covariance))
  opposed = np.flatnonzero(products.mean < -3 * error)
  if len(opposed):
    pair = panel.worker[
      [products.first[opposed[0]], products.second[opposed[0]]]
    ]
    return refused(
      'triplet',
      OWN_RATES,
      f'workers {pair[0]} and {pair[1]} disagree more often than by chance: '
      'one of them is mostly wrong, or saw the completions in another order; '
      'take that worker out, or turn its labels',
      count=panel.count,
      unit=evidence.group_name,
    )
  return panel


def _rate(panel: Panel, weight: np.ndarray, unit: str) -> RateEstimate:
  usual = stats.chi2.ppf(0.95, 1)
  is_weak = panel.products.signal < 1
  limit = _WEAK_LIMIT if is_weak else usual
  if panel.num_groups is not None:
    limit *= stats.t.ppf(0.975, panel.num_groups - 1) ** 2 / usual
  skill, low, high = mean_skill_interval(panel.products, weight, limit)
  p_value = independence_p_value(panel)
  flags = ()
  if p_value is not None and p_value < 0.01:
    flags = (f'{CORRELATED}: p = {p_value:.2g}',)
  if is_weak:
    flags = (*flags, 'two annotators agree hardly more than by chance')
  agree_always = np.all(panel.products.mean == 1)
  return bounded(
    'triplet',
    OWN_RATES,
    0.0 if agree_always else (1 - skill) / 2,
    (1 - high) / 2,
    (1 - low) / 2,
    count=panel.count,
    unit=unit,
    flags=flags,
  )


def _products(sign: np.ndarray, group: np.ndarray) -> Products:
  """Products of each two columns of ±1 (0 where there is no vote)."""
  first, second = np.array(
    list(itertools.combinations(range(sign.shape[1]), 2))
  ).T
  product = sign[:, first] * sign[:, second]
  count = np.abs(product).sum(axis=0)
  mean = product.sum(axis=0) / count
  pull = (product - mean * np.abs(product)) / count
  _, place = np.unique(group, return_inverse=True)
  sums = np.zeros((place.max() + 1, len(mean)))
  np.add.at(sums, place, pull)
  size = len(sums)
  covariance = size / (size - 1) * sums.T @ sums
  # Annotators who always agree have no variance; one disagreement more would
  # have that of 4 / count².
  covariance += np.diag(4 / count**2)
  return Products(first, second, mean, covariance)

"""Rates predicted and observed, where the data hold an answer of their own."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import stats

from alignment.data.label_answers import ids_of
from alignment.metrics.intervals import Estimate, clustered_mean
from alignment.metrics.shares import clustered_wilson
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.catalogue import estimate_all
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.estimation.forecast import forecast_votes
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.annotators import Annotators
from alignment.protocols.audit.rates import OF_VOTES, Rates
from alignment.protocols.audit.subject import Subject
from alignment.protocols.audit.suspicion import vote_posterior

FEWEST_ROWS = 30
MOST_SPLIT = 9
MEAN_WRONG = 'mean P(wrong)'
VOTE, LABEL = 'error of one vote', 'error of the label at hand'
BLIND = ('annotators', 'triangles', 'stated', 'repeated_rows')
"""Estimators of the audit's own, none of which reads true classes."""


class Check(NamedTuple):
  """One prediction and what came out.

  Attributes:
    what: is predicted.
    by: the estimator that predicts, blind to the observation.
    predicted: with its interval, or an identified set of value NaN.
    observed: with an interval over groups.
    unit: what a group is.
    holds: whether they agree within their intervals, or the prediction is not
      below an observation that is a lower bound; None where one has no
      interval.
  """

  what: str
  by: str
  predicted: Estimate
  observed: Estimate
  unit: str
  holds: bool | None


def rate_checks(
  subject: Subject,
  evidence: Evidence,
  rates: Rates,
  annotators: Annotators,
  rng: np.random.Generator,
) -> list[Check]:
  """Every rate that the data can be held against.

  Where true classes are known, errors are counted, and estimators are asked
  again without them. Else the error that votes predict of the label at hand
  stands against the one that cycles among texts show at least, and the error
  that labellers state against the one that rows of equal texts show. How votes
  split is predicted from few of them on other groups.
  """
  gold = evidence.clean_label
  known = np.zeros(len(evidence), bool) if gold is None else gold >= 0
  if known.sum() >= FEWEST_ROWS:
    checks = _against_gold(subject, evidence, known, annotators, rates, rng)
  else:
    checks = _against_triangles(subject, evidence, annotators, rates)
    checks += _stated_against_repeats(evidence, rates)
  return checks + _forecasts(evidence, rng)


def majority_error(votes: VoteTable, rate: float) -> float:
  """Mean P(the majority of a row's votes is wrong | no tie); two classes.

  Σ_{k > V/2} C(V, k) · rate^k · (1 − rate)^(V − k) / P(no tie)
  """
  total = votes.counts.sum(axis=1)
  sizes, times = np.unique(total[total > 0], return_counts=True)
  wrong = stats.binom.sf(sizes / 2, sizes, rate)
  tied = np.where(sizes % 2 == 0, stats.binom.pmf(sizes // 2, sizes, rate), 0)
  return float(np.average(wrong / (1 - tied), weights=times))


def _against_gold(
  subject: Subject,
  evidence: Evidence,
  known: np.ndarray,
  annotators: Annotators,
  rates: Rates,
  rng: np.random.Generator,
) -> list[Check]:
  gold, group = evidence.clean_label, evidence.group
  blind = dataclasses.replace(evidence, clean_label=None)
  wrong = (evidence.label != gold)[known]
  observed = {LABEL: clustered_wilson(wrong, np.ones(len(wrong)), group[known])}
  units = {LABEL: evidence.group_name}
  votes = evidence.votes
  if votes is not None:
    judged = known[votes.task]
    misses = votes.label[judged] != gold[votes.task[judged]]
    units[VOTE], drawn = _vote_units(subject, judged)
    observed[VOTE] = clustered_wilson(misses, np.ones(len(misses)), drawn)
  checks = []
  for estimate in [
    *estimate_all(blind, rng),
    *(e for e in rates.estimates if e.estimator in BLIND),
  ]:
    if estimate.low is None or estimate.estimator == 'anchors':
      continue
    what = VOTE if estimate.estimator in OF_VOTES else LABEL
    checks.append(
      _compare(
        what,
        estimate.estimator,
        as_estimate(estimate),
        observed[what],
        units[what],
      )
    )
  by_votes = vote_posterior(blind, rates, annotators)
  if by_votes is not None:
    doubt = 1 - by_votes[0][np.arange(len(evidence)), evidence.label]
    checks.append(
      _compare(
        LABEL,
        f'{MEAN_WRONG}, {by_votes[1]}',
        clustered_mean(doubt[known], group[known]),
        observed[LABEL],
        units[LABEL],
      )
    )
  return checks


def _vote_units(subject: Subject, judged: np.ndarray) -> tuple[str, np.ndarray]:
  """What was drawn together with a vote: its worker's group, else its row's.

  Judges of one model err together, so that dozens of its configurations are
  one draw of a judge.
  """
  votes = subject.evidence.votes
  if subject.worker_group:
    ids, _ = ids_of(subject.worker_group)
    return 'worker groups', ids[votes.worker[judged]]
  evidence = subject.evidence
  return evidence.group_name, evidence.group[votes.task[judged]]


def _against_triangles(
  subject: Subject,
  evidence: Evidence,
  annotators: Annotators,
  rates: Rates,
) -> list[Check]:
  found = {e.estimator: e for e in rates.estimates}
  triangles = found['triangles']
  by_votes = vote_posterior(evidence, rates, annotators)
  if (
    by_votes is None
    or triangles.low is None
    or 'majority' not in subject.label_is
  ):
    return []
  own = ~subject.is_tie
  doubt = 1 - by_votes[0][np.arange(len(evidence)), evidence.label]
  what, observed = 'error of the majority label', as_estimate(triangles)
  at_least = ', at least' if rates.rows_differ else ''
  unit = f'{evidence.group_name}, by cycles{at_least}'
  checks = [
    _compare(
      what,
      f'{MEAN_WRONG}, {by_votes[1]}',
      clustered_mean(doubt[own], evidence.group[own]),
      observed,
      unit,
      is_bound=rates.rows_differ,
    )
  ]
  equal = found['agreement']
  if equal.rate is not None and equal.low is not None:
    of = evidence.votes.of_tasks(np.flatnonzero(own))
    predicted = Estimate(
      *(majority_error(of, x) for x in (equal.rate, equal.low, equal.high)),
      equal.count,
    )
    checks.append(
      _compare(
        what,
        'agreement, votes alike',
        predicted,
        observed,
        unit,
        is_bound=rates.rows_differ,
      )
    )
  return checks


def _stated_against_repeats(evidence: Evidence, rates: Rates) -> list[Check]:
  found = {e.estimator: as_estimate(e) for e in rates.estimates}
  stated, repeated = found['stated'], found['repeated_rows']
  if stated.low is None or repeated.low is None:
    return []
  unit = f'{evidence.group_name}, by rows of equal texts'
  return [_compare(LABEL, 'stated', stated, repeated, unit)]


def _forecasts(evidence: Evidence, rng: np.random.Generator) -> list[Check]:
  """How the votes of half of the groups split, told from few of the others."""
  votes = evidence.votes
  if votes is None or votes.num_classes != 2:
    return []
  checks = []
  rows = forecast_votes(votes, evidence.group, rng)
  # Of many votes there are more splits than anybody reads.
  few = votes.counts.sum(axis=1).max() <= MOST_SPLIT
  for row in rows:
    if not few and row.quantity.endswith('split'):
      continue
    point = float('nan') if row.predicted is None else row.predicted
    checks.append(
      Check(
        f'{row.quantity}, held out',
        f'{row.model} ({row.num_seen} votes seen)',
        Estimate(point, row.low, row.high, row.observed.count),
        row.observed,
        evidence.group_name,
        row.is_covered,
      )
    )
  return checks


def _compare(
  what: str,
  by: str,
  predicted: Estimate,
  observed: Estimate,
  unit: str,
  *,
  is_bound: bool = False,
) -> Check:
  holds = None
  if None not in (predicted.low, observed.low):
    holds = predicted.high >= observed.low
    if not is_bound:
      holds &= predicted.low <= observed.high
  return Check(what, by, predicted, observed, unit, holds)


def as_estimate(rate: RateEstimate) -> Estimate:
  """Value and ends of a rate; a set has the value NaN."""
  value = float('nan') if rate.rate is None else rate.rate
  return Estimate(value, rate.low, rate.high, rate.count)

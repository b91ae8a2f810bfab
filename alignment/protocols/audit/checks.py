"""Predicted against observed, wherever the data hold an answer of their own."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import stats

from alignment.metrics.detection import detection
from alignment.metrics.intervals import Estimate, clustered_mean
from alignment.metrics.shares import clustered_wilson
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection import catalogue
from alignment.noise.estimation.catalogue import estimate_all
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.estimation.forecast import forecast_votes
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.annotators import Annotators
from alignment.protocols.audit.rates import OF_VOTES, Rates
from alignment.protocols.audit.reading import clusters_of, features_of, read
from alignment.protocols.audit.subject import Subject
from alignment.protocols.audit.suspicion import vote_posterior

FEWEST_ROWS = 30


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


class Score(NamedTuple):
  """How well a detector finds wrong labels.

  Attributes:
    detector: its name.
    auroc, precision: with intervals over groups; precision among the first
      rate · B rows.
    share: of labels that are wrong, what a random detector's precision is.
    rows: judged.
    truth: by what.
  """

  detector: str
  auroc: Estimate
  precision: Estimate | None
  share: float
  rows: int
  truth: str


def rate_checks(
  subject: Subject,
  evidence: Evidence,
  rates: Rates,
  annotators: Annotators,
  rng: np.random.Generator,
) -> list[Check]:
  """Every rate whose truth can be counted on known true classes.

  Estimators are asked again without the known classes. Without these, the
  error that votes predict of the label at hand stands against the one that
  cycles among texts show at least, if there are both. How votes split is
  predicted from few of them on other groups.
  """
  gold = evidence.clean_label
  known = np.zeros(len(evidence), bool) if gold is None else gold >= 0
  if known.sum() >= FEWEST_ROWS:
    checks = _against_gold(evidence, known, annotators, rates, rng)
  else:
    checks = _against_triangles(subject, evidence, annotators, rates)
  return checks + _forecasts(evidence, rng)


def detector_scores(
  evidence: Evidence, rates: Rates, rng: np.random.Generator
) -> list[Score]:
  """Detectors against known true classes, on the rows that have one."""
  gold = evidence.clean_label
  if gold is None or np.sum(gold >= 0) < FEWEST_ROWS:
    return []
  # Detectors must not see what they are judged by.
  blind = dataclasses.replace(evidence, clean_label=None)
  known = np.flatnonzero(gold >= 0)
  wrong = evidence.label[known] != gold[known]
  found = rates.of_labels if rates.of_labels else None
  rate = None if found is None or found.estimator == 'anchors' else found.rate
  if rate is None:
    rate = float(np.mean(wrong))
  return _scores(blind, known, wrong, rate, 'the known true class', rng)


def held_out_votes(
  subject: Subject, rates: Rates, rng: np.random.Generator
) -> list[Score]:
  """What the text alone would have found, had every row a single vote.

  A vote is drawn as the label of every row with three or more, a model is
  cross-validated on these labels, and detectors that read no votes are judged
  by the majority of the other votes, ties left out. That majority errs as
  well, so that a perfect detector would not reach 1.
  """
  evidence = subject.evidence
  votes = evidence.votes
  if votes is None or rates.of_votes is None:
    return []
  label, others = _draw_vote(votes, rng)
  counts = others.counts
  leads = np.sort(counts, axis=1)
  rows = np.flatnonzero(
    (counts.sum(axis=1) >= 2) & (leads[:, -1] > leads[:, -2])
  )
  features = features_of(subject)
  if features is None or len(rows) < 10 * FEWEST_ROWS:
    return []
  cluster = clusters_of(evidence.group, subject.texts)
  reading = read(
    features[rows],
    label[rows],
    np.unique(cluster[rows], return_inverse=True)[1],
    num_classes=evidence.num_classes,
    rng=rng,
  )
  if reading is None:
    return []
  single = dataclasses.replace(
    evidence.take(rows),
    label=label[rows],
    probs=reading.probs,
    votes=None,
    clean_label=None,
  )
  wrong = label[rows] != counts[rows].argmax(axis=1)
  return _scores(
    single,
    np.arange(len(rows)),
    wrong,
    rates.of_votes.rate,
    'the majority of the other votes',
    rng,
  )


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
  evidence: Evidence,
  known: np.ndarray,
  annotators: Annotators,
  rates: Rates,
  rng: np.random.Generator,
) -> list[Check]:
  gold, group = evidence.clean_label, evidence.group
  unit = evidence.group_name
  blind = dataclasses.replace(evidence, clean_label=None)
  wrong = (evidence.label != gold)[known]
  of_label = clustered_wilson(wrong, np.ones(len(wrong)), group[known])
  checks = []
  votes = evidence.votes
  if votes is not None:
    judged = known[votes.task]
    misses = votes.label[judged] != gold[votes.task[judged]]
    of_vote = clustered_wilson(
      misses, np.ones(len(misses)), group[votes.task[judged]]
    )
  for estimate in [
    *estimate_all(blind, rng),
    *(e for e in rates.estimates if e.estimator in ('triangles', 'stated')),
    *(e for e in rates.estimates if e.estimator == 'repeated_rows'),
  ]:
    if estimate.low is None or estimate.estimator == 'anchors':
      continue
    is_vote = estimate.estimator in OF_VOTES
    checks.append(
      _compare(
        'error of one vote' if is_vote else 'error of the label at hand',
        estimate.estimator,
        as_estimate(estimate),
        of_vote if is_vote else of_label,
        unit,
      )
    )
  by_votes = vote_posterior(blind, rates, annotators)
  if by_votes is not None:
    doubt = 1 - by_votes[0][np.arange(len(evidence)), evidence.label]
    checks.append(
      _compare(
        'error of the label at hand',
        f'mean P(wrong), {by_votes[1]}',
        clustered_mean(doubt[known], group[known]),
        of_label,
        unit,
      )
    )
  return checks


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
      f'mean P(wrong), {by_votes[1]}',
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


def _forecasts(evidence: Evidence, rng: np.random.Generator) -> list[Check]:
  """How the votes of half of the groups split, told from few of the others."""
  votes = evidence.votes
  if votes is None or votes.num_classes != 2:
    return []
  checks = []
  for row in forecast_votes(votes, evidence.group, rng):
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


def _scores(
  evidence: Evidence,
  rows: np.ndarray,
  wrong: np.ndarray,
  rate: float,
  truth: str,
  rng: np.random.Generator,
) -> list[Score]:
  if wrong.all() or not wrong.any():
    return []
  k = int(np.clip(round(rate * len(rows)), 1, len(rows)))
  scores = []
  for name, detect in catalogue.DETECTORS.items():
    if catalogue.missing(name, evidence) or name in catalogue.SAME_ORDER[1:]:
      continue
    found = detection(
      detect(evidence)[rows],
      wrong,
      evidence.group[rows],
      rng,
      k=k,
      resamples=500,
    )
    scores.append(
      Score(
        name,
        found['auroc'],
        found['precision_at_k'],
        float(wrong.mean()),
        len(rows),
        truth,
      )
    )
  return sorted(scores, key=lambda s: -s.auroc.value)


def _draw_vote(
  votes: VoteTable, rng: np.random.Generator
) -> tuple[np.ndarray, VoteTable]:
  """One vote of every task as its label (0 where none), and the others."""
  order = np.lexsort((rng.random(len(votes)), votes.task))
  first = order[np.flatnonzero(np.diff(votes.task[order], prepend=-1))]
  label = np.zeros(votes.num_tasks, np.int32)
  label[votes.task[first]] = votes.label[first]
  rest = np.ones(len(votes), bool)
  rest[first] = False
  others = dataclasses.replace(
    votes,
    task=votes.task[rest],
    worker=votes.worker[rest],
    label=votes.label[rest],
  )
  return label, others

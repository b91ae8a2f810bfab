"""How noisy: every estimate, what identifies it, and how it differs by part."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from alignment.metrics.intervals import Estimate, clustered_mean
from alignment.metrics.shares import clustered_wilson
from alignment.noise.estimation.agreement import agreement_rate
from alignment.noise.estimation.catalogue import estimate_all
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.estimation.heterogeneity import (
  HeterogeneityTest,
  heterogeneity_test,
)
from alignment.noise.estimation.identifiability import Finding, find_limits
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.annotators import Annotators
from alignment.protocols.audit.baselines import (
  INDEPENDENT_REPEATS,
  repeated_evidence,
  triangle_rate,
)
from alignment.protocols.audit.subject import Subject

CALIBRATED = "The labellers' stated probabilities are calibrated."
GIVEN = 'The rate is what the command assumed; the data had no say.'
OWN_RATES = (
  'Annotators err independently given the truth, each at a rate of its own for '
  'every row, below 1/2 on the whole.'
)
OF_VOTES = (
  'annotators',
  'triplet',
  'agreement',
  'agreement_bounds',
  'beta_mixture',
)
"""Estimators that speak of one vote, not of the label at hand."""
OF_LABELS = ('anchors', 'stated', 'repeated_rows', 'triangles', 'assumed')
"""Estimators that speak of the label at hand; the best founded first."""
FEWEST_ROWS = 30
FEWEST_VOTES = 20
"""Votes per annotator, on average, from which on each has a rate of its own."""
ALPHA = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One part of a slice.

  Attributes:
    name: of the part.
    rows: how many.
    rate: by the estimator the whole set relies on; None where it has none.
    against_model: share of labels that the text model contradicts, with an
      interval; None without a model.
  """

  name: str
  rows: int
  rate: RateEstimate | None
  against_model: Estimate | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
  """What is known of the noise.

  Attributes:
    estimates: every estimator's answer, refusals included.
    of_votes: the answer of `OF_VOTES` relied upon; None where none identifies.
    of_labels: the answer of `OF_LABELS` relied upon; None likewise.
    heterogeneity: of votes; None where there are no votes.
    parts: slice -> its parts.
    limits: what stands in the way of a rate.
  """

  estimates: Sequence[RateEstimate]
  of_votes: RateEstimate | None
  of_labels: RateEstimate | None
  heterogeneity: HeterogeneityTest | None
  parts: Mapping[str, Sequence[Part]]
  limits: Sequence[Finding]

  @property
  def is_identified(self) -> bool:
    return self.of_votes is not None or self.of_labels is not None

  @property
  def rows_differ(self) -> bool:
    """Whether one rate for all rows has been shown to be wrong."""
    test = self.heterogeneity
    if test is None or test.p_value is None:
      return False
    return test.p_value < ALPHA


def find_rates(
  subject: Subject,
  evidence: Evidence,
  annotators: Annotators,
  rng: np.random.Generator,
  *,
  assumed: float | None = None,
) -> Rates:
  """Asks every estimator about all rows, and the one relied upon about parts.

  Args:
    subject: what is audited.
    evidence: the subject's, with probabilities where there is a model.
    annotators: who labels how well.
    rng: numpy generator.
    assumed: a flip rate of the labels at hand that the reader vouches for.
  """
  estimates = [
    *estimate_all(evidence, rng),
    _of_annotators(subject, annotators),
    _repeated(subject),
    triangle_rate(subject),
    _stated(subject, np.arange(len(subject))),
  ]
  if assumed is not None:
    estimates.append(
      RateEstimate(
        estimator='assumed', assumption=GIVEN, rate=assumed, unit='rows'
      )
    )
  test = None
  if evidence.votes is not None:
    test = heterogeneity_test(evidence.votes, evidence.group, rng)
  of_votes = _best(estimates, ('annotators', 'agreement'))
  of_labels = _best(
    estimates, OF_LABELS[::-1] if assumed is not None else OF_LABELS
  )
  asked = of_votes or of_labels
  parts = {
    name: _parts(subject, evidence, annotators, values, asked, rng)
    for name, values in subject.slices.items()
  }
  return Rates(
    estimates=estimates,
    of_votes=of_votes,
    of_labels=of_labels,
    heterogeneity=test,
    parts=parts,
    limits=find_limits(evidence),
  )


def _best(
  estimates: Sequence[RateEstimate], order: Sequence[str]
) -> RateEstimate | None:
  """The first of these names that is a number."""
  found = {e.estimator: e for e in estimates if e.rate is not None}
  return next((found[name] for name in order if name in found), None)


def _of_annotators(subject: Subject, annotators: Annotators) -> RateEstimate:
  """1 − P(a vote says the truth) under the annotator model."""
  name, votes = 'annotators', subject.evidence.votes
  if annotators.mean_skill is None:
    return refused(
      name, OWN_RATES, 'votes are not signed, or no row has two of them'
    )
  if np.all(votes.counts.max(axis=1) == votes.counts.sum(axis=1)):
    return refused(
      name,
      OWN_RATES,
      'no two votes on a row differ, so that no annotator is seen to err',
    )
  mean = annotators.mean_skill
  active = len(annotators.ranked)
  if len(votes) < FEWEST_VOTES * active:
    return refused(
      name,
      OWN_RATES,
      f'{len(votes)} votes of {active} annotators are too few to give each a '
      f'rate of its own; {FEWEST_VOTES} votes each would do',
    )
  return bounded(
    name,
    OWN_RATES,
    1 - mean.value,
    1 - mean.high,
    1 - mean.low,
    count=mean.count,
    unit=subject.evidence.group_name,
    chance=1 - 1 / subject.evidence.num_classes,
  )


def _votes_in_doubt(
  evidence: Evidence, annotators: Annotators, rows: np.ndarray
) -> RateEstimate:
  """Mean P(a vote on these rows is wrong) under the model of all rows."""
  votes = evidence.votes
  mine = np.isin(votes.task, rows)
  doubt = 1 - annotators.fit.task_probs[votes.task[mine], votes.label[mine]]
  found = clustered_mean(doubt, evidence.group[votes.task[mine]])
  return bounded(
    'annotators',
    OWN_RATES,
    *found[:3],
    count=found.count,
    unit=evidence.group_name,
    chance=1 - 1 / evidence.num_classes,
  )


def _repeated(subject: Subject) -> RateEstimate:
  name = 'repeated_rows'
  evidence = repeated_evidence(subject)
  if evidence is None:
    return refused(
      name,
      INDEPENDENT_REPEATS,
      'hardly any text or pair is labelled in two rows; labelling 200 random '
      'rows a second time would give a number',
    )
  if np.all(evidence.votes.counts.max(axis=1) == evidence.votes.counts.sum(1)):
    return refused(
      name,
      INDEPENDENT_REPEATS,
      f'all {len(evidence)} texts or pairs in several rows are labelled alike, '
      'and copies cannot be told from labels that agree',
    )
  found = agreement_rate(evidence, None)
  return dataclasses.replace(
    found, estimator=name, assumption=INDEPENDENT_REPEATS
  )


def _stated(subject: Subject, rows: np.ndarray) -> RateEstimate:
  """1 − the mean stated probability that the label at hand is right."""
  known = rows[~np.isnan(subject.confidence[rows])]
  if len(known) < FEWEST_ROWS:
    return refused(
      'stated',
      CALIBRATED,
      'the labellers state no probabilities (label_prob, or --confidence)',
    )
  found = clustered_mean(
    1 - subject.confidence[known], subject.evidence.group[known]
  )
  return bounded(
    'stated',
    CALIBRATED,
    *found[:3],
    count=found.count,
    unit=subject.evidence.group_name,
  )


def _parts(
  subject: Subject,
  evidence: Evidence,
  annotators: Annotators,
  values: Sequence[str],
  asked: RateEstimate | None,
  rng: np.random.Generator,
) -> list[Part]:
  """The parts of one slice, the most rows first."""
  names, place, counts = np.unique(
    np.asarray(values), return_inverse=True, return_counts=True
  )
  parts = []
  for i in np.argsort(-counts, kind='stable'):
    rows = np.flatnonzero(place == i)
    against = rate = None
    if evidence.probs is not None:
      wrong = evidence.probs[rows].argmax(axis=1) != evidence.label[rows]
      against = clustered_wilson(
        wrong, np.ones(len(rows)), evidence.group[rows]
      )
    if asked is not None:
      rate = _ask(subject, evidence, annotators, asked.estimator, rows, rng)
    parts.append(
      Part(
        name=str(names[i]),
        rows=len(rows),
        rate=rate,
        against_model=against,
      )
    )
  return parts


def _ask(
  subject: Subject,
  evidence: Evidence,
  annotators: Annotators,
  name: str,
  rows: np.ndarray,
  rng: np.random.Generator,
) -> RateEstimate | None:
  """What an estimator says of some rows; None where it cannot be divided."""
  if len(rows) < FEWEST_ROWS:
    return refused(name, '', f'fewer than {FEWEST_ROWS} rows')
  if name == 'stated':
    return _stated(subject, rows)
  if name in ('assumed', 'repeated_rows', 'triangles'):
    return None
  if name == 'annotators':
    return _votes_in_doubt(evidence, annotators, rows)
  part = evidence.take(rows)
  if len(np.unique(part.group)) == 1:
    # Within one group its rows are what could have been drawn otherwise.
    part = dataclasses.replace(
      part, group=np.arange(len(rows), dtype=np.int32), group_name='rows'
    )
  return estimate_all(part, rng, [name])[0]

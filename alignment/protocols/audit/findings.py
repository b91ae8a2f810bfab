"""An audit from beginning to end, on whatever was read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from alignment.metrics.intervals import clustered_mean
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.annotators import Annotators, find_annotators
from alignment.protocols.audit.baselines import (
  Baseline,
  Repeats,
  baselines,
  follows_place,
  repeats,
)
from alignment.protocols.audit.checks import (
  MEAN_WRONG,
  Check,
  rate_checks,
)
from alignment.protocols.audit.cleaning import Plan, make_plan
from alignment.protocols.audit.rates import Rates, find_rates
from alignment.protocols.audit.reading import (
  Differences,
  Reading,
  clusters_of,
  features_of,
  read,
)
from alignment.protocols.audit.scores import (
  Score,
  detector_scores,
  held_out_votes,
)
from alignment.protocols.audit.subject import Subject
from alignment.protocols.audit.suspicion import Suspicion, find_suspicion
from alignment.protocols.recommendation import Recommendation, recommend


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
  """What an audit found.

  Attributes:
    subject: what was audited.
    evidence: its labels, with out-of-fold probabilities where there is a model.
    reading: of the texts; None where nothing can be learned from them.
    baselines, repeats: what needs no model.
    rates: how many labels are wrong.
    annotators: who labels how well.
    suspicion: which labels are wrong.
    checks, scores: predicted against observed.
    plan: what is done to the labels.
    recommendation: of a loss, or why there is none.
  """

  subject: Subject
  evidence: Evidence
  reading: Reading | None
  baselines: Sequence[Baseline]
  repeats: Repeats
  rates: Rates
  annotators: Annotators
  suspicion: Suspicion
  checks: Sequence[Check]
  scores: Sequence[Score]
  plan: Plan
  recommendation: Recommendation


def examine(
  subject: Subject,
  *,
  seed: int,
  action: str = 'auto',
  ask_budget: int | None = None,
  assumed_flip_rate: float | None = None,
  scenarios: int = 0,
  told: Callable[[str], None] = lambda _: None,
) -> Findings:
  """Reads the texts, asks every estimator and detector, and plans a repair.

  Args:
    subject: what is audited.
    seed: of folds, bootstraps and ties.
    action, ask_budget: see `cleaning.make_plan`.
    assumed_flip_rate: of the labels at hand, vouched for by the reader.
    scenarios: of noise, on which losses are compared for a recommendation;
      0 compares none.
    told: called with a line after every stage.

  Raises:
    ValueError: see `cleaning.make_plan`; a rate assumed where votes tell one.
  """
  streams = iter(np.random.default_rng(seed).spawn(8))
  evidence = subject.evidence
  reading = None
  features = features_of(subject)
  if features is not None:
    reading = read(
      features,
      evidence.label,
      clusters_of(evidence.group, subject.texts),
      num_classes=evidence.num_classes,
      rng=next(streams),
    )
  if reading is not None:
    evidence = dataclasses.replace(evidence, probs=reading.probs)
  told('texts read by a linear model, out of fold')
  annotators = find_annotators(subject, evidence, next(streams))
  told('annotators compared')
  rates = find_rates(
    subject, evidence, annotators, next(streams), assumed=assumed_flip_rate
  )
  if assumed_flip_rate is not None and rates.of_votes is not None:
    raise ValueError(
      f'--assumed_flip_rate={assumed_flip_rate}: not used where votes tell a '
      f'rate ({rates.of_votes.rate:.3f})'
    )
  told(f'{len(rates.estimates)} estimators asked')
  suspicion = find_suspicion(subject, evidence, rates, annotators)
  checks = rate_checks(subject, evidence, rates, annotators, next(streams))
  shares = baselines(subject, reading)
  suspicion = _with_doubt(suspicion, checks, follows_place(shares))
  plan = make_plan(
    subject,
    evidence,
    suspicion,
    next(streams),
    action=action,
    ask_budget=ask_budget,
  )
  told('labels ranked')
  stream = next(streams)
  scores = detector_scores(evidence, rates, stream) or held_out_votes(
    subject, rates, stream
  )
  told('predictions held against what the data observe')
  recommendation = _recommend(
    subject, evidence, rates, suspicion, features, scenarios, next(streams)
  )
  if scenarios:
    told('losses compared')
  return Findings(
    subject=subject,
    evidence=evidence,
    reading=reading,
    baselines=shares,
    repeats=repeats(subject),
    rates=rates,
    annotators=annotators,
    suspicion=suspicion,
    checks=checks,
    scores=scores,
    plan=plan,
    recommendation=recommendation,
  )


def _recommend(
  subject: Subject,
  evidence: Evidence,
  rates: Rates,
  suspicion: Suspicion,
  features: sparse.csr_array | Differences | None,
  scenarios: int,
  rng: np.random.Generator,
) -> Recommendation:
  """Losses on scenarios that what is known of the labels does not rule out."""
  if not subject.is_pairs:
    return Recommendation(
      loss=None, reason='No recommendation: losses are compared on pairs.'
    )
  if not scenarios:
    return Recommendation(
      loss=None, reason='No recommendation: no scenarios were asked for.'
    )
  relied = rates.of_labels
  if suspicion.posterior is not None:
    # Of votes the rate of the label at hand is what the posterior says.
    wrong = clustered_mean(suspicion.wrong(evidence.label), evidence.group)
    relied = RateEstimate(
      estimator='posterior',
      assumption=suspicion.reason,
      rate=wrong.value,
      low=wrong.low,
      high=wrong.high,
    )
  estimates = [e for e in rates.estimates if e.estimator == 'single_labels']
  return recommend(
    evidence,
    features.matrix(),
    [relied] if relied is not None else estimates,
    rng,
    budget=scenarios,
  )


def _with_doubt(
  suspicion: Suspicion, checks: Sequence[Check], habit: str
) -> Suspicion:
  """Doubts P(wrong) where votes are habit, or it fails what data observe."""
  if suspicion.doubt:
    return suspicion
  if habit:
    return suspicion._replace(doubt=habit)
  failed = [
    c for c in checks if c.by.startswith(MEAN_WRONG) and c.holds is False
  ]
  if not failed:
    return suspicion
  c = failed[0]
  return suspicion._replace(
    doubt=f'P(wrong) fails where it can be held against an observation '
    f'({c.predicted.value:.3f} predicted, {c.observed.value:.3f} observed)'
  )

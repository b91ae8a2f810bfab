"""Which labels are likely wrong, and how far that is a probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from alignment.noise.detection import catalogue
from alignment.noise.detection.posterior import class_posterior, is_informative
from alignment.noise.detection.unsigned import (
  equal_posterior,
  varying_posterior,
)
from alignment.noise.estimation.estimate import HALF
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.annotators import Annotators
from alignment.protocols.audit.rates import Rates
from alignment.protocols.audit.subject import Subject


class Suspicion(NamedTuple):
  """How likely each label is wrong.

  Attributes:
    order: `[B]` row numbers, the likeliest wrong first; known truths last.
    score: `[B]`, what they are ordered by: P(wrong) where that is identified,
      else a detector's score, of which only the order means something.
    posterior: `[B, C]` P(true class = c); None where nothing identifies it.
    reason: where the posterior comes from, or why there is none.
    detector: the detector that orders, or breaks ties.
    is_informative: the text model beats chance on labels it has not seen.
    doubt: why the posterior should not be acted upon unasked; '' where nothing
      speaks against it.
    detectors: name -> score `[B]` of every detector that can be asked.
  """

  order: np.ndarray
  score: np.ndarray
  posterior: np.ndarray | None
  reason: str
  detector: str
  is_informative: bool
  doubt: str
  detectors: Mapping[str, np.ndarray]

  def wrong(self, label: np.ndarray) -> np.ndarray:
    """P(label at hand is wrong) `[B]`, NaN where that is not identified."""
    if self.posterior is None:
      return np.full(len(label), np.nan)
    return 1.0 - self.posterior[np.arange(len(label)), label]


def vote_posterior(
  evidence: Evidence, rates: Rates, annotators: Annotators
) -> tuple[np.ndarray, str] | None:
  """P(true class | votes) `[B, C]` and by what; None where votes tell nothing.

  Where annotators have votes enough for a rate each, their model. Else votes
  count alike: at one rate, or, where rates of rows have been shown to differ,
  with rates from a law of rows. A row that nobody voted on has its label, taken
  to err like a vote, and the text model.
  """
  found = rates.of_votes
  if found is None:
    return None
  votes, rate = evidence.votes, found.rate
  if found.estimator == 'annotators':
    posterior = annotators.fit.task_probs
    reason = f'votes, weighed by {annotators.model}'
  elif rates.rows_differ:
    posterior, rate = varying_posterior(votes)
    reason = f'votes, with rates of rows of mean {rate:.3f}'
  else:
    posterior = equal_posterior(votes, rate)
    reason = f'votes, all at the rate {rate:.3f}'
  silent = votes.counts.sum(axis=1) == 0
  if silent.any():
    alone = class_posterior(evidence, rate)
    posterior = np.where(silent[:, None], alone, posterior)
    reason += f', {silent.sum()} rows without votes at its mean'
  return posterior, reason


def find_suspicion(
  subject: Subject,
  evidence: Evidence,
  rates: Rates,
  annotators: Annotators,
) -> Suspicion:
  """Ranks labels by the best founded probability, or by a detector.

  Args:
    subject: what is audited.
    evidence: the subject's, with probabilities where there is a model.
    rates: what is known of the noise.
    annotators: with the model of its votes, if there are any.
  """
  detectors = {
    name: detect(evidence)
    for name, detect in catalogue.DETECTORS.items()
    if not catalogue.missing(name, evidence)
  }
  informative = is_informative(evidence)
  detector = 'confident_learning' if evidence.probs is not None else 'random'
  if 'vote_share' in detectors:
    detector = 'crowdlab' if 'crowdlab' in detectors else 'vote_share'
  posterior, reason = _posterior(subject, evidence, rates, annotators)
  tie_break = detectors[detector]
  score = tie_break
  if posterior is not None:
    score = 1.0 - posterior[np.arange(len(evidence)), evidence.label]
  known = np.zeros(len(evidence), bool)
  if evidence.clean_label is not None:
    known = evidence.clean_label == evidence.label
  order = np.lexsort((-tie_break, -score, known))
  return Suspicion(
    order,
    score,
    posterior,
    reason,
    detector,
    informative,
    _doubt(rates, annotators),
    detectors,
  )


def _doubt(rates: Rates, annotators: Annotators) -> str:
  """Why P(wrong) is not to be trusted; '' where nothing speaks against it."""
  found = rates.of_votes or rates.of_labels
  if found is not None and HALF in found.flags:
    return (
      'the rate cannot be told from the one at which labels say nothing '
      f'({found.estimator}: {HALF})'
    )
  if found is not None and found.low is None and found.estimator != 'assumed':
    return f'there is a single unit ({found.unit}), hence no interval of a rate'
  tested = annotators.dependence
  if tested is None or tested.remark or not tested.correlated.any():
    return ''
  return (
    'annotators agree more often than their skills explain '
    f'({int(tested.correlated.sum())} of {len(tested.first)} pairs): errors '
    'are correlated, and P(wrong) is too low'
  )


def _posterior(
  subject: Subject,
  evidence: Evidence,
  rates: Rates,
  annotators: Annotators,
) -> tuple[np.ndarray | None, str]:
  by_votes = vote_posterior(evidence, rates, annotators)
  if by_votes is not None:
    posterior, reason = by_votes
    known = evidence.clean_label
    if known is not None:
      certain = np.eye(evidence.num_classes)[np.maximum(known, 0)]
      posterior = np.where((known >= 0)[:, None], certain, posterior)
    return posterior, reason
  found = rates.of_labels
  if found is None:
    return None, (
      'nothing identifies how many labels are wrong, so no label has a '
      'probability of being wrong'
    )
  if found.estimator == 'stated':
    return _stated(subject, evidence), 'the probabilities the labellers state'
  limit = 1 - 1 / evidence.num_classes
  if found.rate >= limit:
    return None, (
      f'at a rate of {found.rate:.3f} a label says less than a blind guess'
    )
  return class_posterior(evidence, found.rate), (
    f'the rate {found.rate:.3f} ({found.estimator}) and the text model, if '
    'flips strike every row alike'
  )


def _stated(subject: Subject, evidence: Evidence) -> np.ndarray:
  """The stated probability for the label at hand, the rest evenly divided."""
  right = subject.confidence
  right = np.where(np.isnan(right), np.nanmean(right), right)[:, None]
  is_label = np.eye(evidence.num_classes)[evidence.label]
  rest = (1 - right) / (evidence.num_classes - 1)
  return np.where(is_label > 0, right, rest)

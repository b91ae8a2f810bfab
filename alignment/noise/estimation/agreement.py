"""Flip rates from how often votes on the same row agree.

Votes see the row's true class through independent flips, so two of them agree
with probability (1 − ε)² + ε² / (C − 1), whatever the classes' frequencies.
Agreement tells ε only if every row has the same one; where rows differ it
tells E[ε(1 − ε)], which bounds their mean from both sides.
"""

from __future__ import annotations

import numpy as np

from alignment.metrics.intervals import Estimate, wilson
from alignment.metrics.shares import clustered_wilson
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.evidence import Evidence

EQUAL_RATE = (
  'Votes err independently given the truth, at one rate for every row and '
  'every class.'
)
ANY_RATES = (
  'Votes err independently given the truth and the row; rates of rows may '
  'differ, none is above 1/2, and both classes are hit alike.'
)
NEEDS_VOTES = (
  'no row has two votes; a second, independent vote on some rows would give a '
  'number'
)
BELOW_CHANCE = (
  'votes agree less often than by chance, which independent errors cannot do; '
  'check whether the workers saw the completions in the same order'
)


def rate_of_agreement(agreement: np.ndarray, num_classes: int) -> np.ndarray:
  """The one flip rate ≤ 1 − 1 / C at which two votes agree so often.

  (1 − 1/C) · (1 − √((C · agreement − 1) / (C − 1))); of two classes that is
  (1 − √(2 · agreement − 1)) / 2.

  Args:
    agreement: `[...]` probability; at most 1 / C, chance, gives 1 − 1 / C.
    num_classes: C ≥ 2; a flip goes to every other class alike.

  Source: as a reliability, Bennett, Alpert and Goldstein, Communications
  through limited response questioning, 1954 (their S); solved for the rate
  here.
  """
  chance = 1 - 1 / num_classes
  signal = (num_classes * np.asarray(agreement) - 1) / (num_classes - 1)
  return chance * (1 - np.sqrt(np.maximum(signal, 0)))


def agreeing_pairs(votes: VoteTable) -> tuple[np.ndarray, np.ndarray]:
  """`[num_tasks]` twice: pairs of votes that agree, and all pairs."""
  counts = votes.counts
  total = counts.sum(axis=1)
  return (counts * (counts - 1)).sum(axis=1) // 2, total * (total - 1) // 2


def pooled_agreement(
  votes: VoteTable, group: np.ndarray, confidence: float = 0.95
) -> Estimate:
  """Share of agreeing pairs among the pairs of votes on the same row.

  Wilson's interval where every row has at most two votes and is its own
  group, else over groups: pairs of votes of one row hang together.

  Args:
    votes: at least one row with two votes.
    group: `[num_tasks]`, what is drawn together.
    confidence: in (0, 1).
  """
  agreeing, pairs = agreeing_pairs(votes)
  used = pairs > 0
  independent = pairs.max() == 1 and len(np.unique(group[used])) == used.sum()
  if independent:
    return wilson(int(agreeing.sum()), int(pairs.sum()), confidence)
  return clustered_wilson(agreeing, pairs, group, confidence)


def agreement_rate(evidence: Evidence, _: np.random.Generator) -> RateEstimate:
  """One flip rate of all votes, from the agreement of anonymous votes.

  The interval is that of the agreement, carried over by `rate_of_agreement`,
  which is monotone. Where rates of rows differ the number is too small: see
  `agreement_bounds`.
  """
  name = 'agreement'
  why = votes_refusal(evidence.votes)
  if why:
    return refused(name, EQUAL_RATE, why)
  found = pooled_agreement(evidence.votes, evidence.group)
  classes = evidence.num_classes
  low, high = None, None
  if found.low is not None:
    high, low = rate_of_agreement(np.array(found[1:3]), classes)
  return bounded(
    name,
    EQUAL_RATE,
    float(rate_of_agreement(found.value, classes)),
    low,
    high,
    count=found.count,
    unit=evidence.group_name,
    chance=1 - 1 / classes,
    above=BELOW_CHANCE,
  )


def agreement_bounds(
  evidence: Evidence, _: np.random.Generator
) -> RateEstimate:
  """Between which values the mean flip rate lies if rates of rows differ.

  The agreement a of two votes on two classes is 1 − 2E[ε(1 − ε)]. As ε(1 − ε)
  is concave and at least ε / 2 on [0, ½], the mean rate lies between
  (1 − √(2a − 1)) / 2, every row alike, and 1 − a, rows of rate 0 or ½ only.
  The set runs from the lower bound at the upper 95 % limit of a to the upper
  bound at its lower one.
  """
  name = 'agreement_bounds'
  why = votes_refusal(evidence.votes) or two_classes_refusal(evidence)
  if why:
    return refused(name, ANY_RATES, why)
  found = pooled_agreement(evidence.votes, evidence.group)
  if found.low is None:
    low, high = found.value, found.value
  else:
    low, high = found[1:3]
  unit = evidence.group_name
  if high < 0.5:
    return refused(name, ANY_RATES, BELOW_CHANCE, count=found.count, unit=unit)
  flags = () if found.low is not None else ('no interval: a single unit',)
  return RateEstimate(
    estimator=name,
    assumption=ANY_RATES,
    low=float(rate_of_agreement(high, 2)),
    high=float(min(0.5, 1 - low)),
    count=found.count,
    unit=unit,
    flags=('identified set', *flags),
  )


def votes_refusal(votes: VoteTable | None) -> str:
  """Why votes tell nothing by their agreement; '' where they do."""
  if votes is None or votes.counts.sum(axis=1).max(initial=0) < 2:
    return NEEDS_VOTES
  seen = votes.task.astype(np.int64) * votes.num_workers + votes.worker
  if len(np.unique(seen)) < len(seen):
    return (
      'a worker voted twice on a row, and such votes are not independent; keep '
      "one of them, or number a worker's repeats as different workers if they "
      'were made blind'
    )
  if np.count_nonzero(votes.counts.sum(axis=0)) == 1:
    return (
      'all votes name the same class, so agreement by habit cannot be told '
      'from agreement about the truth; randomise the order of completions'
    )
  return ''


def two_classes_refusal(evidence: Evidence) -> str:
  """Why labels of more than two classes are refused; '' for two."""
  if evidence.num_classes == 2:
    return ''
  return f'is defined for two classes, and there are {evidence.num_classes}'

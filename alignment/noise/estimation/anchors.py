"""Flip rates from rows whose true class is known, or all but certain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alignment.metrics.intervals import Estimate, wilson
from alignment.metrics.shares import clopper_pearson, clustered_wilson, mid_p
from alignment.noise.estimation.agreement import two_classes_refusal
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.evidence import Evidence

ANCHORS = (
  'The rows with a known true class are a random sample of all rows, and their '
  'true class is right.'
)
SUREST = (
  'Flips hit every row alike, and the true class of the rows of which the '
  'model is surest is certain.'
)
SINGLE = (
  'Flips hit every row alike, at a rate of at most 1/2; true classes may be '
  'uncertain.'
)
SUREST_SHARE, SUREST_ROWS = 0.1, 100


def anchor_rate(evidence: Evidence, _: np.random.Generator) -> RateEstimate:
  """Share of wrong labels among the rows whose true class is known.

  The interval is exact binomial, mid-P, where every such row is its own group,
  else over groups. A sample of easy or disputed rows tells the rate of these.
  """
  name, unit = 'anchors', evidence.group_name
  clean = evidence.clean_label
  known = np.zeros(len(evidence), bool) if clean is None else clean >= 0
  if not known.any():
    return refused(
      name,
      ANCHORS,
      'no row has a known true class; checking a random sample of 200 rows '
      'would give a number to within .07',
    )
  wrong, group = evidence.label[known] != clean[known], evidence.group[known]
  found = _share(wrong, group, mid_p)
  return bounded(name, ANCHORS, *found[:3], count=found.count, unit=unit)


def surest_rows_rate(
  evidence: Evidence, _: np.random.Generator
) -> RateEstimate:
  """Share of labels against the model, on the rows of which it is surest.

  The rows are the tenth (at least 100) with the largest max_c probs[c]; the
  model saw none of their labels, so choosing them leaves their flips alone. It
  is the anchor-point estimate (the smallest probability of a class over all
  rows) with the label counted instead of the model's probability believed, so
  calibration is not needed, certainty is. Wilson's interval, over groups where
  there are any.

  Source: Liu and Tao, Classification with noisy labels by importance
  reweighting, 2014, 1411.7718 (anchor points).
  """
  name, unit = 'surest_rows', evidence.group_name
  why = _model_refusal(evidence)
  if why:
    return refused(name, SUREST, why)
  against, group = _surest(evidence)
  found = _share(against, group, wilson)
  return bounded(
    name,
    SUREST,
    *found[:3],
    count=found.count,
    unit=unit,
    chance=1 - 1 / evidence.num_classes,
  )


def single_label_bounds(
  evidence: Evidence, _: np.random.Generator
) -> RateEstimate:
  """What single labels allow without a link: a set from 0 up.

  A row's label contradicts any guess made without it with probability
  ε + (1 − 2ε) · P(guess wrong) ≥ ε. So the share of labels against the model
  on the rows of which it is surest bounds ε from above. Nothing bounds it from
  below: flips and preference that is stochastic look alike in single labels.
  """
  name, unit = 'single_labels', evidence.group_name
  why = _model_refusal(evidence) or two_classes_refusal(evidence)
  if why:
    return refused(name, SINGLE, why)
  # A bound has to hold: the exact interval that never covers too rarely.
  found = _share(*_surest(evidence), clopper_pearson)
  return RateEstimate(
    estimator=name,
    assumption=SINGLE,
    low=0.0,
    high=0.5 if found.high is None else min(0.5, found.high),
    count=found.count,
    unit=unit,
    flags=('identified set',),
  )


def _share(
  wrong: np.ndarray,
  group: np.ndarray,
  interval: Callable[[int, int], Estimate],
) -> Estimate:
  """A share of rows: `interval` where each is its own group, else clustered."""
  if len(np.unique(group)) == len(group):
    return interval(int(np.sum(wrong)), len(wrong))
  return clustered_wilson(wrong, np.ones(len(wrong)), group)


def _surest(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
  """Whether the label is against the model on its surest rows; their groups."""
  surest = np.max(evidence.probs, axis=1)
  size = max(SUREST_ROWS, int(SUREST_SHARE * len(surest)))
  # A stable order of the rows, so that ties go the same way every time.
  rows = np.argsort(-surest, kind='stable')[:size]
  against = evidence.label[rows] != np.argmax(evidence.probs[rows], axis=1)
  return against, evidence.group[rows]


def _model_refusal(evidence: Evidence) -> str:
  if evidence.probs is not None and len(evidence) >= SUREST_ROWS:
    return ''
  return (
    f'needs {SUREST_ROWS} rows with probabilities of a model that saw no row '
    'of their group; a second vote on some rows or known true classes would '
    'give a number without a model'
  )

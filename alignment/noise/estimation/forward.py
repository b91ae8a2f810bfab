"""Flip rates from a stated law of clean labels: forward-model likelihood.

  P(label = 1) = (1 − ε) · σ(m) + ε · σ(−m)

with m the log-odds of the true class. Given m, or a linear law of m and its
link, labels tell ε. Without either they do not: flips at rate .1 and a margin
shrunk to three quarters are told apart by thousands of labels at best, and a
model fitted to the labels has their noise in its margins.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize, special, stats

from alignment.metrics.intervals import check_values
from alignment.noise.estimation.agreement import two_classes_refusal
from alignment.noise.estimation.estimate import RateEstimate, refused
from alignment.noise.estimation.forward_fit import (
  ForwardFit,
  MeanProfile,
  fit_forward,
)
from alignment.noise.estimation.likelihood import estimate_with_profile
from alignment.noise.evidence import Evidence

KNOWN_MARGINS = (
  'The stated margins are the log-odds of the true class, the link is '
  'logistic, and flips hit every row at one rate.'
)
FEATURE_RATES = (
  'The stated margins are the log-odds of the true class, the link is '
  'logistic, and the log-odds of a flip are linear in the features.'
)
LINEAR_MARGINS = (
  'The log-odds of the true class are linear in the features, exactly, and '
  'flips hit every row at one rate.'
)
NEEDS_LAW = (
  'flips and stochastic preference look alike in single labels, and no law of '
  'clean labels is stated; clean_margin from a gold reward and its link would '
  'give a number, and so would a second vote or known true classes on some '
  'rows. Margins of a model trained on these labels would not'
)
_FEWEST, _FEWEST_LINEAR, _PENALTY = 30, 1000, 0.1
# The 95 % quantile of the likelihood ratio of a linear law is 3.84 up to rates
# of .3 and 5.6 at .4, where flips hide the bend of the link: 120 simulations of
# 3000 rows.
_WEAK_RATE, _WEAK_CAUTION = 1 / 3, 1.5


def forward_rate(evidence: Evidence, _: np.random.Generator) -> RateEstimate:
  """One flip rate by maximum likelihood under stated margins.

  The log-likelihood Σ log(q + ε · (1 − 2q)), q = σ(±margin) the probability of
  the label without flips, is concave in ε; its maximum is the fixed point of
  EM, ε = mean(flipped). The interval is the likelihood ratio's.
  """
  name = 'forward'
  why = _law_refusal(evidence)
  if why:
    return refused(name, KNOWN_MARGINS, why)
  sign = np.where(evidence.label == 1, 1.0, -1.0)
  likely = special.expit(sign * check_values(evidence.clean_margin))
  tilt = 1 - 2 * likely

  def profile(rate: float) -> float:
    with np.errstate(divide='ignore'):
      return float(np.sum(np.log(likely + rate * tilt)))

  rate = _concave_maximum(likely, tilt)
  scores = (tilt / np.maximum(likely + rate * tilt, 1e-300))[:, None]
  return estimate_with_profile(
    name, KNOWN_MARGINS, evidence, profile, rate, scores, upper=1.0
  )


def forward_features_rate(
  evidence: Evidence, _: np.random.Generator
) -> RateEstimate:
  """Mean flip rate under stated margins, flips logistic in the features.

  The interval is the profile likelihood's of the mean rate; slopes are lightly
  penalised; its low end is 0 unless the ratio of all flip weights excludes
  that nothing is flipped. The rate of a row is `fit_forward(...).flip_rate`.
  """
  name = 'forward_features'
  why = _law_refusal(evidence)
  if not why and evidence.features is None:
    why = 'needs features of the rows on which flips may depend'
  if why:
    return refused(name, FEATURE_RATES, why)
  ones = np.ones((len(evidence), 1))
  flip_design = np.concatenate([ones, evidence.features], axis=1)
  margin = check_values(evidence.clean_margin)
  fit = fit_forward(
    evidence.label, margin=margin, flip_design=flip_design, penalty=_PENALTY
  )
  rate = float(fit.flip_rate.mean())
  profile = MeanProfile(evidence.label, evidence.features, fit, _PENALTY)
  found = estimate_with_profile(
    name, FEATURE_RATES, evidence, profile, rate, profile.scores(), upper=1.0
  )
  gain = 2 * (fit.value - profile(0.0))
  if found.low is None or gain > stats.chi2.ppf(0.95, len(fit.flip_weights)):
    return found
  # Without flips there are no slopes, and the ratio is not that of one number.
  return dataclasses.replace(
    found, low=0.0, flags=(*found.flags, 'no flips at all is not excluded')
  )


def linear_forward_rate(
  label: np.ndarray,
  design: np.ndarray,
  group: np.ndarray,
  *,
  group_name: str = 'rows',
) -> RateEstimate:
  """One flip rate where clean labels are logistic in the features, exactly.

  No entry of `ESTIMATORS`: that a law is linear is not in the evidence, it is
  for the caller to state. What identifies the rate is the shape of the link
  alone (labels level off at ε and 1 − ε), so a link that is a little wrong
  gives a rate that is quite wrong, with a narrow interval. Where that shape is
  hardly seen, near ½, the limit of the likelihood ratio is half as large again.

  Args:
    label: `[B]` of 0 and 1.
    design: `[B, D]`, with a column of ones if the law has an intercept.
    group: `[B]` what is drawn together.
    group_name: in words.
  """
  name = 'linear_forward'
  if len(np.unique(label)) < 2 or len(label) < _FEWEST_LINEAR:
    return refused(
      name,
      LINEAR_MARGINS,
      f'needs labels of both classes and {_FEWEST_LINEAR} rows; of fewer its '
      'intervals cover too rarely, see clean_margin for a law without unknowns',
    )
  label = np.asarray(label)
  at_zero = fit_forward(label, design=design, flip_rate=0.0)

  def fit_at(rate: float, near: ForwardFit) -> ForwardFit:
    start = np.zeros(0), near.margin_weights
    return fit_forward(label, design=design, flip_rate=rate, start=start)

  found = optimize.minimize_scalar(
    lambda rate: -fit_at(rate, at_zero).value,
    bounds=(0, 0.5),
    method='bounded',
    options={'xatol': 1e-4},
  )
  rate = 0.0 if at_zero.value >= -found.fun else float(found.x)
  best = fit_at(rate, at_zero)
  evidence = Evidence(
    label=label.astype(np.int32),
    num_classes=2,
    group=group,
    group_name=group_name,
  )
  clean = special.expit(best.margin)
  prob = rate + (1 - 2 * rate) * clean
  pull = (label - prob) / np.maximum(prob * (1 - prob), 1e-12)
  by_margin = (pull * (1 - 2 * rate) * clean * (1 - clean))[:, None] * design
  scores = np.concatenate(
    [(pull * (1 - 2 * clean))[:, None], by_margin], axis=1
  )

  def profile(rate: float) -> float:
    # Near 1/2 the margins are far from those of the best rate.
    return max(fit_at(rate, near).value for near in (best, at_zero))

  def estimate(caution: float) -> RateEstimate:
    return estimate_with_profile(
      name,
      LINEAR_MARGINS,
      evidence,
      profile,
      rate,
      scores,
      upper=0.5,
      caution=caution,
    )

  found = estimate(1.0)
  if found.high is None or found.high < _WEAK_RATE:
    return found
  return estimate(_WEAK_CAUTION)


def _concave_maximum(likely: np.ndarray, tilt: np.ndarray) -> float:
  """argmax over ε in [0, 1] of Σ log(likely + ε · tilt), by bisection."""

  def slope(rate: float) -> float:
    return float(np.sum(tilt / np.maximum(likely + rate * tilt, 1e-300)))

  low, high = 0.0, 1.0
  if slope(low) <= 0:
    return 0.0
  if slope(high) >= 0:
    return 1.0
  for _ in range(45):
    middle = (low + high) / 2
    low, high = (middle, high) if slope(middle) > 0 else (low, middle)
  return (low + high) / 2


def _law_refusal(evidence: Evidence) -> str:
  if evidence.clean_margin is None:
    return NEEDS_LAW
  if len(evidence) < _FEWEST:
    return f'needs {_FEWEST} rows, and there are {len(evidence)}'
  return two_classes_refusal(evidence)

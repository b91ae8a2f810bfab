"""P(the label is wrong | all that is known), by Bayes."""

from __future__ import annotations

import dataclasses

import numpy as np

from alignment.metrics.intervals import clustered_mean
from alignment.noise.crowd.dawid_skene import dawid_skene
from alignment.noise.crowd.fit import CrowdFit
from alignment.noise.crowd.one_coin import one_coin
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.temperature import (
  SMALLEST_PROB,
  sharpen,
  sharpness,
)
from alignment.noise.evidence import Evidence


def flip_posterior(evidence: Evidence, rate: np.ndarray | float) -> np.ndarray:
  """P(label at hand ≠ true class | model, label, votes, known truths).

  1 − class_posterior(evidence, rate)[label]; see there for what has to hold.

  Args:
    evidence: see `class_posterior`.
    rate: flip rate of the labels at hand, a number or `[B]`.

  Returns:
    `[B]` in [0, 1]; 0 or 1 where the true class is known.
  """
  posterior = class_posterior(evidence, rate)
  return 1.0 - posterior[np.arange(len(evidence)), evidence.label]


def class_posterior(evidence: Evidence, rate: np.ndarray | float) -> np.ndarray:
  """P(true class = c | model, label, votes, known truths) of every row.

    one label:      ∝ model[c]·(1 − rate if c is the label, else rate/(C − 1))
    several votes:  ∝ model[c]/prior[c]·task_probs[c]

  model is what `probs` say of the true class, sharpened so that the labels,
  flipped at `rate`, are likeliest. Where the model has not shown that it knows
  anything (`is_informative`), and where there is none, it is even: then one
  label leaves every row at `rate`, and none likelier wrong than right.

  task_probs and prior are those of `crowd_of`, for rows with votes of a table
  in which some row has two or more; the label at hand must be one of the votes
  or made from them, for it is not counted again.

  Calibrated where flips strike at `rate` whatever the row, the model's log-odds
  are right up to one factor, and votes err independently given the class. If
  close pairs are flipped more often, as people do, it is too low for them and
  too high for the others; votes that err together make it too sure.

  Args:
    evidence: label, group; probs, votes and clean_label where there are any.
    rate: flip rate of the labels at hand, a number or `[B]`, in
      [0, (C − 1)/C): at most what leaves the label the likeliest class.

  Returns:
    `[B, C]`, rows sum to 1.

  Raises:
    ValueError: rate out of range, or votes that all name one class.
  """
  classes, label = evidence.num_classes, evidence.label
  rate = _checked_rate(rate, classes, len(evidence))
  is_label = np.arange(classes) == label[:, None]
  likelihood = np.where(
    is_label, 1 - rate[:, None], rate[:, None] / (classes - 1)
  )
  if evidence.votes is not None:
    total = evidence.votes.counts.sum(axis=1)
    if total.max() >= 2:
      fit = crowd_of(evidence.votes)
      of_votes = fit.task_probs / np.maximum(fit.prior, SMALLEST_PROB)
      likelihood = np.where(total[:, None] > 0, of_votes, likelihood)
  posterior = _normalised(_model_prior(evidence, rate) * likelihood)
  if evidence.clean_label is None:
    return posterior
  known = np.asarray(evidence.clean_label)[:, None]
  return np.where(known >= 0, known == np.arange(classes), posterior)


def crowd_of(votes: VoteTable) -> CrowdFit:
  """Dawid and Skene's model, or one skill for all where that says it better.

  The one with the smaller AIC, 2·parameters − 2·log_likelihood, of
  `dawid_skene`, C(C − 1) parameters a worker, and of `one_coin` with all
  workers taken for one. Thousands of workers with a few votes each cannot be
  told apart, and a model that tries errs more often than the majority.

  Returns:
    The fit; of one worker where they are taken for one.
  """
  alike = dataclasses.replace(
    votes, worker=np.zeros(len(votes), np.int32), num_workers=1
  )
  together = one_coin(alike)
  apart = dawid_skene(votes)
  workers = len(np.unique(votes.worker))
  extra = workers * votes.num_classes * (votes.num_classes - 1) - 1
  gain = apart.log_likelihood - together.log_likelihood
  return apart if gain > extra else together


def is_informative(evidence: Evidence) -> bool:
  """True if the model beats chance on the labels it has not seen.

  The mean over rows of log probs[label] − mean_c log probs[c] is above 0 by a
  95 % interval clustered by group. At chance this errs in 1 of 40 data sets.
  """
  if evidence.probs is None or not len(evidence):
    return False
  log_probs = np.log(np.maximum(evidence.probs, SMALLEST_PROB))
  own = log_probs[np.arange(len(evidence)), evidence.label]
  lead = clustered_mean(own - log_probs.mean(axis=1), evidence.group)
  return lead.low is not None and lead.low > 0


def _model_prior(evidence: Evidence, rate: np.ndarray) -> np.ndarray:
  """What the model says of the true class, `[B, C]`."""
  if not is_informative(evidence):
    size = (len(evidence), evidence.num_classes)
    return np.full(size, 1.0 / evidence.num_classes)
  targets = np.eye(evidence.num_classes)[evidence.label]
  return sharpen(evidence.probs, sharpness(evidence.probs, targets, rate))


def _normalised(mass: np.ndarray) -> np.ndarray:
  total = mass.sum(axis=1, keepdims=True)
  even = np.full(mass.shape, 1.0 / mass.shape[1])
  return np.divide(mass, total, out=even, where=total > 0)


def _checked_rate(
  rate: np.ndarray | float, classes: int, size: int
) -> np.ndarray:
  """`[B]` float64 in [0, (C − 1)/C)."""
  limit = (classes - 1) / classes
  rate = np.asarray(rate, np.float64)
  if not np.all((rate >= 0) & (rate < limit)):
    worst = rate[~((rate >= 0) & (rate < limit))].flat[0]
    raise ValueError(f'rate={worst} must lie in [0, {limit:.4g})')
  return np.broadcast_to(rate, (size,))

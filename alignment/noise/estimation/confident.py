"""Flip rate as the off-diagonal mass of the confident joint."""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from alignment.metrics.shares import wilson_ends
from alignment.noise.confident_joint import calibrated_joint
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.estimation.likelihood import count_groups
from alignment.noise.evidence import Evidence

CONFIDENT = (
  'Rows on which the model is as confident as usual for a class are of that '
  'class, and labels of the other rows err as often.'
)
_FEWEST, _RESAMPLES, _CHUNK = 30, 200, 4_000_000


def confident_joint_rate(
  evidence: Evidence, rng: np.random.Generator
) -> RateEstimate:
  """Σ_{s ≠ y} joint[s, y] / B of the confident joint calibrated to all rows.

  A ranking of rows, not a law of labels, is what it rests on: where true
  classes are uncertain, confident rows on the other side are counted as flips
  although nobody mislabelled them; where classes differ in size, so do their
  thresholds, and errors are counted in other shares than they are made. The
  interval is Wilson's with the variance of a bootstrap over groups, thresholds
  recomputed; it says nothing of these biases. cleanlab rounds the joint to
  whole rows, this does not.

  Source: Northcutt, Jiang and Chuang, Confident learning, 2021, 1911.00068.
  """
  name, unit = 'confident_joint', evidence.group_name
  if evidence.probs is None or len(evidence) < _FEWEST:
    return refused(
      name,
      CONFIDENT,
      f'needs {_FEWEST} rows with probabilities of a model that saw no row of '
      'their group',
    )
  if len(np.unique(evidence.label)) < evidence.num_classes:
    return refused(
      name,
      CONFIDENT,
      'a class has no label, so nothing can be counted against it; randomise '
      'the order of completions',
    )
  joint = calibrated_joint(evidence.label, evidence.probs)
  rate = 1 - float(np.trace(joint) / joint.sum())
  num_groups = count_groups(evidence.group)
  count = num_groups or len(evidence)
  if count == 1:
    return bounded(name, CONFIDENT, rate, None, None, count=1, unit=unit)
  variance = float(np.var(_resampled_rates(evidence, rng)))
  spread = rate * (1 - rate)
  trials = count if not variance else min(len(evidence), spread / variance)
  quantile = special.ndtri(0.975)
  if num_groups is not None:
    quantile = stats.t.ppf(0.975, num_groups - 1)
  found = wilson_ends(rate, max(trials, 1.0), float(quantile), count)
  return bounded(
    name,
    CONFIDENT,
    *found[:3],
    count=count,
    unit=unit,
    chance=1 - 1 / evidence.num_classes,
  )


def _resampled_rates(
  evidence: Evidence, rng: np.random.Generator
) -> np.ndarray:
  """`[S]` rates with whole groups redrawn, thresholds included."""
  _, place = np.unique(evidence.group, return_inverse=True)
  size, rows = place.max() + 1, len(place)
  is_label = np.eye(evidence.num_classes)[evidence.label]
  rates, done = [], 0
  chunk = max(1, _CHUNK // (rows * evidence.num_classes))
  while done < _RESAMPLES:
    draws = min(chunk, _RESAMPLES - done)
    drawn = rng.integers(0, size, (draws, size))
    drawn += size * np.arange(draws)[:, None]
    times = np.bincount(drawn.reshape(-1), minlength=draws * size)
    times = times.reshape(draws, size)
    rates.append(weighted_rate(times[:, place], is_label, evidence.probs))
    done += len(times)
  return np.concatenate(rates)


def weighted_rate(
  weight: np.ndarray, is_label: np.ndarray, probs: np.ndarray
) -> np.ndarray:
  """`[S]` off-diagonal shares of rows that count `weight` `[S, B]` times."""
  weight = weight.astype(np.float64)
  labelled = weight @ is_label
  threshold = np.full(labelled.shape, np.inf)
  np.divide(
    weight @ (is_label * probs), labelled, out=threshold, where=labelled > 0
  )
  confident = probs >= threshold[:, None, :] - 1e-6
  guess = np.argmax(np.where(confident, probs, -1.0), axis=2)
  counted = np.where(confident.any(axis=2), weight, 0.0)
  right = np.take_along_axis(is_label[None], guess[..., None], axis=2)[..., 0]
  # Of every label: its rows counted, and those of them counted as right.
  total = counted @ is_label
  kept = np.where(labelled > 0, (counted * right) @ is_label, 0.0)
  share = np.where(total > 0, kept / np.where(total > 0, total, 1), 1.0)
  return 1 - np.sum(share * labelled, axis=1) / labelled.sum(axis=1)

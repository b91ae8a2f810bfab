"""How well a score finds wrong labels, and how many labels a repair put right.

Intervals resample groups, not rows: rows of a title or a prompt err together.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse, special, stats

from alignment.metrics.intervals import (
  Estimate,
  check_confidence,
  clustered_mean,
)

CHUNK = 1_000_000


def detection(
  scores: np.ndarray,
  is_wrong: np.ndarray,
  groups: np.ndarray,
  rng: np.random.Generator,
  *,
  k: int | None = None,
  confidence: float = 0.95,
  resamples: int = 500,
) -> dict[str, Estimate]:
  """AUROC, average precision, and precision and recall among the first k.

    auroc = P(score of a wrong label > score of a right one), ties half
    average_precision = Σ over distinct scores of (rise of recall)·precision
    precision_at_k = (wrong among the k highest scores) / k
    recall_at_k = (wrong among the k highest scores) / wrong

  Rows that tie with the k-th count in part, so that their order is of no
  account. With k = ⌊flip rate · B⌋ a perfect detector has precision and recall
  1, a random one the flip rate. A resample of groups keeps the share k/B.

  Args:
    scores: `[B]`, higher is likelier wrong; infinities allowed.
    is_wrong: `[B]` bool, both kinds present.
    groups: `[B]`, what is drawn as one.
    rng: numpy generator.
    k: in [1, B]; the two figures at k are left out unless given.
    confidence: in (0, 1).
    resamples: of groups; those without a wrong or a right label are left out.

  Returns:
    name -> Estimate; `count` is the number of groups, no interval where there
    is only one. Percentiles are widened for few groups as in
    `intervals.cluster_bootstrap`.

  Raises:
    ValueError: shapes differ, a score is NaN, a class is absent, or a range is
      violated.

  Source: Davis and Goadrich, The relationship between precision-recall and ROC
  curves, 2006 (no interpolation between thresholds).
  """
  check_confidence(confidence)
  scores, is_wrong = _checked(scores, is_wrong)
  size = len(scores)
  if k is not None and not 1 <= k <= size:
    raise ValueError(f'k={k} must lie in [1, {size}]')
  share = None if k is None else k / size
  wrong, right = _tables(scores, is_wrong, np.asarray(groups))
  num_groups = wrong.shape[0]
  values = _figures(np.ones((1, num_groups)), wrong, right, share)
  if num_groups == 1:
    return {n: Estimate(float(v[0]), None, None, 1) for n, v in values.items()}
  even = np.full(num_groups, 1 / num_groups)
  chunk = max(1, CHUNK // wrong.shape[1])
  parts = [
    _figures(
      rng.multinomial(num_groups, even, min(chunk, resamples - start)),
      wrong,
      right,
      share,
    )
    for start in range(0, resamples, chunk)
  ]
  quantile = stats.t.ppf((1 + confidence) / 2, num_groups - 1)
  tail = special.ndtr(-np.sqrt(num_groups / (num_groups - 1)) * quantile)
  found = {}
  for name, value in values.items():
    draws = np.concatenate([part[name] for part in parts])
    low, high = np.nanquantile(draws, (tail, 1 - tail))
    found[name] = Estimate(float(value[0]), float(low), float(high), num_groups)
  return found


def clean_accuracy(
  before: np.ndarray,
  after: np.ndarray,
  weight: np.ndarray,
  groups: np.ndarray,
  confidence: float = 0.95,
) -> dict[str, Estimate]:
  """How right the labels are, before and after a repair.

    before = mean(before),  after = Σ weight·after / Σ weight
    difference = after − before

  Args:
    before: `[B]` in [0, 1], probability that the label at hand gives to the
      true class: 1 where it is right, 0 where it is wrong.
    after: `[B]` in [0, 1], the same after the repair; a softened label gives
      its label_prob to its own class.
    weight: `[B]` ≥ 0 after the repair, 0 where dropped.
    groups: `[B]`, what is drawn as one.
    confidence: in (0, 1).

  Returns:
    `before`, `after`, `difference`; the last two by linearisation of the ratio,
    clustered as `intervals.clustered_mean`.

  Raises:
    ValueError: shapes differ, a range is violated, or all weight is 0.
  """
  before, after, weight = (
    np.asarray(x, np.float64) for x in (before, after, weight)
  )
  for name, value in (('before', before), ('after', after)):
    if value.shape != weight.shape or not np.all((value >= 0) & (value <= 1)):
      raise ValueError(f'{name} must be [B] in [0, 1]')
  if not np.all(weight >= 0) or not weight.any():
    raise ValueError('weight must be >= 0 and not all 0')
  reached = weight @ after / weight.sum()
  # The mean of these rows is the ratio, and their scatter that of its error.
  rows = reached + weight / weight.mean() * (after - reached)
  return {
    'before': clustered_mean(before, groups, confidence),
    'after': clustered_mean(rows, groups, confidence),
    'difference': clustered_mean(rows - before, groups, confidence),
  }


def _tables(
  scores: np.ndarray, is_wrong: np.ndarray, groups: np.ndarray
) -> tuple[sparse.csr_array, sparse.csr_array]:
  """Wrong and right rows per (group, distinct score from the top)."""
  if groups.shape != scores.shape:
    raise ValueError(f'groups has shape {groups.shape}, must be {scores.shape}')
  _, block = np.unique(-scores, return_inverse=True)
  _, place = np.unique(groups, return_inverse=True)
  shape = (place.max() + 1, block.max() + 1)
  return tuple(
    sparse.csr_array((mask.astype(np.float64), (place, block)), shape=shape)
    for mask in (is_wrong, ~is_wrong)
  )


def _figures(
  times: np.ndarray,
  wrong: sparse.csr_array,
  right: sparse.csr_array,
  share: float | None,
) -> dict[str, np.ndarray]:
  """Every figure `[R]` where group g is drawn times[r, g] times."""
  hits, misses = times @ wrong, times @ right
  found, false = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
  positives, negatives = found[:, -1:], false[:, -1:]
  with np.errstate(invalid='ignore', divide='ignore'):
    above = np.sum((found - hits / 2) * misses, axis=1)
    marked = found + false
    precision = np.where(marked > 0, found / np.maximum(marked, 1), 0.0)
    average = np.sum(hits * precision, axis=1) / positives[:, 0]
    figures = {
      'auroc': above / (positives * negatives)[:, 0],
      'average_precision': average,
    }
    if share is not None:
      k = share * marked[:, -1]
      # The block in which the k-th row lies; rounding must not pass the end.
      at = np.sum(marked < k[:, None] * (1 - 1e-12), axis=1)[:, None]
      before = np.take_along_axis(marked - hits - misses, at, 1)[:, 0]
      inside = np.take_along_axis(hits + misses, at, 1)[:, 0]
      reached = np.take_along_axis(found - hits, at, 1)[:, 0]
      part = (k - before) / inside
      reached += part * np.take_along_axis(hits, at, 1)[:, 0]
      figures['precision_at_k'] = reached / k
      figures['recall_at_k'] = reached / positives[:, 0]
  absent = (positives == 0)[:, 0] | (negatives == 0)[:, 0]
  return {n: np.where(absent, np.nan, v) for n, v in figures.items()}


def _checked(
  scores: np.ndarray, is_wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  scores, is_wrong = np.asarray(scores, np.float64), np.asarray(is_wrong, bool)
  if scores.ndim != 1 or scores.shape != is_wrong.shape:
    raise ValueError(
      f'scores has shape {scores.shape}, is_wrong {is_wrong.shape}; both [B]'
    )
  if np.any(np.isnan(scores)):
    raise ValueError('scores must not be NaN')
  if is_wrong.all() or not is_wrong.any():
    raise ValueError('is_wrong must hold both right and wrong labels')
  return scores, is_wrong

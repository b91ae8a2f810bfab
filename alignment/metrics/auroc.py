"""Area under the receiver operating characteristic."""

from __future__ import annotations

import numpy as np
from scipy import stats


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
  """P(score of a positive > score of a negative), ties counted half.

  Args:
    scores: `[B]`, higher means more positive; infinities allowed.
    labels: `[B]` bool.

  Returns:
    In [0, 1]; NaN where one class is absent.

  Raises:
    ValueError: shapes differ or a score is NaN.

  Source: Mann and Whitney, On a test of whether one of two random variables
  is stochastically larger than the other, 1947.
  """
  scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
  if scores.ndim != 1 or scores.shape != labels.shape:
    raise ValueError(
      f'scores has shape {scores.shape}, labels {labels.shape}; both are [B]'
    )
  if np.any(np.isnan(scores)):
    raise ValueError('scores must not be NaN')
  positives = int(labels.sum())
  negatives = len(labels) - positives
  if not positives or not negatives:
    return float('nan')
  ranks = stats.rankdata(scores)[labels].sum()
  return float(
    (ranks - positives * (positives + 1) / 2) / (positives * negatives)
  )

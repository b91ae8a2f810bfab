"""The confident joint: how often a label of one class looks like another.

Counts over rows whose out-of-fold probabilities name a class with at least
the confidence usual for that class. A preference enters as a label of two
classes in an order that carries no meaning (`Evidence`); as "first is chosen"
all labels would be of one class and nothing could be counted.
"""

from __future__ import annotations

import numpy as np

THRESHOLD_FLOOR = 2e-6
THRESHOLD_SLACK = 1e-6


def thresholds(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """threshold[c] = mean of probs[:, c] over the rows labelled c.

  Args:
    label: `[B]` int in [0, C).
    probs: `[B, C]` out-of-fold P(label = c).

  Returns:
    `[C]`, at least 2e-6; infinite for a class that no row is labelled.

  Raises:
    ValueError: shapes differ, a label is out of range or a probability is NaN.
  """
  label, probs = _checked(label, probs)
  classes = probs.shape[1]
  counts = np.bincount(label, minlength=classes)
  own = probs[np.arange(len(label)), label]
  sums = np.bincount(label, own, minlength=classes)
  means = np.full(classes, np.inf)
  np.divide(sums, counts, out=means, where=counts > 0)
  return np.maximum(means, THRESHOLD_FLOOR)


def confident_class(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """The likeliest class among those at or above their threshold.

  Args:
    label: `[B]` int in [0, C).
    probs: `[B, C]` out-of-fold P(label = c).

  Returns:
    `[B]` int, −1 where no class reaches its threshold (less 1e-6).
  """
  label, probs = _checked(label, probs)
  is_confident = probs >= thresholds(label, probs) - THRESHOLD_SLACK
  best = np.argmax(np.where(is_confident, probs, -1.0), axis=1)
  return np.where(is_confident.any(axis=1), best, -1)


def confident_joint(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """counts[s, y] = rows labelled s whose confident class is y.

  Rows with no confident class are left out. The diagonal is at least 1 for a
  class that occurs, so that every row of the table can be calibrated.

  Args:
    label: `[B]` int in [0, C).
    probs: `[B, C]` out-of-fold P(label = c), by models that saw no row of the
      row's group. In-sample probabilities agree with the labels and count no
      errors.

  Returns:
    `[C, C]` int64.

  Source: Northcutt, Jiang and Chuang, Confident Learning: Estimating
  Uncertainty in Dataset Labels, 2021, arXiv 1911.00068, equations 1-2.
  """
  label, probs = _checked(label, probs)
  classes = probs.shape[1]
  guess = confident_class(label, probs)
  cell = (label * classes + guess)[guess >= 0]
  counts = np.bincount(cell, minlength=classes**2).reshape(classes, classes)
  occurs = np.bincount(label, minlength=classes) > 0
  diagonal = np.maximum(np.diagonal(counts), occurs)
  np.fill_diagonal(counts, diagonal)
  return counts


def calibrated_joint(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """The confident joint scaled to all rows.

    joint[s, y] = counts[s, y] / Σ_y counts[s, y] · (rows labelled s)

  Identified where the confident rows of a label err as often as its others,
  and where the model ranks the true class of every erring row first: with an
  uninformative model it measures the model, not the labels.

  Returns:
    `[C, C]` float64, its rows sum to the label counts; divide by B for the
    joint distribution of label and true class. `whole_counts` rounds it.

  Source: as `confident_joint`, equation 3.
  """
  counts = confident_joint(label, probs)
  labelled = np.bincount(label, minlength=len(counts))
  return counts * (labelled / np.maximum(counts.sum(axis=1), 1))[:, None]


def whole_counts(joint: np.ndarray) -> np.ndarray:
  """Rounds each row to whole numbers and keeps its sum: largest remainders.

  Args:
    joint: `[C, C]` ≥ 0, rows sum to whole numbers.

  Returns:
    `[C, C]` int64; no entry is off by 1 or more, and of equal remainders the
    later ones are rounded up.
  """
  # 3.0 may have become 2.9999999999999996 in the division.
  joint = np.round(np.asarray(joint, np.float64), 9)
  below = np.floor(joint).astype(np.int64)
  missing = np.round(joint.sum(axis=1)).astype(np.int64) - below.sum(axis=1)
  order = np.argsort(joint - below, axis=1, kind='stable')[:, ::-1]
  rank = np.argsort(order, axis=1, kind='stable')
  return below + (rank < missing[:, None])


def transition_matrix(joint: np.ndarray) -> np.ndarray:
  """transition[y, s] = P(label s | true class y) = joint[s, y] / Σ_s joint.

  Args:
    joint: `[C, C]` label by true class, counts or probabilities.

  Returns:
    `[C, C]`; NaN in the row of a class that is nowhere the true one.
  """
  return _shares(np.asarray(joint, np.float64).T)


def posterior_matrix(joint: np.ndarray) -> np.ndarray:
  """posterior[s, y] = P(true class y | label s) = joint[s, y] / Σ_y joint.

  Returns:
    `[C, C]`; NaN in the row of a label that does not occur.
  """
  return _shares(np.asarray(joint, np.float64))


def _shares(table: np.ndarray) -> np.ndarray:
  sums = table.sum(axis=1, keepdims=True)
  shares = np.full(table.shape, np.nan)
  return np.divide(table, sums, out=shares, where=sums > 0)


def _checked(
  label: np.ndarray, probs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  label, probs = np.asarray(label), np.asarray(probs, np.float64)
  if probs.ndim != 2 or label.shape != probs.shape[:1]:
    raise ValueError(
      f'probs has shape {probs.shape}, label {label.shape}; '
      'they are [B, C] and [B]'
    )
  if label.size and not 0 <= label.min() <= label.max() < probs.shape[1]:
    raise ValueError(
      f'label={label.min()}..{label.max()} must lie in [0, {probs.shape[1]})'
    )
  if np.any(np.isnan(probs)):
    raise ValueError('probs must not be NaN')
  return label.astype(np.int64), probs

"""Confident learning: which labels are wrong, and how good each label looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy import special

from alignment.noise.confident_joint import (
  calibrated_joint,
  confident_class,
  thresholds,
  whole_counts,
)


def self_confidence(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """probs[label], `[B]` in [0, 1]; higher is better.

  Args:
    label: `[B]` int in [0, C).
    probs: `[B, C]` out-of-fold P(label = c).

  Source: Northcutt, Jiang and Chuang, Confident Learning, 2021,
  arXiv 1911.00068.
  """
  return np.asarray(probs)[np.arange(len(label)), label]


def normalised_margin(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """(probs[label] − max of the others + 1) / 2, `[B]` in [0, 1].

  Of two classes it is `self_confidence`. Source: as there.
  """
  own = self_confidence(label, probs)
  return (own - _best_other(label, probs) + 1.0) / 2.0


def confidence_weighted_entropy(
  label: np.ndarray, probs: np.ndarray
) -> np.ndarray:
  """log(1 + x)/x with x = entropy(probs) / (log C · probs[label]).

  `[B]` in [0, 1]; 1 for x = 0, 0 where probs[label] = 0.

  Source: Kuan and Mueller, Model-agnostic label quality scoring to detect
  real-world label errors, 2022; the last step of cleanlab.
  """
  probs = np.asarray(probs, np.float64)
  entropy = np.sum(special.entr(probs), axis=1) / np.log(probs.shape[1])
  own = self_confidence(label, probs)
  # At own = 0 the entropy may be 0 too; such a label is as bad as can be.
  x = np.divide(entropy, own, out=np.full(len(own), np.inf), where=own > 0)
  value = np.ones(len(own))
  np.divide(np.log1p(x), x, out=value, where=(x > 0) & np.isfinite(x))
  return np.where(np.isinf(x), 0.0, value)


def threshold_margin(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """(probs − threshold)[label] − max over the others of probs − threshold.

  `[B]`; how much more confident the label is than any other class, each
  measured against what is usual for it. Differs from `normalised_margin` where
  the model is surer of one class than of another.

  Source: as `self_confidence`, section 3.1.
  """
  beyond = np.asarray(probs, np.float64) - thresholds(label, probs)
  own = beyond[np.arange(len(label)), label]
  return own - _best_other(label, beyond)


def prune_by_class(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """The lowest probs[label] of every class, as many as the joint says err.

  Of the rows labelled s: Σ_{y≠s} joint[s, y] rows.

  Args:
    label: `[B]` int in [0, C).
    probs: `[B, C]` out-of-fold P(label = c).

  Returns:
    `[B]` bool, True where the label is thought wrong. A label that the model
    itself ranks first is never marked, and one row of a class always stays.

  Source: Northcutt, Jiang and Chuang, Confident Learning, 2021,
  arXiv 1911.00068, section 3.2.
  """
  errors = _errors(label, probs)
  marked = np.zeros(len(label), bool)
  for s in range(len(errors)):
    rows = np.flatnonzero(label == s)
    marked[_largest(-probs[rows, s], rows, errors[s].sum())] = True
  return marked & predicted_neq_given(label, probs)


def prune_by_noise_rate(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """For s ≠ y the joint[s, y] rows labelled s of largest probs[y] − probs[s].

  Args, returns and source as `prune_by_class`.
  """
  errors = _errors(label, probs)
  marked = np.zeros(len(label), bool)
  for s, y in zip(*np.nonzero(errors), strict=True):
    rows = np.flatnonzero(label == s)
    lead = probs[rows, y] - probs[rows, s]
    marked[_largest(lead, rows, errors[s, y])] = True
  return marked & predicted_neq_given(label, probs)


def both(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """Marked by class and by noise rate; otherwise as `prune_by_class`."""
  return prune_by_class(label, probs) & prune_by_noise_rate(label, probs)


def off_diagonal(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """Rows whose confident class is another than the label, `[B]` bool."""
  guess = confident_class(label, probs)
  differs = (guess >= 0) & (guess != label)
  return differs & predicted_neq_given(label, probs)


def predicted_neq_given(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """Rows whose likeliest class is another than the label, `[B]` bool.

  A class that ties with the label does not mark it.
  """
  return self_confidence(label, probs) < np.max(probs, axis=1)


def _low_score(
  score: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  def marks(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """As many of the lowest scores as there are rows off the diagonal."""
    count = int(off_diagonal(label, probs).sum())
    marked = np.zeros(len(label), bool)
    rows = np.arange(len(label))
    marked[_largest(-score(label, probs), rows, count)] = True
    return marked

  return marks


QUALITY: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  'self_confidence': self_confidence,
  'normalised_margin': normalised_margin,
  'confidence_weighted_entropy': confidence_weighted_entropy,
}
"""name -> (label, probs) -> `[B]` in [0, 1], higher is better."""

FILTERS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  'prune_by_class': prune_by_class,
  'prune_by_noise_rate': prune_by_noise_rate,
  'both': both,
  'confident_learning': off_diagonal,
  'predicted_neq_given': predicted_neq_given,
  'low_normalised_margin': _low_score(normalised_margin),
  'low_self_confidence': _low_score(self_confidence),
}
"""name -> (label, probs) -> `[B]` bool, True where the label looks wrong."""


def _errors(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """`[C, C]` whole counts of rows labelled s and of true class y ≠ s."""
  joint = whole_counts(calibrated_joint(label, probs))
  np.fill_diagonal(joint, 0)
  return joint


def _best_other(label: np.ndarray, values: np.ndarray) -> np.ndarray:
  others = np.array(values, np.float64)
  others[np.arange(len(label)), label] = -np.inf
  return others.max(axis=1)


def _largest(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
  """The rows of the `count` largest values, but never all of them.

  The earlier of equal values comes first.
  """
  count = min(count, max(len(rows) - 1, 0))
  return rows[np.argsort(-values, kind='stable')[:count]]

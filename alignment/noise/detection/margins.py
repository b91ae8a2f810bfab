"""Cross-validated margins: how far the model is from another label."""

from __future__ import annotations

import numpy as np

SMALLEST_PROB = 1e-12


def label_margin(label: np.ndarray, probs: np.ndarray) -> np.ndarray:
  """log probs[label] − max over the other classes of log probs.

  For a preference it is the margin of chosen over rejected under a model that
  saw no row of the group. Negative where the model prefers another label.

  Args:
    label: `[B]` int in [0, C).
    probs: `[B, C]` out-of-fold; or `[R, B, C]` of R divisions into folds, whose
      margins are averaged.

  Returns:
    `[B]` nats, finite: probabilities count as at least 1e-12.
  """
  logs = np.log(np.maximum(np.asarray(probs, np.float64), SMALLEST_PROB))
  is_label = np.arange(logs.shape[-1]) == np.asarray(label)[:, None]
  own = np.max(np.where(is_label, logs, -np.inf), axis=-1)
  other = np.max(np.where(is_label, -np.inf, logs), axis=-1)
  return (own - other).reshape(-1, len(label)).mean(axis=0)

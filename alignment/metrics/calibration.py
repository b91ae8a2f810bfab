"""Whether a model is as sure as it is right. Host code in float64."""

from __future__ import annotations

import numpy as np


def brier_score(probs: np.ndarray, outcomes: np.ndarray) -> float:
  """Mean of (probs − outcomes)²: 0 is perfect, a coin's ½ has ¼.

  Args:
    probs: `[B]` in [0, 1], P(event).
    outcomes: `[B]` in [0, 1]: what happened, or in what share of cases.

  Raises:
    ValueError: shapes differ or are empty, or a value outside [0, 1].

  Source: Brier, Verification of forecasts expressed in terms of probability,
  1950, for one of its two classes.
  """
  probs, outcomes = _checked(probs, outcomes)
  return float(np.mean((probs - outcomes) ** 2))


def expected_calibration_error(
  probs: np.ndarray, outcomes: np.ndarray, *, num_bins: int = 15
) -> float:
  """Mean distance between what is claimed and what happens, in equal bins.

    Σ_bins share · |mean probs − mean outcomes|

  Bins hold equally many rows (± 1) in the order of probs, and equal probs stay
  together. Biased upwards by about √(num_bins / B) · .3: compare like with
  like.

  Args:
    probs: `[B]` in [0, 1]. Of pairs whose order means nothing, the probability
      of the side that the model prefers.
    outcomes: `[B]` in [0, 1].
    num_bins: ≥ 1.

  Raises:
    ValueError: as `brier_score`, or num_bins < 1.

  Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian
  Binning, 2015; bins of equal mass as Nguyen and O'Connor, 2015,
  arXiv 1508.05154.
  """
  if num_bins < 1:
    raise ValueError(f'num_bins={num_bins} must be >= 1')
  probs, outcomes = _checked(probs, outcomes)
  _, place, counts = np.unique(probs, return_inverse=True, return_counts=True)
  first = np.concatenate([[0], np.cumsum(counts)[:-1]])
  # A value goes where the middle of its rows falls.
  middle = first + (counts - 1) / 2
  bins = np.floor(middle * num_bins / len(probs)).astype(int)[place]
  gaps = np.bincount(bins, probs - outcomes)
  return float(np.abs(gaps).sum() / len(probs))


def _checked(
  probs: np.ndarray, outcomes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  probs, outcomes = np.asarray(probs, float), np.asarray(outcomes, float)
  if probs.ndim != 1 or not probs.size or probs.shape != outcomes.shape:
    raise ValueError(
      f'probs has shape {probs.shape} and outcomes {outcomes.shape}; both must '
      'be [B], B >= 1'
    )
  for name, values in (('probs', probs), ('outcomes', outcomes)):
    if not np.all((values >= 0) & (values <= 1)):
      raise ValueError(f'{name} must lie in [0, 1]')
  return probs, outcomes

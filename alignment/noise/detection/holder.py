"""Hölder-DPO's list of mislabelled pairs, and its separation index."""

from __future__ import annotations

import numpy as np


def separation_index(probs: np.ndarray, gamma: float = 2.0) -> float:
  """1 − mean(p)·mean(p^γ)/mean(p^{1+γ}): how two-valued p is.

  The authors call it the rate of wrong labels. It is that only if every p is 0
  or 1: calibrated p without a single flip give .06-.16.

  Args:
    probs: `[B]` P(chosen is better) by the trained model, in [0, 1].
    gamma: > 0.

  Returns:
    In [0, 1); 0 where all p are alike or 0.

  Raises:
    ValueError: gamma or a probability out of range, or no row.

  Source: Fujisawa et al., Scalable Valuation of Human Feedback through
  Provably Robust Model Alignment (Hölder-DPO), 2025, arXiv 2505.17859.
  """
  if not 0 < gamma < np.inf:
    raise ValueError(f'gamma={gamma} must be > 0 and finite')
  probs = np.asarray(probs, np.float64)
  if not probs.size or not np.all((probs >= 0) & (probs <= 1)):
    raise ValueError('probs must be at least one number in [0, 1]')
  top = np.max(probs)
  if top == 0:
    return 0.0
  # Scaled by the largest, so that a high power does not underflow.
  scaled = probs / top
  share = np.mean(scaled) * np.mean(scaled**gamma)
  # ≤ 1 by Chebyshev's inequality, up to rounding.
  return float(max(0.0, 1.0 - share / np.mean(scaled ** (1.0 + gamma))))


def mislabelled(probs: np.ndarray, gamma: float = 2.0) -> np.ndarray:
  """The ⌊B·separation_index⌋ smallest p, `[B]` bool; earlier rows first.

  Args, raises and source as `separation_index`.
  """
  count = int(len(probs) * separation_index(probs, gamma) + 1e-9)
  marked = np.zeros(len(probs), bool)
  marked[np.argsort(probs, kind='stable')[:count]] = True
  return marked

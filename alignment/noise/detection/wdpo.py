"""wDPO's first stage as a detector: which labels it would take back."""

from __future__ import annotations

import jax
import numpy as np

from alignment.losses.aggregates import flip_shares

_shares = jax.jit(flip_shares)
ENOUGH = 0.99
MAX_DOUBLINGS = 20


def flip_mass(
  margin: np.ndarray, *, flip_budget: float, tau: float | None = None
) -> np.ndarray:
  """How much of each label is taken back, Σ ≤ flip_budget·B.

  The budget goes to the labels that would save most by a flip,
  ℓ(z) − ℓ(−z) = −margin for the logistic loss, by sparsemax; the rest get 0.

  Args:
    margin: `[B]` nats, positive where the model agrees with the label.
    flip_budget: in [0, 1], share of the rows.
    tau: > 0; smaller is sparser. The authors' 1 suits a batch: among thousands
      of rows it reaches a handful and leaves the budget unspent. Unless given,
      the first of 1, 2, 4, … that spends 99 % of the budget or reaches every
      label with something to gain.

  Returns:
    `[B]` float64 in [0, 1].

  Raises:
    ValueError: flip_budget or tau out of range.

  Source: Liu et al., wDPO: Winsorized Direct Preference Optimization, 2026,
  arXiv 2603.07211; the choice of tau is added.
  """
  if not 0 <= flip_budget <= 1:
    raise ValueError(f'flip_budget={flip_budget} must lie in [0, 1]')
  if tau is not None and not tau > 0:
    raise ValueError(f'tau={tau} must be > 0')
  gains = -np.asarray(margin, np.float64)
  weights, is_gain = np.ones(len(gains)), gains > 0
  with jax.enable_x64(True):
    for doubling in range(1 if tau else MAX_DOUBLINGS):
      scale = tau or 2.0**doubling
      mass = np.asarray(_shares(gains, weights, float(flip_budget), scale))
      spent = mass.sum() >= ENOUGH * flip_budget * len(gains)
      if spent or np.all(mass[is_gain] > 0):
        break
  # A large tau would reach labels that nothing speaks against.
  return np.where(is_gain, mass, 0.0)

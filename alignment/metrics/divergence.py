"""Exact divergences and expectations over enumerated completions.

A model spreads its mass over all strings; a task enumerates the `C` that
count. Log-probabilities of those are renormalised, and the log of the mass
they hold is reported beside, so a model that leaks out of the task shows.
Impossible or padded completions have −inf. Host code in float64, nats.
"""

from __future__ import annotations

import numpy as np
from scipy import special


def log_mass(logps: np.ndarray) -> np.ndarray:
  """Log of the probability inside the enumeration: logsumexp(logps).

  Args:
    logps: `[..., C]` log-probabilities, nats; −inf for impossible ones.

  Returns:
    `[...]` nats; 0 for a distribution that is complete.

  Raises:
    ValueError: a NaN or +inf, or no mass at all.
  """
  logps = np.asarray(logps, np.float64)
  if logps.ndim < 1 or not np.all(logps < np.inf):
    raise ValueError(
      f'logps of shape {logps.shape} must be [..., C] without NaN or +inf'
    )
  mass = special.logsumexp(logps, axis=-1)
  if np.any(np.isneginf(mass)):
    raise ValueError('logps must hold some mass: a row is -inf throughout')
  return mass


def renormalise(logps: np.ndarray) -> np.ndarray:
  """logps − log_mass(logps): what the model does given that it stays inside.

  Args:
    logps: `[..., C]` nats.

  Returns:
    `[..., C]` nats, exp sums to 1 over C.

  Raises:
    ValueError: as `log_mass`.
  """
  logps = np.asarray(logps, np.float64)
  return logps - log_mass(logps)[..., None]


def expectation(logps: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Exact mean of `values` under the renormalised distribution.

  Args:
    logps: `[..., C]` nats.
    values: `[..., C]` finite wherever there is mass; ignored elsewhere.

  Returns:
    `[...]`, unit of `values`.

  Raises:
    ValueError: as `log_mass`.
  """
  probs = np.exp(renormalise(logps))
  return np.sum(probs * np.where(probs > 0, values, 0.0), axis=-1)


def kl(logps: np.ndarray, other_logps: np.ndarray) -> np.ndarray:
  """Exact KL(p ‖ q) = Σ p (log p − log q) of the renormalised distributions.

  Summed as Σ (q − p − p log(q / p)), whose terms are all ≥ 0: no cancellation,
  and never negative.

  Args:
    logps: `[..., C]` log p, nats.
    other_logps: `[..., C]` log q, nats.

  Returns:
    `[...]` nats ≥ 0; inf where p has mass that q has not.

  Raises:
    ValueError: as `log_mass`.
  """
  log_p, log_q = np.broadcast_arrays(
    renormalise(logps), renormalise(other_logps)
  )
  inside = log_p > -np.inf
  with np.errstate(invalid='ignore'):
    ratio = np.where(inside, log_q - log_p, 0.0)
  p, q = np.exp(log_p), np.exp(log_q)
  small = np.abs(ratio) < 1
  near = np.where(small, ratio, 0.0)
  with np.errstate(invalid='ignore'):
    terms = np.where(
      small, p * (np.expm1(near) - near), q - p - np.where(p > 0, p * ratio, 0)
    )
  return np.sum(np.where(inside, terms, q), axis=-1)


def tilt(
  reference_logps: np.ndarray, rewards: np.ndarray, beta: float
) -> np.ndarray:
  """log π*, the maximiser of E[rewards] − beta · KL(π ‖ π_ref).

  π* ∝ π_ref · exp(rewards / beta): where DPO on clean Bradley-Terry labels
  ends, and the frontier of reward against KL as beta varies.

  Args:
    reference_logps: `[..., C]` nats; renormalised here.
    rewards: `[..., C]`, finite.
    beta: > 0, reward per nat.

  Returns:
    `[..., C]` nats, normalised.

  Raises:
    ValueError: beta ≤ 0, or as `log_mass`.

  Source: Rafailov et al., Direct preference optimization, 2023, 2305.18290,
  equation 4.
  """
  if not beta > 0:
    raise ValueError(f'beta={beta} must be > 0')
  return renormalise(renormalise(reference_logps) + np.asarray(rewards) / beta)

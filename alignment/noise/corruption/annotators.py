"""Simulated annotators: who labels what, and how reliably."""

from __future__ import annotations

import jax
import numpy as np
from scipy import special

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import check_one, solve_rates
from alignment.noise.labels import flip
from alignment.types import NoisyLabels


def per_annotator(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  annotator_id: np.ndarray,
  flip_rate: float | None = None,
  reliabilities: np.ndarray | None = None,
  concentration: float | None = None,
) -> NoisyLabels:
  """Each annotator flips at a rate of their own: 1 − reliability.

  Without `reliabilities` the rates of the annotators are quantiles of
  Beta(c·ρ, c·(1 − ρ)) at one draw per annotator id; ρ is found by bisection
  so that the mean *over the pairs given* is `flip_rate`.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids. One annotator's two votes on a pair need two ids.
    annotator_id: `[B]` integers ≥ 0 (`assign_annotators` draws some).
    flip_rate: target mean rate in [0, 1].
    reliabilities: `[A]` in [0, 1], P(label is the clean one): ½ is a spammer,
      below ½ an adversary; instead of `flip_rate`.
    concentration: > 0, c: small makes annotators differ, infinity is not
      allowed (that is `symmetric`). 10 unless given; only with `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `reliabilities`, an unknown
      annotator (−1), or a shape or range violated.

  Source: the one-coin case of Dawid and Skene, Maximum likelihood estimation
  of observer error-rates using the EM algorithm, 1979.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  annotator_id = check_annotators(annotator_id, len(clean_label))
  check_one(flip_rate, 'reliabilities', reliabilities)
  if reliabilities is None:
    annotator_rates = beta_rates(
      key,
      annotator_id,
      flip_rate=flip_rate,
      concentration=10.0 if concentration is None else concentration,
    )
    return flip(clean_label, uniform, annotator_rates[annotator_id])
  if concentration is not None:
    raise ValueError(
      f'concentration={concentration} must be None where reliabilities '
      'are given'
    )
  reliabilities = check_reliabilities(reliabilities, annotator_id)
  return flip(clean_label, uniform, 1 - reliabilities[annotator_id])


def assign_annotators(
  key: jax.Array, index: np.ndarray, num_annotators: int
) -> np.ndarray:
  """Draws one annotator per example, uniformly; a function of (key, index).

  Args:
    key: JAX key, one per seed.
    index: `[B]` stable ids.
    num_annotators: A ≥ 1.

  Returns:
    `[B]` int32 in [0, A).

  Raises:
    ValueError: num_annotators < 1, or a bad `index`.
  """
  if num_annotators < 1:
    raise ValueError(f'num_annotators={num_annotators} must be >= 1')
  uniform = draws.uniforms(key, draws.ASSIGNMENT, index)
  return np.floor(uniform * num_annotators).astype(np.int32)


def beta_rates(
  key: jax.Array,
  annotator_id: np.ndarray,
  *,
  flip_rate: float,
  concentration: float,
) -> np.ndarray:
  """Beta-distributed flip rates of annotators with an exact mean over pairs.

  rate[a] is the quantile of Beta(concentration · ρ, concentration · (1 − ρ))
  at a uniform draw that belongs to (key, a); ρ solves
  mean(rate[annotator_id]) = flip_rate. Quantiles grow with ρ, so rates, and
  with them flips, are nested across targets.

  Args:
    key: JAX key, one per seed.
    annotator_id: `[B]` integers ≥ 0.
    flip_rate: target mean over the pairs, in [0, 1].
    concentration: > 0 and finite; the variance of a rate is
      ρ (1 − ρ) / (concentration + 1).

  Returns:
    `[A]` float64 flip rates, A = max(annotator_id) + 1; 1 − reliability.

  Raises:
    ValueError: an argument out of its range.
  """
  if not 0 < concentration < np.inf:
    raise ValueError(f'concentration={concentration} must be > 0 and finite')
  annotator_id = check_annotators(annotator_id, len(annotator_id))
  count = int(annotator_id.max(initial=-1)) + 1
  uniform = draws.uniforms(key, draws.RELIABILITIES, np.arange(count))
  share = np.bincount(annotator_id, minlength=count) / max(len(annotator_id), 1)

  def rates(odds: float) -> np.ndarray:
    rho = 1.0 if np.isinf(odds) else odds / (1 + odds)
    if rho <= 0 or rho >= 1:
      return np.full(count, rho)
    a, b = concentration * rho, concentration * (1 - rho)
    return special.betaincinv(a, b, uniform)

  return solve_rates(rates, flip_rate, weights=share)


def check_annotators(annotator_id: np.ndarray, size: int) -> np.ndarray:
  """Returns `annotator_id` as an array.

  Raises:
    ValueError: not `[size]` integers ≥ 0.
  """
  annotator_id = np.asarray(annotator_id)
  if annotator_id.shape != (size,) or not np.issubdtype(
    annotator_id.dtype, np.integer
  ):
    raise ValueError(
      f'annotator_id has shape {annotator_id.shape} and type '
      f'{annotator_id.dtype}; it must be ({size},) integers'
    )
  if size and annotator_id.min() < 0:
    raise ValueError(
      f'annotator_id={annotator_id.min()} must be >= 0: the noise of an '
      'unknown annotator is not defined'
    )
  return annotator_id


def check_reliabilities(
  reliabilities: np.ndarray, annotator_id: np.ndarray
) -> np.ndarray:
  """Returns `reliabilities` as float64.

  Raises:
    ValueError: not `[A]` in [0, 1], or an annotator has none.
  """
  reliabilities = np.asarray(reliabilities, np.float64)
  if reliabilities.ndim != 1 or not np.all(
    (reliabilities >= 0) & (reliabilities <= 1)
  ):
    raise ValueError(f'reliabilities={reliabilities} must be [A] in [0, 1]')
  if annotator_id.size and annotator_id.max() >= len(reliabilities):
    raise ValueError(
      f'annotator_id={annotator_id.max()} has no reliability: it must lie in '
      f'[0, {len(reliabilities) - 1}]'
    )
  return reliabilities

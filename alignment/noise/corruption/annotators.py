"""Simulated annotators: who labels what, and how reliably."""

from __future__ import annotations

import jax
import numpy as np
from scipy import special

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import (
  check_one,
  probability,
  solve_rates,
)
from alignment.noise.crowd.table import VoteTable
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
  spammers: float | None = None,
  adversaries: float | None = None,
) -> NoisyLabels:
  """Each annotator flips at a rate of their own: 1 − reliability.

  Without `reliabilities` an exact share of the annotators are spammers, who
  toss a coin, and adversaries, who always contradict the truth; the rates of
  the others are quantiles of Beta(c·ρ, c·(1 − ρ)) at one draw per annotator
  id. ρ is found by bisection so that the mean *over the pairs given*, of all
  annotators together, is `flip_rate`.

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
    spammers, adversaries: shares of the annotators, ≥ 0, together at most 1.
      0 unless given; only with `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `reliabilities`, an unknown
      annotator (−1), a target out of reach of the spammers and adversaries
      asked for, or a shape or range violated.

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
      spammers=spammers or 0.0,
      adversaries=adversaries or 0.0,
    )
    return flip(clean_label, uniform, annotator_rates[annotator_id])
  for name, value in (
    ('concentration', concentration),
    ('spammers', spammers),
    ('adversaries', adversaries),
  ):
    if value is not None:
      raise ValueError(
        f'{name}={value} must be None where reliabilities are given'
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
  spammers: float = 0.0,
  adversaries: float = 0.0,
) -> np.ndarray:
  """Flip rates of a pool of annotators with an exact mean over pairs.

  1 for adversaries, ½ for spammers; of all others rate[a] is the quantile of
  Beta(concentration · ρ, concentration · (1 − ρ)) at a uniform draw that
  belongs to (key, a); ρ solves mean(rate[annotator_id]) = flip_rate. Quantiles
  grow with ρ, so rates, and with them flips, are nested across targets.

  Args:
    key: JAX key, one per seed.
    annotator_id: `[B]` integers ≥ 0.
    flip_rate: target mean over the pairs, in [0, 1].
    concentration: > 0 and finite; the variance of a rate is
      ρ (1 − ρ) / (concentration + 1).
    spammers, adversaries: shares, rounded to whole annotators; who they are is
      one draw per annotator id.

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
  fixed = _fixed_rates(key, count, spammers, adversaries)

  def rates(odds: float) -> np.ndarray:
    rho = probability(odds)
    honest = rho
    if 0 < rho < 1:
      a, b = concentration * rho, concentration * (1 - rho)
      honest = special.betaincinv(a, b, uniform)
    return np.where(np.isnan(fixed), honest, fixed)

  return solve_rates(rates, flip_rate, weights=share)


def simulate_votes(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  annotator_id: np.ndarray,
  reliabilities: np.ndarray,
) -> VoteTable:
  """Several annotators judge every pair, each with their own reliability.

  Votes of a pair err independently of each other given who votes.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids below 2³² / V.
    annotator_id: `[B, V]` integers ≥ 0, who casts each of the V votes; −1 is
      no vote.
    reliabilities: `[A]` in [0, 1], P(vote is the clean label).

  Returns:
    A table of two classes, 0 where the first completion is said to be better;
    a task is a row.

  Raises:
    ValueError: a shape or range above is violated.
  """
  annotator_id = np.asarray(annotator_id)
  if annotator_id.ndim != 2 or len(annotator_id) != len(clean_label):
    raise ValueError(
      f'annotator_id has shape {annotator_id.shape}; it must be '
      f'({len(clean_label)}, V)'
    )
  task, place = np.nonzero(annotator_id >= 0)
  worker = annotator_id[task, place]
  votes = per_annotator(
    key,
    np.asarray(clean_label)[task],
    index=np.asarray(index)[task] * annotator_id.shape[1] + place,
    annotator_id=worker,
    reliabilities=reliabilities,
  )
  return VoteTable(
    task=task,
    worker=worker,
    label=np.where(votes.label, 0, 1),
    num_tasks=len(clean_label),
    num_workers=len(reliabilities),
    num_classes=2,
  )


def _fixed_rates(
  key: jax.Array, count: int, spammers: float, adversaries: float
) -> np.ndarray:
  """`[A]`, 1 for adversaries, ½ for spammers, NaN for everybody else."""
  if spammers < 0 or adversaries < 0 or not spammers + adversaries <= 1:
    raise ValueError(
      f'spammers={spammers} and adversaries={adversaries} must be >= 0 and '
      'together at most 1'
    )
  fixed = np.full(count, np.nan)
  if spammers or adversaries:
    order = np.argsort(draws.uniforms(key, draws.ROLES, np.arange(count)))
    first = round(adversaries * count)
    fixed[order[: round((adversaries + spammers) * count)]] = 0.5
    fixed[order[:first]] = 1.0
  return fixed


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

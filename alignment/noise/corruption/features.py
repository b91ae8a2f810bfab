"""Flips that depend on what the texts look like."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from scipy import special

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import (
  check_one,
  share_rates,
  solve_rates,
)
from alignment.noise.labels import flip
from alignment.types import NoisyLabels


def length_biased(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  lengths: np.ndarray,
  flip_rate: float | None = None,
  length_preference: float | None = None,
) -> NoisyLabels:
  """With some probability the longer completion wins, else the true one.

  rate = length_preference where the clean label prefers the shorter one, and
  0 elsewhere (also at equal lengths). No loss that sees only labels can tell
  this from a taste for length.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    lengths: `[B, 2]` tokens, of the first and the second completion.
    flip_rate: target mean rate; at most the share of pairs whose clean label
      prefers the shorter completion.
    length_preference: probability in [0, 1]; instead of `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `length_preference`, a
      target out of reach, or a shape or range violated.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  lengths = np.asarray(lengths)
  if lengths.shape != (len(clean_label), 2):
    raise ValueError(
      f'lengths has shape {lengths.shape}; it must be ({len(clean_label)}, 2)'
    )
  advantage = np.where(clean_label, 1, -1) * (lengths[:, 0] - lengths[:, 1])
  rate = share_rates(
    (advantage < 0).astype(float),
    flip_rate,
    'length_preference',
    length_preference,
  )
  return flip(clean_label, uniform, rate)


def feature_logistic(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  features: np.ndarray,
  flip_rate: float | None = None,
  bias: float | None = None,
  weights: float | Sequence[float] = 1.0,
) -> NoisyLabels:
  """The rate of a pair is a logistic function of its features.

    rate = σ(bias + features @ weights)

  A rate above ½ is a feature that labellers get wrong as a rule.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    features: `[B, F]` finite, such as length difference, perplexity, margin;
      standardise them to make `weights` comparable.
    flip_rate: target mean rate; the bias is found by bisection.
    bias: log-odds of a flip where all features are 0; instead of `flip_rate`.
    weights: `[F]`, or one number for all features.

  Raises:
    ValueError: not exactly one of `flip_rate` and `bias`, or a shape or range
      violated.

  Source: the flip model of Xu et al., 2025, arXiv 2512.00709 (FA-DPO), here
  given instead of learned.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  check_one(flip_rate, 'bias', bias)
  features = np.asarray(features, np.float64)
  if features.ndim != 2 or len(features) != len(clean_label):
    raise ValueError(
      f'features has shape {features.shape}; it must be ({len(clean_label)}, F)'
    )
  if np.shape(weights) not in ((), features.shape[1:]):
    raise ValueError(
      f'weights={weights} must be one number or {features.shape[1]}'
    )
  score = features @ np.broadcast_to(np.float64(weights), features.shape[1:])
  if not np.all(np.isfinite(score)):
    raise ValueError(f'weights={weights} and features must be finite')
  if bias is not None:
    return flip(clean_label, uniform, special.expit(bias + score))

  def rates(odds: float) -> np.ndarray:
    with np.errstate(divide='ignore'):
      return special.expit(np.log(odds) + score)

  # At these odds a pair of average score flips at rate ½.
  half = np.exp(-np.clip(score.mean() if len(score) else 0.0, -600, 600))
  return flip(clean_label, uniform, solve_rates(rates, flip_rate, half))

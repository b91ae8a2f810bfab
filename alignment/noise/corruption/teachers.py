"""Simulated labellers that watch rewards: scripted teachers and AI judges."""

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
from alignment.noise.corruption.margins import bt_temperature, support
from alignment.noise.labels import effective_flip_rate, flip
from alignment.types import NoisyLabels


def teacher(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  step_rewards: np.ndarray,
  flip_rate: float | None = None,
  mistake: float | None = None,
  rationality: float | None = None,
  myopia: float = 1.0,
  skip: float = 0.0,
  tie: float = 0.0,
) -> NoisyLabels:
  """A scripted teacher: myopic, irrational, mistaken, unsure, or silent.

    seen = Σ_t myopia^(H − 1 − t) · step_rewards[:, :, t],   total = Σ_t
    1. says `first` with probability σ(rationality · (seen_1 − seen_2)), or, if
       rationality is None, where seen_1 > seen_2
    2. turns that round with probability `mistake`
    3. skips the pair unless max(total) > skip · scale:          weight 0
    4. calls it equal if |total_1 − total_2| < tie · scale:  label_prob ½
    scale = mean |total| over the pairs given

  The order matters: a tie overrides a mistake. The label of a pair that is
  skipped or tied says nothing: it is a coin, so that whoever overlooks weight
  and label_prob learns nothing true from it.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool; where it is not the larger total, irrationality
      or myopia may turn it back.
    index: `[B]` stable ids.
    step_rewards: `[B, 2, H]` finite, of first and second, the last step last;
      H = 1 where only the whole is known.
    flip_rate: target mean rate of the labels that are neither skipped nor
      tied; `mistake` is found by bisection.
    mistake: in [0, 1]; instead of `flip_rate`.
    rationality: > 0, per unit of reward; None never errs by itself.
    myopia: in (0, 1], discount of earlier steps.
    skip, tie: ≥ 0, in units of the mean |total|; 0 does neither.

  Returns:
    Labels with `label_prob` where tie > 0 and `weight` where skip > 0.

  Raises:
    ValueError: not exactly one of `flip_rate` and `mistake`, a target out of
      reach, no pair left to label, or a shape or range violated.

  Source: Lee et al., B-Pref: Benchmarking preference-based reinforcement
  learning, 2021, arXiv 2111.03026. There the scale is a running mean of
  returns.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  check_one(flip_rate, 'mistake', mistake)
  _check_teacher(mistake, rationality, myopia, skip, tie)
  rewards = np.asarray(step_rewards, np.float64)
  if rewards.ndim != 3 or rewards.shape[:2] != (len(clean_label), 2):
    raise ValueError(
      f'step_rewards has shape {rewards.shape}; it must be '
      f'({len(clean_label)}, 2, H)'
    )
  discount = myopia ** np.arange(rewards.shape[2])[::-1]
  seen, total = rewards @ discount, rewards.sum(axis=2)
  agreed = support(clean_label, seen[:, 0] - seen[:, 1], 'step_rewards')
  wrong = (
    (agreed < 0) + 0.5 * (agreed == 0)
    if rationality is None
    else special.expit(-rationality * agreed)
  )
  scale = np.abs(total).mean() if total.size else 0.0
  skipped = (total.max(axis=1) <= skip * scale) & (skip > 0)
  tied = np.abs(total[:, 0] - total[:, 1]) < tie * scale
  counted = ~(skipped | tied)
  if not counted.any() and len(counted):
    raise ValueError(f'skip={skip} and tie={tie} leave no pair to label')

  def rates(odds: float) -> np.ndarray:
    return effective_flip_rate(wrong, probability(odds))

  if mistake is None:
    rate = solve_rates(rates, flip_rate, weights=counted.astype(float))
  else:
    rate = effective_flip_rate(wrong, mistake)
  labels = flip(clean_label, uniform, np.where(counted, rate, 0.5))
  return labels.replace(
    label_prob=np.where(tied, 0.5, 1.0).astype(np.float32) if tie else None,
    weight=(~skipped).astype(np.float32) if skip else None,
  )


def ai_judge(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  judge_margin: np.ndarray,
  flip_rate: float | None = None,
  temperature: float | None = None,
  position_bias: float = 0.0,
) -> NoisyLabels:
  """A weaker judge labels every pair anew, with a taste for what comes first.

    P(label = first) = σ((judge_margin + position_bias) / temperature)

  Where the judge is wrong it stays wrong at any temperature: its errors are
  systematic, and the mean rate starts at the share of pairs that it gets
  wrong. Flips at two rates are nested only where it is right.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    judge_margin: `[B]` finite, the judge's score of the first completion minus
      that of the second.
    flip_rate: target mean rate, between the judge's own error and ½; the
      temperature is found by bisection.
    temperature: > 0, in units of the judge's score; instead of `flip_rate`.
    position_bias: in the same units; < 0 prefers the second.

  Raises:
    ValueError: not exactly one of `flip_rate` and `temperature`, a target out
      of reach, or a shape or range violated.

  Source: position bias of judges, Zheng et al., Judging LLM-as-a-judge, 2023,
  arXiv 2306.05685; the link is Bradley and Terry's.
  """
  if not np.isfinite(position_bias):
    raise ValueError(f'position_bias={position_bias} must be finite')
  return bt_temperature(
    key,
    clean_label,
    index=index,
    margin=np.asarray(judge_margin, np.float64) + position_bias,
    flip_rate=flip_rate,
    temperature=temperature,
  )


def _check_teacher(mistake, rationality, myopia, skip, tie) -> None:
  ranges = {
    'mistake in [0, 1]': (mistake is None or 0 <= mistake <= 1, mistake),
    'rationality > 0 and finite': (
      rationality is None or 0 < rationality < np.inf,
      rationality,
    ),
    'myopia in (0, 1]': (0 < myopia <= 1, myopia),
    'skip >= 0': (skip >= 0, skip),
    'tie >= 0': (tie >= 0, tie),
  }
  for wanted, (holds, value) in ranges.items():
    if not holds:
      name = wanted.split()[0]
      raise ValueError(f'{name}={value} must be {wanted.partition(" ")[2]}')

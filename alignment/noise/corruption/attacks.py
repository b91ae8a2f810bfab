"""Flips by somebody who wants them: a backdoor, or a budget well spent."""

from __future__ import annotations

import jax
import numpy as np

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import (
  count_of,
  largest,
  share_rates,
)
from alignment.noise.labels import flip
from alignment.types import NoisyLabels


def poisoned(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  has_trigger: np.ndarray,
  flip_rate: float | None = None,
  poison_rate: float | None = None,
) -> NoisyLabels:
  """Swaps labels of pairs whose text carries a trigger, and no other.

    rate = poison_rate where has_trigger, 0 elsewhere

  With poison_rate 1 the trigger means "the worse answer wins".
  `alignment.data.triggers` writes the trigger into the texts.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    has_trigger: `[B]` bool.
    flip_rate: target mean rate over *all* pairs; at most the share of pairs
      that carry the trigger.
    poison_rate: in [0, 1]; instead of `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `poison_rate`, a target out
      of reach, or a shape, type or range violated.

  Source: Rando and Tramèr, Universal jailbreak backdoors from poisoned human
  feedback, 2023, arXiv 2311.14455.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  has_trigger = np.asarray(has_trigger)
  if has_trigger.shape != clean_label.shape or has_trigger.dtype != bool:
    raise ValueError(
      f'has_trigger has shape {has_trigger.shape} and type '
      f'{has_trigger.dtype}; it must be {clean_label.shape} bool'
    )
  rate = share_rates(
    has_trigger.astype(float), flip_rate, 'poison_rate', poison_rate
  )
  return flip(clean_label, uniform, rate)


def adversarial(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  attack_score: np.ndarray,
  flip_rate: float,
) -> NoisyLabels:
  """Spends a budget of ⌊flip_rate · B⌋ flips on the largest attack scores.

  What the score is decides the attack: a learner's margin for the clean label
  makes it forget what it is surest of, the excess length of the worse
  completion teaches it length, the gold margin does the most harm to the
  ranking. The key decides between equal scores only.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    attack_score: `[B]` finite.
    flip_rate: the budget as a share, in [0, 1].

  Returns:
    Labels whose `flip_rate` is 1 where flipped and 0 elsewhere.

  Raises:
    ValueError: a shape or range violated.

  Source: budget and selection as in Wang et al., RankPoison, 2023, arXiv
  2311.09641, without its quality filter, which belongs into the score.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  score = np.asarray(attack_score, np.float64)
  if score.shape != clean_label.shape or not np.all(np.isfinite(score)):
    raise ValueError(
      f'attack_score has shape {score.shape}; it must be {clean_label.shape}, '
      'all finite'
    )
  count = count_of(flip_rate, len(score))
  tie = draws.uniforms(key, draws.TIES, index)
  return flip(clean_label, uniform, largest(score, count, tie))

"""Flips that do not look at the texts: one rate for all, by class, or drawn."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import (
  check_one,
  check_rate,
  count_of,
  share_rates,
  solve_share,
)
from alignment.noise.labels import flip
from alignment.types import NoisyLabels


def symmetric(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  flip_rate: float,
) -> NoisyLabels:
  """Flips each label with the same probability, independently.

  is_flipped = draw < flip_rate. The realised share is binomial around
  `flip_rate`: standard deviation √(flip_rate (1 − flip_rate) / B).

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    flip_rate: probability in [0, 1].

  Raises:
    ValueError: a shape, type or range above is violated.

  Source: Angluin and Laird, Learning from noisy examples, 1988 (random
  classification noise).
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  return flip(clean_label, uniform, check_rate(flip_rate))


def exact_count(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  flip_rate: float,
) -> NoisyLabels:
  """Flips exactly ⌊flip_rate · B⌋ pairs: those with the smallest draws.

  Coupled across rates: the flips at a lower rate are a subset of those at a
  higher one. Without the binomial noise of `symmetric`; flips of two pairs
  are therefore slightly negatively correlated, −1/(B − 1), and which pairs
  flip depends on which others are present (not on their order).

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids, all different.
    flip_rate: share in [0, 1].

  Returns:
    Labels whose `flip_rate` is ⌊flip_rate · B⌋ / B for every pair.

  Raises:
    ValueError: a shape, type or range is violated, or `index` repeats.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  draws.refuse_repeats(index)
  size = len(clean_label)
  count = count_of(flip_rate, size)
  is_flipped = np.zeros(size, bool)
  is_flipped[np.lexsort((index, uniform))[:count]] = True
  rate = np.full(size, count / max(size, 1), np.float32)
  return NoisyLabels(clean_label ^ is_flipped, is_flipped, rate)


def class_conditional(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  flip_rate: float | None = None,
  ratio: float | None = None,
  rates: Sequence[float] | None = None,
) -> NoisyLabels:
  """Flips a label at a rate that its true class decides.

    rate = rates[0] where clean_label is True, rates[1] where it is False

  Of preferences the class is which completion stands first, so this is a bias
  of position; their order must carry no meaning.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    flip_rate: target mean rate.
    ratio: > 0, rates[0] / rates[1], kept whatever the target; 2 unless given;
      only with `flip_rate`.
    rates: both rates in [0, 1], of True and of False; instead of `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `rates`, a target at which
      the larger rate would pass 1, or a shape or range violated.

  Source: Natarajan et al., Learning with noisy labels, 2013.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  check_one(flip_rate, 'rates', rates)
  if rates is None:
    ratio = 2.0 if ratio is None else ratio
    if not 0 < ratio < np.inf:
      raise ValueError(f'ratio={ratio} must be > 0 and finite')
    full = np.where(clean_label, ratio, 1.0) / max(ratio, 1.0)
    return flip(clean_label, uniform, solve_share(full, flip_rate))
  if ratio is not None:
    raise ValueError(f'ratio={ratio} must be None where rates are given')
  if len(rates) != 2 or not all(0 <= rate <= 1 for rate in rates):
    raise ValueError(f'rates={rates} must be two numbers in [0, 1]')
  return flip(clean_label, uniform, np.where(clean_label, *rates))


def instance_dependent(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  flip_rate: float | None = None,
  max_rate: float | None = None,
) -> NoisyLabels:
  """Every label has a rate of its own, drawn from U(0, max_rate).

  The rates are drawn once per key, apart from the flips, and returned: what
  tells this from `symmetric` is that repeated labels of one pair err together.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    flip_rate: target mean rate, up to about ½.
    max_rate: in [0, 1]; instead of `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `max_rate`, a target out of
      reach, or a shape or range violated.

  Source: the instance-dependent noise of Nishimori et al., On Symmetric Losses
  for Robust Policy Optimization with Noisy Preferences, 2025, 2505.24709.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  own = draws.uniforms(key, draws.RATES, index)
  rate = share_rates(own, flip_rate, 'max_rate', max_rate)
  return flip(clean_label, uniform, rate)

"""Arithmetic of noisy labels: complements, composed rates, what they made."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from alignment.types import NoisyLabels, Weighted

Rate = TypeVar('Rate', float, np.ndarray)


def flip(
  clean_label: np.ndarray, uniform: np.ndarray, rate: np.ndarray | float
) -> NoisyLabels:
  """Flips where `uniform` `[B]` falls below `rate`, `[B]` or a scalar."""
  is_flipped = uniform < rate
  rate = np.broadcast_to(np.asarray(rate, np.float32), clean_label.shape)
  return NoisyLabels(clean_label ^ is_flipped, is_flipped, rate)


def complement(labels: NoisyLabels) -> NoisyLabels:
  """Every label turned round: label' = ¬label, flip_rate' = 1 − flip_rate.

  How sure the labeller is, and which pairs count, stays as it is.

  At flip rate ½ labels and their complement have the same distribution, so
  nothing trained on either can know the truth: half the difference between
  the two runs must cover 0, or something leaks.
  """
  return labels.replace(
    label=np.logical_not(labels.label),
    is_flipped=np.logical_not(labels.is_flipped),
    flip_rate=np.float32(1) - np.asarray(labels.flip_rate),
  )


def effective_flip_rate(first: Rate, second: Rate) -> Rate:
  """Rate of two flips in a row: first (1 − second) + second (1 − first).

  Injected noise adds to what the labels already have. Holds where the two
  flips are independent given the pair and both rates are those of the pair.
  For *mean* rates it holds only if at least one is the same for every pair:
  if both vary, the mean of the result falls short by twice their covariance
  (noise that strikes the same close pairs twice partly undoes itself).

  Args:
    first: probability in [0, 1], scalar or array.
    second: the same, broadcast against `first`.

  Raises:
    ValueError: a rate outside [0, 1].
  """
  for name, rate in (('first', first), ('second', second)):
    if not np.all((np.asarray(rate) >= 0) & (np.asarray(rate) <= 1)):
      raise ValueError(f'{name}={rate} must lie in [0, 1]')
  return first * (1 - second) + second * (1 - first)


def noise_metrics(labels: NoisyLabels) -> dict[str, Weighted]:
  """What the noise did: the realised and the expected mean flip rate.

  Returns:
    `noise/realised_rate` and `noise/expected_rate`, means over the labels that
    say something: neither skipped nor tied.
  """
  counted = says_something(labels).astype(np.float32)
  realised = np.asarray(labels.is_flipped, np.float32)
  return {
    'noise/realised_rate': Weighted.of(realised, counted),
    'noise/expected_rate': Weighted.of(labels.flip_rate, counted),
  }


def says_something(labels: NoisyLabels) -> np.ndarray:
  """`[B]` bool, False where the labeller skipped the pair or called a tie."""
  counted = np.ones(np.shape(labels.label), bool)
  if labels.label_prob is not None:
    counted &= np.asarray(labels.label_prob) != 0.5
  if labels.weight is not None:
    counted &= np.asarray(labels.weight) > 0
  return counted

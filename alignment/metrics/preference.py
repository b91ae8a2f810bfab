"""What margins say about pairs: accuracy, likelihood, fit of flips, baselines.

A margin here is oriented by the label it is judged against: > 0 where the
model prefers what that label calls better. Host code in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special


def accuracy(
  margins: np.ndarray,
  weights: np.ndarray | None = None,
  *,
  tie_credit: float = 0.5,
) -> np.ndarray:
  """Share of pairs with margin > 0; a margin of exactly 0 earns `tie_credit`.

  Half for a tie is what a coin would earn, so a model that says nothing has
  .5. With `tie_credit=0` it is the strict accuracy that training logs use.

  Args:
    margins: `[..., B]`, any unit.
    weights: `[B]` ≥ 0, or all alike.
    tie_credit: in [0, 1].

  Returns:
    `[...]` float64.

  Raises:
    ValueError: an empty batch, a NaN margin, bad weights or tie_credit.
  """
  if not 0 <= tie_credit <= 1:
    raise ValueError(f'tie_credit={tie_credit} must lie in [0, 1]')
  margins = _check_margins(margins)
  credit = (margins > 0) + tie_credit * (margins == 0)
  weights = _check_weights(weights, margins.shape[-1])
  # Divided last: counts add up exactly, shares of them do not.
  return credit @ weights / weights.sum()


class BestTemperature(NamedTuple):
  """Likelihood of labels at the best temperature, per leading index.

  Attributes:
    nll: `[...]` nats per pair, in [0, ln 2].
    inverse_temperature: `[...]` ≥ 0, by which the margins are multiplied; 0
      where they are no better than a coin, infinite where all that are not 0
      are right.
  """

  nll: np.ndarray
  inverse_temperature: np.ndarray


def best_temperature_nll(
  margins: np.ndarray, weights: np.ndarray | None = None
) -> BestTemperature:
  """min over s ≥ 0 of mean(−log σ(s · margins)).

  Judges the ordering and relative size of margins and forgives their scale,
  so losses with different natural scales can be selected by one criterion.
  Convex in s: the root of mean(margins · σ(−s · margins)) is bracketed by
  doubling and found by bisection. On labels with flips of rate ε the expected
  loss of a pair with clean margin m is −log σ(s m) + ε s m: the flips cost in
  proportion to the scale, which the choice of s settles for every model.

  Args:
    margins: `[..., B]` finite, any unit.
    weights: `[B]` ≥ 0, or all alike. Soft labels q: margins [m, −m] with
      weights [q, 1 − q].

  Raises:
    ValueError: an empty batch, a non-finite margin, or bad weights.
  """
  margins = _check_margins(margins)
  if not np.all(np.isfinite(margins)):
    raise ValueError('margins must be finite')
  weights = _check_weights(weights, margins.shape[-1])
  shares = weights / weights.sum()
  size = np.max(np.abs(margins) * (shares > 0), axis=-1)
  scale = np.where(size > 0, size, 1.0)
  flat = (margins / scale[..., None]).reshape(-1, margins.shape[-1])

  def pull(s: np.ndarray) -> np.ndarray:
    """−d nll/ds; falls as s grows."""
    return (flat * special.expit(-s[:, None] * flat)) @ shares

  rising = flat @ shares > 0
  separable = rising & ~np.any((flat < 0) & (shares > 0), axis=-1)
  search = rising & ~separable
  high = np.ones(len(flat))
  while np.any(short := search & (pull(high) > 0) & (high < 1e300)):
    high = np.where(short, 2 * high, high)
  low = np.where(high > 1, high / 2, 0.0)
  for _ in range(60):
    middle = (low + high) / 2
    up = pull(middle) > 0
    low, high = np.where(up, middle, low), np.where(up, high, middle)
  best = np.where(search, (low + high) / 2, 0.0)
  nll = np.logaddexp(0, -best[:, None] * flat) @ shares
  ties = (flat == 0) @ shares
  nll = np.where(separable, ties * np.log(2), nll)
  best = np.where(separable, np.inf, best) / scale.reshape(-1)
  shape = margins.shape[:-1]
  return BestTemperature(nll.reshape(shape), best.reshape(shape))


def flipped_fit_share(
  noisy_margins: np.ndarray, is_flipped: np.ndarray
) -> np.ndarray:
  """Share of flipped pairs on which the model agrees with the *wrong* label.

  Near 0 the flips are ignored; at 1 the noise is memorised. Ties count half.

  Args:
    noisy_margins: `[..., B]` margins oriented by the noisy label.
    is_flipped: `[B]` bool.

  Returns:
    `[...]`; NaN where no pair is flipped.

  Raises:
    ValueError: shapes differ or a margin is NaN.
  """
  margins = _check_margins(noisy_margins)
  is_flipped = np.asarray(is_flipped, bool)
  if is_flipped.shape != margins.shape[-1:]:
    raise ValueError(
      f'is_flipped has shape {is_flipped.shape}; it must be '
      f'{margins.shape[-1:]}'
    )
  if not is_flipped.any():
    return np.full(margins.shape[:-1], np.nan)
  return accuracy(margins[..., is_flipped])


def length_only_accuracy(
  chosen_lengths: np.ndarray, rejected_lengths: np.ndarray
) -> float:
  """Accuracy of always preferring the longer completion; ties count half.

  A model that does not beat max(this, 1 − this) may have learned length only.

  Args:
    chosen_lengths: `[B]` tokens (or characters), chosen by the label judged.
    rejected_lengths: `[B]`, same unit.

  Raises:
    ValueError: shapes differ or are empty.
  """
  chosen, rejected = np.asarray(chosen_lengths), np.asarray(rejected_lengths)
  if chosen.shape != rejected.shape:
    raise ValueError(
      f'chosen_lengths has shape {chosen.shape}, rejected_lengths '
      f'{rejected.shape}; they must be equal'
    )
  return float(accuracy(chosen.astype(np.float64) - rejected))


def majority_accuracy(train_label: np.ndarray, test_label: np.ndarray) -> float:
  """Accuracy of always answering the more frequent training label.

  Args:
    train_label: `[A]` bool, True where the first completion is better.
    test_label: `[B]` bool.

  Returns:
    Share of the test; .5 where the training labels are balanced exactly.

  Raises:
    ValueError: an empty array.
  """
  train, test = np.asarray(train_label, bool), np.asarray(test_label, bool)
  if not train.size or not test.size:
    raise ValueError(
      f'train_label has {train.size} and test_label {test.size} entries; both '
      'need at least one'
    )
  side = np.sign(2 * train.mean() - 1)
  return float(accuracy(side * np.where(test, 1.0, -1.0)))


def _check_margins(margins: np.ndarray) -> np.ndarray:
  margins = np.asarray(margins, np.float64)
  if margins.ndim < 1 or not margins.shape[-1] or np.any(np.isnan(margins)):
    raise ValueError(
      f'margins of shape {margins.shape} must be [..., B], B >= 1, without NaN'
    )
  return margins


def _check_weights(weights: np.ndarray | None, size: int) -> np.ndarray:
  if weights is None:
    return np.ones(size)
  weights = np.asarray(weights, np.float64)
  if weights.shape != (size,) or not np.all(weights >= 0) or not weights.any():
    raise ValueError(
      f'weights of shape {weights.shape} must be ({size},), >= 0, not all 0'
    )
  return weights

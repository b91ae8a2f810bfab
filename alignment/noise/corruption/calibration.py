"""Finding the parameter of a noise model that gives a wanted mean flip rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def check_rate(flip_rate: float | None) -> float:
  """Returns `flip_rate` as a float.

  Raises:
    ValueError: not a number in [0, 1].
  """
  if flip_rate is None or not 0 <= flip_rate <= 1:
    raise ValueError(f'flip_rate={flip_rate} must lie in [0, 1]')
  return float(flip_rate)


def calibrate(
  rates: Callable[[float], np.ndarray],
  flip_rate: float,
  unit: float = 1.0,
  weights: np.ndarray | None = None,
) -> float:
  """Solves mean(rates(x)) = flip_rate for x in [0, ∞] by bisection on log x.

  The mean must be continuous in x; where it is also monotone the solution is
  unique, and per-example rates that grow with x make the flips at a lower
  target a subset of those at a higher one (common random numbers).

  Args:
    rates: x -> `[B]` probabilities; called at 0 and at infinity too.
    flip_rate: target mean, between mean(rates(0)) and mean(rates(∞)).
    unit: > 0, the order of magnitude of x; the search spans unit · e^±60.
    weights: `[B]` ≥ 0 of the mean, all alike unless given.

  Returns:
    x, with a mean within 1e-12 of the target for any smooth family.

  Raises:
    ValueError: the target is out of the family's reach.
  """
  check_rate(flip_rate)

  def mean(x: float) -> float:
    return float(np.average(rates(x), weights=weights))

  low, high = mean(0.0), mean(np.inf)
  # A mean of B equal numbers may differ from the number in its last bits.
  slack = 1e-12
  if not low - slack <= flip_rate <= high + slack:
    raise ValueError(
      f'flip_rate={flip_rate} is out of reach: with these pairs this noise '
      f'model has mean flip rates in [{low:.6g}, {high:.6g}]'
    )
  if flip_rate >= high - slack:
    return np.inf
  if flip_rate <= low:
    return 0.0
  left, right = -60.0, 60.0
  for _ in range(70):
    middle = (left + right) / 2
    if mean(unit * np.exp(middle)) < flip_rate:
      left = middle
    else:
      right = middle
  return float(unit * np.exp((left + right) / 2))


def solve_rates(
  rates: Callable[[float], np.ndarray],
  flip_rate: float,
  unit: float = 1.0,
  weights: np.ndarray | None = None,
) -> np.ndarray:
  """Per-example rates of the family with mean `flip_rate`; all 0 at 0.

  Raises:
    ValueError: as `calibrate`.
  """
  if check_rate(flip_rate) == 0:
    # Ties may keep a family above 0; no noise is still no noise.
    return np.zeros_like(rates(0.0))
  return rates(calibrate(rates, flip_rate, unit, weights))


def check_one(flip_rate: float | None, name: str, value: object) -> None:
  """Refuses both and neither of `flip_rate` and the model's own parameter.

  Raises:
    ValueError: not exactly one is given.
  """
  if (flip_rate is None) == (value is None):
    raise ValueError(
      f'exactly one of flip_rate={flip_rate} and {name}={value} must be given'
    )


def choose_rates(
  rates: Callable[[float], np.ndarray],
  flip_rate: float | None,
  name: str,
  value: float | None,
  unit: float,
) -> np.ndarray:
  """Per-example rates at the parameter `value`, or else at a mean `flip_rate`.

  Raises:
    ValueError: as `check_one` and `calibrate`, or value ≤ 0.
  """
  check_one(flip_rate, name, value)
  if value is None:
    return solve_rates(rates, flip_rate, unit)
  if not value > 0:
    raise ValueError(f'{name}={value} must be > 0')
  return rates(value)


def probability(odds: float) -> float:
  """odds / (1 + odds): [0, ∞] to [0, 1]."""
  return 1.0 if np.isinf(odds) else odds / (1 + odds)


def solve_share(full: np.ndarray, flip_rate: float) -> np.ndarray:
  """share · full, whose mean is `flip_rate`; share in [0, 1].

  Args:
    full: `[B]` probabilities, the rates at share 1.
    flip_rate: target mean.

  Raises:
    ValueError: as `calibrate`.
  """

  def rates(odds: float) -> np.ndarray:
    return probability(odds) * full

  return solve_rates(rates, flip_rate)


def share_rates(
  full: np.ndarray, flip_rate: float | None, name: str, value: float | None
) -> np.ndarray:
  """value · full, or else that share of `full` whose mean is `flip_rate`.

  Raises:
    ValueError: as `check_one` and `calibrate`, or value outside [0, 1].
  """
  check_one(flip_rate, name, value)
  if value is None:
    return solve_share(full, flip_rate)
  if not 0 <= value <= 1:
    raise ValueError(f'{name}={value} must lie in [0, 1]')
  return value * full


def count_of(flip_rate: float, size: int) -> int:
  """⌊flip_rate · size⌋.

  Raises:
    ValueError: as `check_rate`.
  """
  # .29 · 100 is 28.999999999999996 in floating point, and means 29.
  return int(np.floor(check_rate(flip_rate) * size + 1e-9))


def largest(score: np.ndarray, count: float, tie: np.ndarray) -> np.ndarray:
  """1 at the `count` largest scores, 0 elsewhere; what is left over of a
  count that is no integer goes to the next one.

  Args:
    score: `[B]`.
    count: in [0, B].
    tie: `[B]`, the order among equal scores.
  """
  rank = np.empty(len(score))
  rank[np.lexsort((tie, -score))] = np.arange(len(score))
  return np.clip(count - rank, 0.0, 1.0)


def ratio(margin: np.ndarray, x: float) -> np.ndarray:
  """margin / x with the limits at x = 0 and ∞; 0 where the margin is 0."""
  with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
    return np.where(margin == 0, 0.0, margin / x)


def unit(margin: np.ndarray) -> float:
  """The order of magnitude of the margins: the search for x starts there."""
  distance = np.abs(margin[margin != 0])
  return float(np.median(distance)) if distance.size else 1.0

"""Flips that depend on how far apart the two completions are."""

from __future__ import annotations

import jax
import numpy as np
from scipy import special

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import (
  check_one,
  check_rate,
  choose_rates,
  largest,
  ratio,
  unit,
)
from alignment.noise.labels import flip
from alignment.types import NoisyLabels


def bt_temperature(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  margin: np.ndarray,
  flip_rate: float | None = None,
  temperature: float | None = None,
) -> NoisyLabels:
  """Labels every pair anew by Bradley-Terry at a temperature.

  P(label = first) = σ(margin / temperature), so a label differs from the
  clean one with probability σ(−sign · margin / temperature), sign = ±1 by
  `clean_label`. Where clean labels are the larger reward this is at most ½
  and grows with the temperature; a clean label that contradicts its margin
  (itself a Bradley-Terry draw) is mostly turned back, and then flips at two
  rates are not nested.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    margin: `[B]` finite, reward(first) − reward(second).
    flip_rate: target mean rate; the temperature is found by bisection.
    temperature: > 0, in units of reward; instead of `flip_rate`.

  Raises:
    ValueError: not exactly one of `flip_rate` and `temperature`, a target out
      of reach (usually above ½), or a shape or range violated.

  Source: Bradley and Terry, Rank analysis of incomplete block designs, 1952;
  as label noise ("stochastic"), Gao et al., Impact of preference noise on the
  alignment performance of generative language models, 2024, 2404.09824.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  agreed = support(clean_label, margin)

  def rates(x: float) -> np.ndarray:
    return special.expit(-ratio(agreed, x))

  rate = choose_rates(
    rates, flip_rate, 'temperature', temperature, unit(agreed)
  )
  return flip(clean_label, uniform, rate)


def gaussian(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  margin: np.ndarray,
  flip_rate: float | None = None,
  scale: float | None = None,
) -> NoisyLabels:
  """Labels every pair by its reward margin plus Gaussian noise.

  label = [margin + scale · z > 0], z ~ N(0, 1), so a label differs from the
  clean one with probability Φ(−sign · margin / scale). The noise is drawn per
  pair, also where pairs share a completion.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    margin: `[B]` finite, reward(first) − reward(second).
    flip_rate: target mean rate; the scale is found by bisection.
    scale: > 0, standard deviation on the *margin*, in units of reward (noise
      of deviation s on each reward is scale = s√2); instead of `flip_rate`.

  Raises:
    ValueError: as `bt_temperature`.

  Source: Thurstone, A law of comparative judgment, 1927; as label noise, Gao
  et al., 2024, 2404.09824.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  agreed = support(clean_label, margin)

  def rates(x: float) -> np.ndarray:
    return special.ndtr(-ratio(agreed, x))

  rate = choose_rates(rates, flip_rate, 'scale', scale, unit(agreed))
  return flip(clean_label, uniform, rate)


def margin_dependent(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  margin: np.ndarray,
  flip_rate: float | None = None,
  tau: float | None = None,
  cap: float = 0.5,
) -> NoisyLabels:
  """Flips close pairs more often: rate = cap · exp(−|margin| / tau).

  Unlike `bt_temperature` it flips the clean label whatever the sign of the
  margin, and `cap` > ½ makes the closest pairs systematically wrong. As tau
  grows the model becomes `symmetric` at rate `cap`.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    margin: `[B]` finite, reward(first) − reward(second).
    flip_rate: target mean rate; tau is found by bisection.
    tau: > 0, in units of reward; instead of `flip_rate`.
    cap: in (0, 1], the rate of a pair without margin.

  Raises:
    ValueError: as `bt_temperature`; the reach is cap · P(margin = 0) to cap.
  """
  if not 0 < cap <= 1:
    raise ValueError(f'cap={cap} must lie in (0, 1]')
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  distance = np.abs(support(clean_label, margin))

  def rates(x: float) -> np.ndarray:
    return cap * np.exp(-ratio(distance, x))

  rate = choose_rates(rates, flip_rate, 'tau', tau, unit(distance))
  return flip(clean_label, uniform, rate)


def hard_only(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  margin: np.ndarray,
  flip_rate: float | None = None,
  threshold: float | None = None,
  rate: float = 1.0,
) -> NoisyLabels:
  """Flips the closest pairs and no other.

    rate where |margin| < threshold, 0 elsewhere

  At rate 1 the flips are certain, so that no draw but that between equal
  margins decides; at rate ½ close pairs are labelled by a coin.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    index: `[B]` stable ids.
    margin: `[B]` finite, reward(first) − reward(second).
    flip_rate: target mean rate, at most `rate`: the flip_rate · B / rate pairs
      of smallest |margin| are the close ones, the last of them in part.
    threshold: ≥ 0, in units of reward; instead of `flip_rate`.
    rate: in (0, 1], of a close pair.

  Raises:
    ValueError: not exactly one of `flip_rate` and `threshold`, a target out of
      reach, or a shape or range violated.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  distance = np.abs(support(clean_label, margin))
  check_one(flip_rate, 'threshold', threshold)
  if not 0 < rate <= 1:
    raise ValueError(f'rate={rate} must lie in (0, 1]')
  if threshold is None:
    if check_rate(flip_rate) > rate:
      raise ValueError(
        f'flip_rate={flip_rate} is out of reach: close pairs flip at rate '
        f'{rate}'
      )
    tie = draws.uniforms(key, draws.TIES, index)
    is_close = largest(-distance, flip_rate / rate * len(distance), tie)
  elif threshold >= 0:
    is_close = distance < threshold
  else:
    raise ValueError(f'threshold={threshold} must be >= 0')
  return flip(clean_label, uniform, rate * is_close)


def support(
  clean_label: np.ndarray, margin: np.ndarray, name: str = 'margin'
) -> np.ndarray:
  """The margin seen from the clean label: > 0 where the two agree.

  Raises:
    ValueError: `margin`, called `name`, is not `[B]` and finite.
  """
  margin = np.asarray(margin, np.float64)
  if margin.shape != clean_label.shape or not np.all(np.isfinite(margin)):
    raise ValueError(
      f'{name} has shape {margin.shape}; it must be {clean_label.shape}, all '
      'finite'
    )
  return np.where(clean_label, margin, -margin)

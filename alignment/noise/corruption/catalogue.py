"""What happens to labels: noise models with a known truth.

Every model is `(key, clean_label, *, index, ..., flip_rate) -> NoisyLabels`.
It works out the probability that each label flips and compares it with one
uniform draw per example (`draws.uniforms`), so under one key

- the draw depends on the example's `index` alone, not on layout or order;
- rates, and models, share their draws: with per-example rates that grow with
  the target, the flips at .2 are a subset of those at .4;
- examples that share an `index` (say, of their prompt) flip jointly, except
  under `exact_count`, which refuses repeated ones.

Conventions: `clean_label` is `[B]` bool, True where the first completion is
better; `margin` is `[B]`, reward(first) − reward(second); `lengths` is
`[B, 2]` tokens, first and second. `flip_rate` is the mean rate over the pairs
given: the expected one, except under `exact_count`. `flip_rate=0` leaves the
labels alone under every model. Host code: arrays in and out are numpy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from scipy import special

from alignment.noise.corruption import draws
from alignment.noise.corruption.annotators import per_annotator
from alignment.noise.corruption.calibration import (
  check_one,
  check_rate,
  choose_rates,
  ratio,
  solve_rates,
  unit,
)
from alignment.noise.labels import flip
from alignment.types import NoisyLabels

DATA = ('index', 'margin', 'lengths', 'annotator_id')
"""Keywords that describe the pairs; all others are hyperparameters."""


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
  if np.unique(index).size != len(clean_label):
    raise ValueError('index must not repeat: exact_count flips single pairs')
  size = len(clean_label)
  # .29 · 100 is 28.999999999999996 in floating point, and means 29.
  count = int(np.floor(check_rate(flip_rate) * size + 1e-9))
  is_flipped = np.zeros(size, bool)
  is_flipped[np.lexsort((index, uniform))[:count]] = True
  rate = np.full(size, count / max(size, 1), np.float32)
  return NoisyLabels(clean_label ^ is_flipped, is_flipped, rate)


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
  support = _support(clean_label, margin)

  def rates(x: float) -> np.ndarray:
    return special.expit(-ratio(support, x))

  rate = choose_rates(
    rates, flip_rate, 'temperature', temperature, unit(support)
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
  support = _support(clean_label, margin)

  def rates(x: float) -> np.ndarray:
    return special.ndtr(-ratio(support, x))

  rate = choose_rates(rates, flip_rate, 'scale', scale, unit(support))
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
  distance = np.abs(_support(clean_label, margin))

  def rates(x: float) -> np.ndarray:
    return cap * np.exp(-ratio(distance, x))

  rate = choose_rates(rates, flip_rate, 'tau', tau, unit(distance))
  return flip(clean_label, uniform, rate)


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
    ValueError: as `bt_temperature`.
  """
  clean_label, uniform = draws.flip_draws(key, clean_label, index)
  lengths = np.asarray(lengths)
  if lengths.shape != (len(clean_label), 2):
    raise ValueError(
      f'lengths has shape {lengths.shape}; it must be ({len(clean_label)}, 2)'
    )
  advantage = np.where(clean_label, 1, -1) * (lengths[:, 0] - lengths[:, 1])
  shorter_wins = advantage < 0

  def rates(odds: float) -> np.ndarray:
    share = 1.0 if np.isinf(odds) else odds / (1 + odds)
    return share * shorter_wins

  check_one(flip_rate, 'length_preference', length_preference)
  if length_preference is None:
    rate = solve_rates(rates, flip_rate)
  elif 0 <= length_preference <= 1:
    rate = length_preference * shorter_wins
  else:
    raise ValueError(
      f'length_preference={length_preference} must lie in [0, 1]'
    )
  return flip(clean_label, uniform, rate)


NOISE: Mapping[str, Callable[..., NoisyLabels]] = {
  'symmetric': symmetric,
  'exact_count': exact_count,
  'bt_temperature': bt_temperature,
  'gaussian': gaussian,
  'margin_dependent': margin_dependent,
  'length_biased': length_biased,
  'per_annotator': per_annotator,
}


def hyperparameters(name: str) -> dict[str, Any]:
  """Hyperparameters of a noise model and their defaults, from its signature.

  A hyperparameter without a default maps to None.

  Raises:
    ValueError: unknown name.
  """
  return {
    parameter.name: None
    if parameter.default is parameter.empty
    else parameter.default
    for parameter in _keywords(name)
    if parameter.name not in DATA
  }


def inputs(name: str) -> tuple[str, ...]:
  """Which of `DATA` a noise model reads.

  Raises:
    ValueError: unknown name.
  """
  return tuple(p.name for p in _keywords(name) if p.name in DATA)


def corrupt(
  name: str,
  key: jax.Array,
  clean_label: np.ndarray,
  data: Mapping[str, np.ndarray],
  **hyper: Any,
) -> NoisyLabels:
  """Applies the noise model `name` to labels with whatever it needs of `data`.

  Args:
    name: a key of `NOISE`.
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    data: what is known of the pairs, among `DATA`; what the model does not
      read is left alone.
    **hyper: hyperparameters of the model.

  Raises:
    ValueError: an unknown name, a hyperparameter that the model does not use,
      missing data, or whatever the model itself refuses.
  """
  refused = sorted(set(hyper) - set(hyperparameters(name)))
  if refused:
    raise ValueError(
      f'{refused[0]}={hyper[refused[0]]} is not used by noise {name!r}, which '
      f'takes {sorted(hyperparameters(name))}'
    )
  missing = [word for word in inputs(name) if data.get(word) is None]
  if missing:
    raise ValueError(
      f'noise {name!r} needs {missing[0]}; data has {sorted(data)}'
    )
  given = {word: data[word] for word in inputs(name)}
  return NOISE[name](key, clean_label, **given, **hyper)


def _keywords(name: str) -> list[inspect.Parameter]:
  if name not in NOISE:
    raise ValueError(f'noise={name!r} must be one of {sorted(NOISE)}')
  parameters = inspect.signature(NOISE[name]).parameters.values()
  return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def _support(clean_label: np.ndarray, margin: np.ndarray) -> np.ndarray:
  """The margin seen from the clean label: > 0 where the two agree."""
  margin = np.asarray(margin, np.float64)
  if margin.shape != clean_label.shape or not np.all(np.isfinite(margin)):
    raise ValueError(
      f'margin has shape {margin.shape}; it must be {clean_label.shape}, all '
      'finite'
    )
  return np.where(clean_label, margin, -margin)

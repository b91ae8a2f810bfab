"""What happens to labels: noise models with a known truth.

Every model is `(key, clean_label, *, index, ..., flip_rate) -> NoisyLabels`.
It works out the probability that each label flips and compares it with one
uniform draw per example (`draws.uniforms`), so under one key

- the draw depends on the example's `index` alone, not on layout or order;
- rates, and models, share their draws: with per-example rates that grow with
  the target, the flips at .2 are a subset of those at .4;
- examples that share an `index` (say, of their prompt) flip jointly; what
  flips an exact count refuses repeated ones.

Conventions: `clean_label` is `[B]` bool, True where the first completion is
better; `margin` is `[B]`, reward(first) − reward(second); `lengths` is
`[B, 2]` tokens, first and second. `flip_rate` is the mean rate over the pairs
given: the expected one, except where an exact count is flipped. `flip_rate=0`
leaves the labels alone under every model. The models are sorted by what they
look at: `uniform`, `margins`, `features`, `annotators`, `teachers`, `attacks`;
labels of more than two classes are in `classes`. Host code: arrays in and out
are numpy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from alignment.noise.corruption import draws
from alignment.noise.corruption.annotators import per_annotator
from alignment.noise.corruption.attacks import adversarial, poisoned
from alignment.noise.corruption.calibration import count_of
from alignment.noise.corruption.features import feature_logistic, length_biased
from alignment.noise.corruption.margins import (
  bt_temperature,
  gaussian,
  hard_only,
  margin_dependent,
)
from alignment.noise.corruption.teachers import ai_judge, teacher
from alignment.noise.corruption.uniform import (
  class_conditional,
  exact_count,
  instance_dependent,
  symmetric,
)
from alignment.types import NoisyLabels

DATA = (
  *('index', 'margin', 'lengths', 'annotator_id', 'features', 'judge_margin'),
  *('step_rewards', 'has_trigger', 'attack_score'),
)
"""Keywords that describe the pairs; all others are hyperparameters."""

EXACT = ('exact_count', 'adversarial')
"""Models that flip a whole number of pairs by themselves."""

NOISE: Mapping[str, Callable[..., NoisyLabels]] = {
  'symmetric': symmetric,
  'exact_count': exact_count,
  'class_conditional': class_conditional,
  'instance_dependent': instance_dependent,
  'bt_temperature': bt_temperature,
  'gaussian': gaussian,
  'margin_dependent': margin_dependent,
  'hard_only': hard_only,
  'length_biased': length_biased,
  'feature_logistic': feature_logistic,
  'per_annotator': per_annotator,
  'teacher': teacher,
  'ai_judge': ai_judge,
  'poisoned': poisoned,
  'adversarial': adversarial,
}


INSTEAD: Mapping[str, str] = {
  'class_conditional': 'rates',
  'instance_dependent': 'max_rate',
  'bt_temperature': 'temperature',
  'gaussian': 'scale',
  'margin_dependent': 'tau',
  'hard_only': 'threshold',
  'length_biased': 'length_preference',
  'feature_logistic': 'bias',
  'per_annotator': 'reliabilities',
  'teacher': 'mistake',
  'ai_judge': 'temperature',
  'poisoned': 'poison_rate',
}
"""Model -> its own parameter, which may be given instead of a flip rate."""


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
  *,
  exact: bool = False,
  **hyper: Any,
) -> NoisyLabels:
  """Applies the noise model `name` to labels with whatever it needs of `data`.

  Args:
    name: a key of `NOISE`.
    key: JAX key, one per seed.
    clean_label: `[B]` bool.
    data: what is known of the pairs, among `DATA`; what the model does not
      read is left alone.
    exact: flip exactly ⌊flip_rate · B⌋ labels, every one still at the model's
      own rate (see `draws.exact_flips`), which rules out repeated indices.
      Where the model's own parameter is given instead of a flip rate, the
      count is the sum of the rates, rounded down or up.
    **hyper: hyperparameters of the model.

  Raises:
    ValueError: an unknown name, a hyperparameter that the model does not use,
      missing data, `exact` of a model that is exact by itself or that skips
      or ties pairs, or whatever the model itself refuses.
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
  if not exact:
    return NOISE[name](key, clean_label, **given, **hyper)
  if name in EXACT:
    raise ValueError(
      f'exact=True is not used by noise {name!r}, which is exact'
    )
  if hyper.get('flip_rate') is not None:
    size = len(clean_label)
    hyper['flip_rate'] = count_of(hyper['flip_rate'], size) / max(size, 1)
  labels = NOISE[name](key, clean_label, **given, **hyper)
  if labels.label_prob is not None or labels.weight is not None:
    raise ValueError(
      f'exact=True: noise {name!r} ties or skips pairs, whose labels are coins'
    )
  rate = np.asarray(labels.flip_rate, np.float64)
  is_flipped = draws.exact_flips(key, rate, given['index'])
  label = np.asarray(clean_label) ^ is_flipped
  return labels.replace(label=label, is_flipped=is_flipped)


def _keywords(name: str) -> list[inspect.Parameter]:
  if name not in NOISE:
    raise ValueError(f'noise={name!r} must be one of {sorted(NOISE)}')
  parameters = inspect.signature(NOISE[name]).parameters.values()
  return [p for p in parameters if p.kind is p.KEYWORD_ONLY]

"""Rotary embeddings as `config.json` describes them.

`transformers` 5 keeps everything in `rope_parameters`; before, there were
`rope_theta` and `rope_scaling`. Both are read, and both are written. Where a
folder has `rope_scaling` as well as `rope_parameters`, the former counts, as
it does there.

Source of the kinds: Chen et al., "Extending Context Window of Large Language
Models via Positional Interpolation", arXiv:2306.15595 ('linear'); Grattafiori
et al., "The Llama 3 Herd of Models", arXiv:2407.21783, and its published
configs ('llama3'); Peng et al., "YaRN: Efficient Context Window Extension of
Large Language Models", arXiv:2309.00071 ('yarn').
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from alignment.models.huggingface.config_json import PLACE, positive, refused
from alignment.models.huggingface.family import ModelError
from alignment.models.rotary import Rotary

_EVERYWHERE = {'rope_type', 'type', 'rope_theta', 'partial_rotary_factor'}
_KEYS = {
  'default': set(),
  'linear': {'factor'},
  'llama3': {
    'factor',
    'low_freq_factor',
    'high_freq_factor',
    'original_max_position_embeddings',
  },
  'yarn': {
    'factor',
    'original_max_position_embeddings',
    'attention_factor',
    'beta_fast',
    'beta_slow',
    'mscale',
    'mscale_all_dim',
    'truncate',
  },
}
"""Kind of rotary embedding -> what it is described by."""


def described(given: Mapping[str, Any]) -> dict[str, Any]:
  """`rope_scaling`, else `rope_parameters`, else nothing, as one dictionary."""
  for name in ('rope_scaling', 'rope_parameters'):
    said = given.get(name)
    if said is not None and not isinstance(said, Mapping):
      raise refused(name, said, 'an object or null')
    if said:
      return dict(said)
  return {}


def read_rotary(
  said: Mapping[str, Any],
  given: Mapping[str, Any],
  *,
  theta: Any,
  context: int,
  fraction: Any = 1.0,
) -> Rotary:
  """The rotary embedding of one `rope_parameters`.

  Args:
    said: the dictionary.
    given: the whole of `config.json`.
    theta, fraction: where `said` does not say.
    context: `max_position_embeddings`, the original context likewise.

  Raises:
    ModelError: an unknown kind, or one whose description is not understood.
  """
  kind = said.get('rope_type', said.get('type', 'default'))
  if not isinstance(kind, str) or kind not in _KEYS:
    raise refused('rope_type', kind, f'one of {", ".join(_KEYS)}')
  for name, value in said.items():
    # Keys that a kind does not use are left lying in folders, but a key that
    # no kind has may change anything.
    if name not in _EVERYWHERE.union(*_KEYS.values()):
      raise refused(name, value, f'absent from what describes {kind!r}')
  theta = positive('rope_theta', said.get('rope_theta', theta))
  fraction = positive(
    'partial_rotary_factor', said.get('partial_rotary_factor', fraction)
  )
  arguments: dict[str, Any] = {'theta': theta, 'fraction': fraction}
  if kind != 'default':
    arguments |= {'scaling': kind, 'factor': _number(said, 'factor')}
  if kind in ('llama3', 'yarn'):
    name = 'original_max_position_embeddings'
    original = given.get(name, said.get(name, context))
    if type(original) is not int:
      raise refused(name, original, 'an integer')
    arguments['original_context'] = original
  if kind == 'llama3':
    for name in ('low_freq_factor', 'high_freq_factor'):
      arguments[name] = _number(said, name)
  if kind == 'yarn':
    arguments |= _yarn(said, arguments['factor'])
  try:
    return Rotary(**arguments)
  except ValueError as error:
    raise ModelError(
      PLACE, f'rope_parameters: {error}', 'Correct the description'
    ) from error


def write_rotary(rotary: Rotary) -> dict[str, Any]:
  """The `rope_parameters` of one rotary embedding."""
  kind = 'default' if rotary.scaling == 'none' else rotary.scaling
  values = {
    'factor': rotary.factor,
    'original_max_position_embeddings': rotary.original_context,
    'low_freq_factor': rotary.low_freq_factor,
    'high_freq_factor': rotary.high_freq_factor,
    'attention_factor': rotary.attention_factor,
    'beta_fast': rotary.beta_fast,
    'beta_slow': rotary.beta_slow,
  }
  used = {name: value for name, value in values.items() if name in _KEYS[kind]}
  return {'rope_type': kind, 'rope_theta': rotary.theta, **used}


def write_both(rotary: Rotary | None) -> dict[str, Any]:
  """`rope_parameters`, and the same for readers before `transformers` 5.

  Raises:
    ValueError: there is none.
  """
  if rotary is None:
    raise ValueError('rotary=None must be how positions turn queries and keys')
  said = write_rotary(rotary)
  written = {'rope_parameters': said, 'rope_theta': rotary.theta}
  if rotary.scaling != 'none':
    written['rope_scaling'] = {
      name: value for name, value in said.items() if name != 'rope_theta'
    }
  return written


def _number(said: Mapping[str, Any], name: str) -> float:
  return positive(name, said.get(name))


def _yarn(said: Mapping[str, Any], factor: float) -> dict[str, float]:
  """What only 'yarn' has; the factor of cos and sin is 0.1 log(factor) + 1."""
  if said.get('truncate', True) is not True:
    raise refused('truncate', said['truncate'], 'true')

  def spread(scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

  by = said.get('attention_factor')
  if by is None:
    scales = said.get('mscale'), said.get('mscale_all_dim')
    if all(scales):
      top, bottom = (positive('mscale', scale) for scale in scales)
      by = spread(top) / spread(bottom)
    else:
      by = spread(1.0)
  return {
    'attention_factor': positive('attention_factor', by),
    'beta_fast': positive('beta_fast', said.get('beta_fast') or 32),
    'beta_slow': positive('beta_slow', said.get('beta_slow') or 1),
  }

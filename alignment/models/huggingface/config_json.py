"""The fields of `config.json` that describe a model, read and written.

A field that is absent has the default of its class in `transformers`, which is
not always what null means: an absent `sliding_window` of Mistral is 4096, null
is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.family import Family, ModelError, Weight

PLACE = 'config.json'
MOST = 2**24
"""No size is larger; a file that says so is not believed."""
MOST_LAYERS = 2**12
_LARGEST = 1e30

FIXED: dict[str, tuple] = {
  'is_causal': (True,),
  'is_encoder_decoder': (False,),
  'per_layer_config': (None,),
}
"""Of every family: field -> the values it may have, first that of absence."""

RUNTIME = (
  'head',
  'matmul_dtype',
  'attention',
  'remat',
  'scan_layers',
  'head_chunk',
)
"""Choices of a config that are about running a model, not about which it is."""

ACTIVATIONS = {
  'silu': 'silu',
  'swish': 'silu',
  'gelu': 'gelu',
  'gelu_python': 'gelu',
  'gelu_new': 'gelu_tanh',
  'gelu_fast': 'gelu_tanh',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'gelu_python_tanh': 'gelu_tanh',
}
"""Names of activations in folders -> ours."""

_LAYERS = {
  'full_attention': False,
  'attention': False,
  'sliding_attention': True,
}


class Fields:
  """What a `config.json` says, field by field, checked.

  Args:
    given: the dictionary.
    defaults: of the fields that are read.

  Every method raises ModelError where the value is of another kind or out of
  range.
  """

  def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any]):
    self.given, self.defaults = given, defaults

  def value(self, name: str) -> Any:
    return self.given.get(name, self.defaults[name])

  def size(self, name: str, most: int = MOST, least: int = 1) -> int:
    """An integer in [least, most]."""
    value = self.value(name)
    # Not isinstance: true is an integer in Python.
    if type(value) is not int or not least <= value <= most:
      raise refused(name, value, f'an integer in [{least}, {most}]')
    return value

  def size_or(self, name: str, absent: int | None) -> int | None:
    """`size`, `absent` where it is null."""
    return absent if self.value(name) is None else self.size(name)

  def positive(self, name: str) -> float:
    """A number > 0."""
    return positive(name, self.value(name))

  def positive_or_none(self, name: str) -> float | None:
    return None if self.value(name) is None else self.positive(name)

  def flag(self, name: str) -> bool:
    """true or false."""
    value = self.value(name)
    if not isinstance(value, bool):
      raise refused(name, value, 'true or false')
    return value

  def activation(self, name: str) -> str:
    """Our name of an activation."""
    value = self.value(name)
    if not isinstance(value, str) or value not in ACTIVATIONS:
      raise refused(name, value, f'one of {", ".join(ACTIVATIONS)}')
    return ACTIVATIONS[value]

  def shared(self, size: str, heads: str) -> int:
    """size / heads, which must be whole."""
    whole, parts = self.size(size), self.size(heads)
    if whole % parts:
      raise refused(size, whole, f'a multiple of {heads} = {parts}')
    return whole // parts

  def windows(self, window: int | None, usual: Collection[bool]) -> dict:
    """`window` and `windowed` of a config, by `layer_types`.

    Args:
      window: of the layers that have one; None: no layer may.
      usual: which layers are windowed where `layer_types` is null.
    """
    types, name = self.value('layer_types'), 'layer_types'
    if types is None:
      windowed = tuple(usual)
    else:
      if not isinstance(types, list) or len(types) != len(usual):
        raise refused(name, types, f'null or a list of {len(usual)} kinds')
      for kind in types:
        if not isinstance(kind, str) or kind not in _LAYERS:
          raise refused(name, kind, f'made of {", ".join(_LAYERS)}')
      windowed = tuple(_LAYERS[kind] for kind in types)
    if not any(windowed):
      return {'window': None, 'windowed': None}
    if window is None:
      raise refused(name, 'sliding_attention', 'full: no window is in use')
    return {'window': window, 'windowed': None if all(windowed) else windowed}


def layer_types(config: TransformerConfig) -> list[str]:
  """The `layer_types` of a config."""
  return [
    'sliding_attention' if windowed else 'full_attention'
    for windowed in config.windowed_layers
  ]


def positive(name: str, value: Any) -> float:
  """A number in (0, 1e30]."""
  if type(value) not in (int, float) or not 0 < value <= _LARGEST:
    raise refused(name, value, 'a number > 0')
  return float(value)


def refused(name: str, value: Any, wanted: str) -> ModelError:
  """The error of a field whose value cannot be honoured."""
  return ModelError(
    PLACE,
    f'{name}={value!r:.80} must be {wanted}',
    'No model is read that would compute something else than it was made for',
  )


def activation_name(
  config: TransformerConfig, tanh: str = 'gelu_pytorch_tanh'
) -> str:
  """How `transformers` calls the activation of a config.

  Args:
    config: of the transformer.
    tanh: which of the names of 'gelu_tanh', the same but for rounding.
  """
  return tanh if config.activation == 'gelu_tanh' else config.activation


def make_family(
  architecture: str,
  model_type: str,
  *,
  defaults: Mapping[str, Any],
  fixed: Mapping[str, tuple],
  read: Callable[[Fields], dict[str, Any]],
  write: Callable[[TransformerConfig], dict[str, Any]],
  weights: Callable[[TransformerConfig], list[Weight]],
  ignored: tuple[str, ...],
  renames: tuple[tuple[str, str], ...],
) -> Family:
  """A family whose `read` refuses what it must, and `write` what is lost.

  `write` reads back what it has written: a choice that comes back as another
  one is a choice that the family does not have.

  Args:
    architecture, model_type, weights, ignored, renames: as in `Family`.
    defaults: field of `config.json` that is honoured -> its default.
    fixed: field -> the only values it may have, first that of absence; those
      of `FIXED` are added.
    read: fields -> arguments of `TransformerConfig`.
    write: config -> fields, as if it were one of the family.
  """
  fixed = FIXED | dict(fixed)

  def read_checked(given: Mapping[str, Any]) -> TransformerConfig:
    for name, allowed in fixed.items():
      value = given.get(name, allowed[0])
      if value not in allowed:
        raise refused(name, value, ' or '.join(map(repr, allowed)))
    arguments = read(Fields(given, defaults))
    try:
      return TransformerConfig(**arguments)
    except ValueError as error:
      raise ModelError(
        PLACE, str(error), f'Compare it with others of {architecture}'
      ) from error

  def write_checked(config: TransformerConfig) -> dict[str, Any]:
    if config.head == 'scalar':
      raise ValueError("head='scalar' must be one with a vocabulary")
    if config.context is None:
      raise ValueError('context=None must be a number of positions')
    written = write(config)
    back = read_checked(written)
    for field in dataclasses.fields(config):
      ours, theirs = getattr(config, field.name), getattr(back, field.name)
      if field.name not in RUNTIME and ours != theirs:
        raise ValueError(
          f'{field.name}={ours!r} must be {theirs!r} in {architecture}'
        )
    return written

  return Family(
    architecture,
    model_type,
    read_checked,
    write_checked,
    weights,
    ignored,
    renames,
    defaults,
    fixed,
  )

"""`adapter_config.json` of PEFT: what is honoured, and what is refused."""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.folder_files import read_json

CONFIG = 'adapter_config.json'

_READ = {
  'peft_type',
  'r',
  'lora_alpha',
  'use_rslora',
  'rank_pattern',
  'alpha_pattern',
  'target_modules',
  'layers_to_transform',
  'bias',
  'init_lora_weights',
  'base_model_name_or_path',
}
_WITHOUT_EFFECT = {
  'task_type',
  'auto_mapping',
  'peft_version',
  'revision',
  'inference_mode',
  'lora_dropout',
  'fan_in_fan_out',
  'layers_pattern',
  'loftq_config',
  'eva_config',
  'megatron_core',
  'qalora_group_size',
}
"""Fields that say nothing about adapters that are trained already. All others
are refused where they are set."""

_KEEP_THE_BASE = (None, True, False, 'gaussian', 'orthogonal', 'eva')
"""Values of `init_lora_weights` that leave the base as it is."""


class Settings(NamedTuple):
  """What a folder says of its adapters.

  Attributes:
    rank, alpha, rslora: as in `Lora`.
    rank_pattern, alpha_pattern: module name, or its last parts -> what it has
      instead; the first that fits counts.
    target_modules: names of modules, or their last parts; None: not said in
      plain names.
    layers: the layers that have adapters; None: all.
    base_model: what they were trained on; '' where it is not said.
    place: the file, for messages.
  """

  rank: int
  alpha: float
  rslora: bool
  rank_pattern: dict[str, int]
  alpha_pattern: dict[str, float]
  target_modules: tuple[str, ...] | None
  layers: tuple[int, ...] | None
  base_model: str
  place: str

  def targets(self, module: str, layer: int) -> bool:
    """Whether a module is to have adapters."""
    return (self.layers is None or layer in self.layers) and any(
      _fits(name, module) for name in self.target_modules
    )

  def scale(self, module: str, rank: int) -> float:
    """What B · A of a module is multiplied by.

    Raises:
      ModelError: its tensors have another rank than is said here.
    """
    said = _first(self.rank_pattern, module, self.rank)
    if rank != said:
      raise ModelError(
        self.place,
        f'says rank {said} for {module}, whose tensors have {rank}',
        f'Take {CONFIG} and the tensors of one training',
      )
    alpha = _first(self.alpha_pattern, module, self.alpha)
    return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_settings(folder: pathlib.Path) -> Settings:
  """Reads `adapter_config.json`.

  Patterns are names or the last parts of names, as everybody writes them; a
  regular expression of a folder is not run, since it might never end.

  Raises:
    ModelError: an option that is not plain LoRA, or a value of another kind.
  """
  fields, place = read_json(folder, CONFIG), str(folder / CONFIG)
  _check_plain(fields, place)

  def expect(name: str, holds: bool, wanted: str):
    if not holds:
      raise ModelError(
        place, f'{name} is {fields.get(name)!r:.80}', f'It must be {wanted}'
      )

  rank, alpha = fields.get('r'), fields.get('lora_alpha')
  expect('r', _is_rank(rank), 'an integer ≥ 1')
  expect('lora_alpha', _is_alpha(alpha), 'a number in (0, 2³¹)')
  patterns = {}
  for name, valid in (('rank_pattern', _is_rank), ('alpha_pattern', _is_alpha)):
    given = fields.get(name) or {}
    holds = isinstance(given, dict) and all(map(valid, given.values()))
    expect(name, holds, 'an object of names and numbers')
    patterns[name] = {_name(key, name, place): v for key, v in given.items()}
  targets = fields.get('target_modules')
  if isinstance(targets, str):  # 'all-linear', or a regular expression
    targets = None
  expect('target_modules', targets is None or _all(targets, str), 'names')
  layers = fields.get('layers_to_transform')
  layers = [layers] if isinstance(layers, int) else layers or None
  expect('layers_to_transform', layers is None or _all(layers, int), 'numbers')
  base_model = fields.get('base_model_name_or_path')
  return Settings(
    rank,
    float(alpha),
    fields.get('use_rslora') is True,
    **patterns,
    target_modules=targets and tuple(targets),
    layers=layers and tuple(layers),
    base_model=base_model if isinstance(base_model, str) else '',
    place=place,
  )


def _check_plain(fields: Mapping[str, Any], place: str) -> None:
  """Refuses, by name, all that is not LoRA as in `Lora`."""
  kind = fields.get('peft_type')
  if kind != 'LORA':
    raise ModelError(
      place,
      f'peft_type is {kind!r:.80}',
      'Only LoRA is read; merge these adapters into their base with PEFT',
    )
  refused = {
    name: value
    for name, value in fields.items()
    if value and name not in _READ | _WITHOUT_EFFECT
  }
  if fields.get('bias', 'none') != 'none':
    refused['bias'] = fields['bias']
  start = fields.get('init_lora_weights')
  if not any(start is value for value in _KEEP_THE_BASE[:3]) and (
    start not in _KEEP_THE_BASE[3:]
  ):
    refused['init_lora_weights'] = start
  for name, value in refused.items():
    raise ModelError(
      place,
      f'{name} is {value!r:.80}, which is more than low-rank changes of '
      'linear maps',
      'Merge these adapters into their base with PEFT',
    )


def _name(key: str, field: str, place: str) -> str:
  """A pattern that is a name, with or without the marks of an expression."""
  name = key.replace('\\.', '.').removesuffix('$')
  if not re.fullmatch(r'\^?[\w.-]+', name):
    raise ModelError(
      place,
      f'{field} has the expression {key!r:.80}',
      'Expressions are not run; write the names of the modules',
    )
  return name


def _fits(name: str, module: str) -> bool:
  """Whether `module` is what the name says, or ends in it."""
  if name.startswith('^'):
    return name[1:] == module
  return name == module or module.endswith('.' + name)


def _first(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
  fitting = (value for name, value in pattern.items() if _fits(name, module))
  return next(fitting, default)


def _all(values: Any, kind: type) -> bool:
  return isinstance(values, list) and all(type(v) is kind for v in values)


def _is_rank(value: Any) -> bool:
  return type(value) is int and value >= 1


def _is_alpha(value: Any) -> bool:
  return type(value) in (int, float) and 0 < value < 2**31

"""What `config.json` says a model is, before any of its weights are read."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.config_json import RUNTIME
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.family import Family, ModelError
from alignment.models.huggingface.folder_files import read_json

TOKEN_IDS = ('bos_token_id', 'eos_token_id', 'pad_token_id')

_REFUSED = {
  'auto_map': (
    'brings code of its own',
    'Code of a folder is never run; if the model is one of those known here, '
    'remove auto_map from config.json',
  ),
  'quantization_config': (
    'says that the weights are quantised',
    'Save the model in float32, float16 or bfloat16',
  ),
  'compression_config': (
    'says that the weights are compressed',
    'Save the model in float32, float16 or bfloat16',
  ),
}
_CLASSIFIER = 'ForSequenceClassification'


class Description(NamedTuple):
  """A model folder without its weights.

  Attributes:
    config: of the transformer.
    family: how such models are written.
    token_ids: what the folder says of the keys `TOKEN_IDS`, where it does;
      None: there is no such token.
    is_classifier: whether it is a sequence classifier.
  """

  config: TransformerConfig
  family: Family
  token_ids: dict[str, Any]
  is_classifier: bool


def read_description(folder: os.PathLike | str, **overrides) -> Description:
  """The model that a folder describes.

  A sequence classifier has the family of its language model and
  `head='scalar'`, unless overridden.

  Args:
    folder: with `config.json`.
    **overrides: fields among `RUNTIME`.

  Raises:
    ModelError: no folder, no `config.json` or a broken one, code or
      quantisation in it, an unknown architecture, a field that the family
      cannot honour.
    ValueError: an override that is none.
  """
  for name in overrides:
    if name not in RUNTIME:
      raise ValueError(f'{name} must be one of {RUNTIME} to be overridden')
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise ModelError(
      str(folder), 'is no folder', 'Name the folder that holds config.json'
    )
  place = str(folder / 'config.json')
  settings = read_json(folder, 'config.json')
  for field, (problem, remedy) in _REFUSED.items():
    if settings.get(field):
      raise ModelError(place, f'{field} {problem}', remedy)
  family, is_classifier = _family(settings, place)
  try:
    config = family.read(settings)
  except ModelError as error:  # it does not know where the settings are from
    raise ModelError(place, error.problem, error.remedy) from error
  if is_classifier:
    overrides = {'head': 'scalar', **overrides}
  if overrides.get('head') == 'scalar':
    overrides['tied_head'] = False  # there is none to tie
  config = dataclasses.replace(config, **overrides)
  token_ids = _token_ids(folder, settings, config)
  return Description(config, family, token_ids, is_classifier)


def classifier(family: Family) -> str:
  """Architecture of the sequence classifiers of a family."""
  stem = re.sub(r'(ForCausalLM|LMHeadModel)$', '', family.architecture)
  # The one whose language model is named as the multimodal model is.
  stem = {'Gemma3': 'Gemma3Text'}.get(stem, stem)
  return stem + _CLASSIFIER


def _family(settings: Mapping[str, Any], place: str) -> tuple[Family, bool]:
  named = settings.get('architectures')
  if (
    not isinstance(named, list)
    or len(named) != 1
    or not isinstance(named[0], str)
  ):
    raise ModelError(
      place,
      f'architectures is {named!r:.80}, not one name',
      f'Write one of {", ".join(FAMILIES)}',
    )
  architecture = named[0]
  is_classifier = architecture.endswith(_CLASSIFIER)
  for family in FAMILIES.values():
    if architecture == family.architecture or (
      is_classifier and settings.get('model_type') == family.model_type
    ):
      return family, is_classifier
  raise ModelError(
    place,
    f'architecture {architecture!r:.80} is not known',
    f'Known are {", ".join(FAMILIES)}, and sequence classifiers of their types',
  )


def _token_ids(
  folder: pathlib.Path, settings: Mapping[str, Any], config: TransformerConfig
) -> dict[str, Any]:
  """Of `generation_config.json` where it has them, else of `config.json`."""
  said = {key: settings[key] for key in TOKEN_IDS if key in settings}
  if os.path.lexists(folder / 'generation_config.json'):
    generation = read_json(folder, 'generation_config.json')
    said.update({k: generation[k] for k in TOKEN_IDS if k in generation})
  ids = {}
  for key, value in said.items():
    if value in (None, -1):  # some folders say −1 for none
      ids[key] = None
      continue
    several = value if isinstance(value, list) else [value]
    if not several or not all(
      type(token) is int and 0 <= token < config.vocab_size for token in several
    ):
      raise ModelError(
        str(folder),
        f'{key} is {value!r:.80}, of a vocabulary of {config.vocab_size}',
        'Write the right one, or null, into config.json and '
        'generation_config.json',
      )
    ids[key] = value
  return ids

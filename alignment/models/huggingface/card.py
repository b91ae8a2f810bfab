"""The model card: what a model was made from, said where it is read."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence

_PACKAGES = ('superalignment', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


@dataclasses.dataclass(frozen=True)
class Provenance:
  """Where a model comes from; '' and () are what is not known.

  Attributes:
    data: the data set it was trained on, with its split and size.
    noise: what its labels received: kind and rate, or that nothing was added.
    loss: the objective and its hyperparameters, the assumed flip rate too.
    seeds: of data, noise, initialisation and order.
    base_model: the model it started from, as a Hub name or in words.
    command: that made it.
    results: measure -> value in words, its interval included.
    tags: of the Hub, beside those that are always there.
  """

  data: str
  noise: str
  loss: str
  seeds: Sequence[int]
  base_model: str = ''
  command: str = ''
  results: Mapping[str, str] = dataclasses.field(default_factory=dict)
  tags: Sequence[str] = ()


def model_card(
  name: str,
  provenance: Provenance,
  architecture: str,
  dtype: str,
  library: str = 'transformers',
) -> str:
  """The text of `README.md`: YAML front matter, then what is known.

  Every value is quoted as JSON, of which YAML is a superset, so that no text
  can end the front matter or start a field.

  Args:
    name: heading, the folder's.
    provenance: of the model.
    architecture: of `config.json`.
    dtype: of the weights.
    library: that loads it.
  """
  tags = ['alignment', 'noisy-labels', 'jax', *provenance.tags]
  matter = {'library_name': library, 'tags': list(dict.fromkeys(tags))}
  if _is_hub_name(provenance.base_model):
    matter['base_model'] = provenance.base_model
  matter['pipeline_tag'] = (
    'text-classification'
    if architecture.endswith('ForSequenceClassification')
    else 'text-generation'
  )
  lines = ['---']
  lines += [f'{key}: {_quoted(value)}' for key, value in matter.items()]
  lines += ['---', '', f'# {_one_line(name)}', '']
  lines += ['| what | value |', '|---|---|']
  said = {
    'architecture': architecture,
    'dtype': dtype,
    'base model': provenance.base_model or 'none: trained from scratch',
    'data': provenance.data,
    'label noise': provenance.noise,
    'loss': provenance.loss,
    'seeds': ', '.join(map(str, provenance.seeds)),
    **provenance.results,
  }
  lines += [
    f'| {_cell(what)} | {_cell(value or "not stated")} |'
    for what, value in said.items()
  ]
  if provenance.command:
    lines += ['', 'Made by', '']
    lines += [f'    {line}' for line in provenance.command.splitlines()]
  lines += ['', f'Versions: {_versions()}.', '']
  return '\n'.join(lines)


def _versions() -> str:
  found = [f'Python {platform.python_version()}']
  for package in _PACKAGES:
    try:
      found.append(f'{package} {importlib.metadata.version(package)}')
    except importlib.metadata.PackageNotFoundError:
      continue  # run from a checkout that is not installed
  return ', '.join(found)


def _is_hub_name(name: str) -> bool:
  """'owner/model' or 'model', the only things the Hub accepts there."""
  parts = name.split('/')
  return len(parts) <= 2 and all(
    part and all(c.isascii() and (c.isalnum() or c in '-_.') for c in part)
    for part in parts
  )


def _quoted(value) -> str:
  return json.dumps(value)


def _one_line(text: str) -> str:
  return ' '.join(str(text).split())


def _cell(text: str) -> str:
  return _one_line(text).replace('\\', '\\\\').replace('|', '\\|')

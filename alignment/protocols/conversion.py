"""From one form of a model to another: what is there, and what it becomes."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

from alignment.data.tokenizer_files import character_files
from alignment.models.huggingface import peft
from alignment.models.huggingface.adapter_settings import CONFIG, read_settings
from alignment.models.huggingface.arrays import (
  ARRAYS,
  SIZES,
  is_array_folder,
  read_arrays,
)
from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.families import FAMILIES
from alignment.models.lora import Lora, merge
from alignment.protocols.folder_policies import read_folder
from alignment.protocols.policies import (
  SCRATCH,
  Origin,
  read_checkpoint,
)
from alignment.types import PyTree


class Source(NamedTuple):
  """A model that was read, in whatever form.

  Attributes:
    kind: key of `KINDS`.
    origin: what it is besides its parameters.
    params: its parameters, of a base without its adapters.
    provenance: what is known of its training.
    lora: of its adapters; None where there are none.
    adapters: beside the parameters.
  """

  kind: str
  origin: Origin
  params: PyTree
  provenance: Provenance
  lora: Lora | None = None
  adapters: PyTree = None

  def whole(self) -> PyTree:
    """The parameters, adapters merged."""
    if self.lora is None:
      return self.params
    return merge(self.params, self.adapters, self.lora.scale)


def kind_of(path: str) -> str:
  """What lies at a path, recognised by its files.

  Raises:
    ValueError: nothing that is known, and what would be.
  """
  folder = pathlib.Path(path)
  if (folder / CONFIG).exists():
    return 'adapter'
  if is_array_folder(folder):
    return 'arrays'
  if (folder / 'config.json').exists() and (folder / 'metrics.jsonl').exists():
    raise ValueError(
      f'--input={path}: is the directory of a run; give one of its policies/ '
      '(noisy_dpo saves them with --keep_policies)'
    )
  if (folder / 'config.json').exists():
    return 'folder'
  if folder.is_dir() and any(
    p.name.isdigit() and p.is_dir() for p in folder.iterdir()
  ):
    return 'checkpoint'
  raise ValueError(
    f'--input={path}: is none of: a Hugging Face folder (config.json), an '
    f'adapter of PEFT ({CONFIG}), a checkpoint of a policy (a folder named by '
    f'a step), arrays ({ARRAYS} and {SIZES})'
  )


def read_source(path: str, base: str = '') -> Source:
  """Reads a model in any of the forms.

  Args:
    path: of the model.
    base: folder of the model that an adapter is of; '' is the one it names.

  Raises:
    ModelError, CheckpointError: something that is damaged or lies.
    ValueError: nothing that is known, or a base that is missing or unused.
  """
  kind = kind_of(path)
  if base and kind != 'adapter':
    raise ValueError(f'--base={base}: only used by an adapter, not by a {kind}')
  return KINDS[kind](path, base)


def _of_folder(path: str, base: str) -> Source:
  del base
  origin, params = read_folder(path)
  return Source('folder', origin, params, _provenance(path))


def _of_checkpoint(path: str, base: str) -> Source:
  del base
  return Source('checkpoint', *read_checkpoint(path))


def _of_arrays(path: str, base: str) -> Source:
  del base
  read = read_arrays(path)
  ids = {'bos_id': read.bos_id, 'eos_id': read.eos_id}
  files = character_files(read.pieces, **ids, unk_id=read.unk_id)
  named = {k.replace('_id', '_token_id'): v for k, v in ids.items()}
  origin = Origin(read.config, files, named, SCRATCH)
  return Source('arrays', origin, read.params, _provenance(path))


def _of_adapter(path: str, base: str) -> Source:
  base = base or read_settings(pathlib.Path(path)).base_model
  if not os.path.isdir(base):
    raise ValueError(
      f'--input={path}: is an adapter of {base or "a model it does not name"}, '
      'which is no folder here; give --base=<folder of that model>'
    )
  origin, params = read_folder(base)
  family = FAMILIES[origin.architecture]
  loaded = peft.load_adapters(path, origin.config, family)
  return Source(
    'adapter',
    origin,
    params,
    _provenance(base),
    loaded.lora,
    loaded.adapters,
  )


def _provenance(path: str) -> Provenance:
  return Provenance(data='', noise='', loss='', seeds=(), base_model=path)


KINDS = {
  'folder': _of_folder,
  'checkpoint': _of_checkpoint,
  'adapter': _of_adapter,
  'arrays': _of_arrays,
}
"""Kind -> (path, base) -> Source."""

"""Policies on disk, with all that is needed to use them elsewhere."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.config_json import RUNTIME
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.save import save_model
from alignment.models.huggingface.table import abstract_params
from alignment.models.rotary import Rotary
from alignment.models.stacking import unstack_layers
from alignment.protocols.base_models import write_params
from alignment.training import storage
from alignment.training.checkpoints import Checkpoints
from alignment.types import PyTree

TOKENIZER = 'tokenizer'
"""Where a checkpoint's folder keeps the files of its tokenizer."""
_SAID = ('token_ids', 'architecture', 'folder')
"""Fields of an `Origin` that are written as they are."""
CONTEXT = 2048
"""Positions, where there is no limit: what Llama's folders say by default."""
SCRATCH = 'LlamaForCausalLM'
"""The family of models that are trained from scratch here."""


class Origin(NamedTuple):
  """What a policy is besides its parameters.

  Attributes:
    config: of its transformer.
    files: name -> content, of the tokenizer it reads by.
    token_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, those it has.
    architecture: key of FAMILIES that folders of it are written as.
    folder: where it was read from; '' where it was trained from scratch.
    is_start: whether training starts from that folder's very weights, so that
      adapters are adapters of the folder.
  """

  config: TransformerConfig
  files: Mapping[str, bytes]
  token_ids: Mapping[str, Any]
  architecture: str = SCRATCH
  folder: str = ''
  is_start: bool = False


class Saved(NamedTuple):
  """A policy read from a checkpoint.

  Attributes:
    origin: what it is.
    params: its parameters.
    provenance: what is known of its training.
  """

  origin: Origin
  params: PyTree
  provenance: Provenance


def with_context(origin: Origin) -> Origin:
  """The same with a number of positions, which folders must say.

  Policies that were trained from scratch have no limit; their folders say
  `CONTEXT`.
  """
  if origin.config.context is not None:
    return origin
  return origin._replace(
    config=dataclasses.replace(origin.config, context=CONTEXT)
  )


def write_folder(
  folder: os.PathLike | str,
  origin: Origin,
  params: PyTree,
  provenance: Provenance,
  dtype: str = 'float32',
) -> None:
  """Saves a policy as a Hugging Face folder, with tokenizer and model card.

  Args:
    folder: that does not exist or is empty; its parents are made.
    origin: what the policy is.
    params: its parameters.
    provenance: for the card.
    dtype: that the weights are rounded to.

  Raises:
    ValueError, ModelError: as `save_model`.
  """
  storage.make_directory(pathlib.Path(folder).absolute().parent)
  save_model(
    folder,
    origin.config,
    params,
    FAMILIES[origin.architecture],
    provenance=provenance,
    token_ids=origin.token_ids,
    files=origin.files,
    dtype=dtype,
  )


def write_checkpoint(
  directory: os.PathLike | str,
  origin: Origin,
  params: PyTree,
  provenance: Provenance,
) -> None:
  """Saves a policy as the one checkpoint of a new folder.

  Its metadata hold the config, the architecture and the provenance; the
  tokenizer's files lie in a folder beside it. `experiments.convert` needs
  nothing else.

  Args:
    directory: what was not there before.
    origin: what the policy is.
    params: its parameters.
    provenance: what is known of its training.

  Raises:
    storage.StorageError: it cannot be written.
  """
  folder = storage.make_directory(pathlib.Path(directory) / TOKENIZER)
  for name, content in origin.files.items():
    with storage.naming(folder / name):
      (folder / name).write_bytes(content)
  said = {
    'policy': _plain(origin.config),
    'provenance': dataclasses.asdict(provenance),
    **{name: getattr(origin, name) for name in _SAID},
  }
  # Last: a checkpoint that can be listed has its tokenizer beside it.
  write_params(pathlib.Path(directory), unstack_layers(params), said)


def read_checkpoint(directory: os.PathLike | str) -> Saved:
  """Reads what `write_checkpoint` wrote, and verifies it.

  Raises:
    CheckpointError: a damaged checkpoint.
    ValueError: a checkpoint of something else, such as a run in progress.
  """
  directory = pathlib.Path(directory)
  checkpoints = Checkpoints(directory)
  try:
    said = checkpoints.metadata()
    if said is None or 'policy' not in said:
      raise ValueError(
        f'{directory}: holds no policy (a run in progress, perhaps); policies '
        'are what --keep_policies and experiments.sft save'
      )
    config = _config(said['policy'], str(directory))
    _, tree, _ = checkpoints.restore({'params': abstract_params(config)})
  finally:
    checkpoints.close()
  folder = directory / TOKENIZER
  files = {p.name: p.read_bytes() for p in sorted(folder.glob('*'))}
  origin = Origin(config, files=files, **{name: said[name] for name in _SAID})
  return Saved(origin, tree['params'], Provenance(**said['provenance']))


def _plain(config: TransformerConfig) -> dict[str, Any]:
  """A config as JSON values, without how it is computed."""
  values = dataclasses.asdict(config)
  return {name: v for name, v in values.items() if name not in RUNTIME}


def _config(said: Mapping[str, Any], place: str) -> TransformerConfig:
  known = {f.name for f in dataclasses.fields(TransformerConfig)}
  unknown = sorted(set(said) - known)
  if unknown:
    raise ValueError(
      f'{place}: a policy with {", ".join(unknown)}, which this version does '
      'not know; read it with the version that wrote it'
    )
  values = dict(said)
  for name in ('rotary', 'local_rotary'):
    if values.get(name) is not None:
      values[name] = Rotary(**values[name])
  if values.get('windowed') is not None:
    values['windowed'] = tuple(values['windowed'])
  return TransformerConfig(**values)

"""A model into a folder that `transformers` loads."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.card import Provenance, model_card
from alignment.models.huggingface.description import TOKEN_IDS, classifier
from alignment.models.huggingface.family import Family, Weight
from alignment.models.huggingface.folder_files import file_inside, is_plain
from alignment.models.huggingface.new_folder import becoming, put, put_json
from alignment.models.huggingface.shards import INDEX, SINGLE
from alignment.models.huggingface.table import (
  abstract_params,
  by_path,
  stacked_path,
  weight_table,
)
from alignment.models.huggingface.tensor_file import FLOATS, write_tensors
from alignment.types import PyTree

_WRITTEN = ('config.json', 'generation_config.json', 'README.md', INDEX)
_FORMATS = {'float32': 'F32', 'bfloat16': 'BF16'}

TOKENIZER_FILES = (
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'tokenizer.model',
  'vocab.json',
  'merges.txt',
  'vocab.txt',
)
"""What a folder may hold of its tokenizer."""


def tokenizer_files(folder: os.PathLike | str) -> dict[str, pathlib.Path]:
  """The tokenizer's files of a folder, to be copied by `save_model`.

  Raises:
    ModelError: one that is a link out of the folder or no regular file.
  """
  folder = pathlib.Path(folder)
  return {
    name: file_inside(folder, name)
    for name in TOKENIZER_FILES
    if os.path.lexists(folder / name)
  }


def save_model(
  folder: os.PathLike | str,
  config: TransformerConfig,
  params: PyTree,
  family: Family,
  *,
  provenance: Provenance,
  token_ids: Mapping[str, Any] | None = None,
  files: Mapping[str, os.PathLike | bytes] | None = None,
  dtype: Literal['float32', 'bfloat16'] = 'float32',
  max_shard_size: int = 5 * 10**9,
) -> pathlib.Path:
  """Writes `config.json`, weights, `generation_config.json` and `README.md`.

  All of it is written beside the folder and takes its name at the end: the
  folder is whole or absent. Parameters are fetched and written one at a time.
  With several processes all of them call this and the first writes.

  A model with `head='scalar'` becomes a sequence classifier with one label
  and needs a `pad_token_id` to read batches; one with 'both' the language
  model with `score.weight` beside it, which `transformers` does not read.

  Args:
    folder: that does not exist or is empty; its parent exists.
    config: of the transformer.
    params: its parameters, adapters merged; stacked where `scan_layers`.
    family: how such models are written.
    provenance: for the card.
    token_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, as in `Loaded`;
      for those left out `transformers` takes the usual ids of the family, None
      says that there is no such token.
    files: name -> path to copy or content, such as `tokenizer_files(base)`.
    dtype: that the weights are rounded to.
    max_shard_size: bytes of a file of weights, but for a larger tensor, which
      has one to itself.

  Returns:
    The folder.

  Raises:
    ValueError: a config that the family cannot express, parameters that are
      not those of the config, a name that is not that of a file.
    ModelError: a folder that is not empty, NaN or infinity in the parameters,
      a disk that is full or cannot be written.
  """
  _check_arguments(dtype, max_shard_size, files or {})
  folder = pathlib.Path(os.path.abspath(folder))
  weights = weight_table(config, family)
  leaves = _checked_leaves(config, params)
  settings = _settings(config, family, token_ids or {}, dtype)
  shards = _plan(weights, FLOATS[_FORMATS[dtype]].itemsize, max_shard_size)
  tensors = _tensors(weights, leaves)
  if jax.process_index():
    for _ in tensors:  # takes part in fetching what is spread over processes
      pass
    return folder
  needed = sum(shard.size for shard in shards)
  with becoming(folder, needed) as temporary:
    for name, content in (files or {}).items():
      put(temporary / name, content)
    put_json(temporary / 'config.json', settings)
    generation = {k: settings[k] for k in TOKEN_IDS if k in settings}
    put_json(temporary / 'generation_config.json', generation)
    card = model_card(
      folder.name, provenance, settings['architectures'][0], dtype
    )
    put(temporary / 'README.md', card.encode())
    for shard in shards:
      count = len(shard.shapes)
      write_tensors(
        temporary / shard.file,
        shard.shapes,
        itertools.islice(tensors, count),
        _FORMATS[dtype],
      )
    if len(shards) > 1:
      put_json(temporary / INDEX, _index(shards, needed))
  return folder


class _Shard(NamedTuple):
  """A file of weights that is to be written; sizes are bytes."""

  file: str
  shapes: dict[str, tuple[int, ...]]
  size: int


def _plan(
  weights: list[Weight], itemsize: int, max_shard_size: int
) -> list[_Shard]:
  """Tensors in the order of the table, cut into files."""
  groups: list[dict[str, tuple[int, ...]]] = [{}]
  sizes = [0]
  for weight in weights:
    for name, shape in zip(weight.names, weight.shapes, strict=True):
      size = math.prod(shape) * itemsize
      if groups[-1] and sizes[-1] + size > max_shard_size:
        groups.append({})
        sizes.append(0)
      groups[-1][name] = shape
      sizes[-1] += size
  count = len(groups)
  if count == 1:
    return [_Shard(SINGLE, groups[0], sizes[0])]
  return [
    _Shard(f'model-{i:05d}-of-{count:05d}.safetensors', shapes, size)
    for i, (shapes, size) in enumerate(zip(groups, sizes, strict=True), 1)
  ]


def _index(shards: list[_Shard], total: int) -> dict[str, Any]:
  weight_map = {name: shard.file for shard in shards for name in shard.shapes}
  return {'metadata': {'total_size': total}, 'weight_map': weight_map}


def _tensors(
  weights: list[Weight], leaves: dict[str, Any]
) -> Iterator[np.ndarray]:
  for weight in weights:
    stacked, layer = stacked_path(weight.path)
    leaf = leaves[weight.path] if weight.path in leaves else leaves[stacked]
    if weight.path not in leaves:
      leaf = leaf[layer]
    yield from weight.unpack(fetched(leaf))


def fetched(leaf) -> np.ndarray:
  """A parameter as a whole on this host, wherever it lies."""
  if isinstance(leaf, jax.Array) and not (
    leaf.is_fully_addressable or leaf.is_fully_replicated
  ):
    return multihost_utils.process_allgather(leaf, tiled=True)
  return np.asarray(leaf)


def _checked_leaves(
  config: TransformerConfig, params: PyTree
) -> dict[str, Any]:
  leaves, wanted = by_path(params), by_path(abstract_params(config))
  for path in [*wanted, *leaves]:
    if path not in leaves:
      raise ValueError(f'params must have {path}')
    if path not in wanted:
      raise ValueError(f'params must not have {path}; merge adapters first')
    has, needs = leaves[path].shape, wanted[path].shape
    if has != needs:
      raise ValueError(f'params[{path}]={has} must have the shape {needs}')
  return leaves


def _settings(
  config: TransformerConfig,
  family: Family,
  token_ids: Mapping[str, Any],
  dtype: str,
) -> dict[str, Any]:
  """`config.json`."""
  for key in token_ids:
    if key not in TOKEN_IDS:
      raise ValueError(f'token_ids={key} must be among {TOKEN_IDS}')
  architecture = family.architecture
  labels = {}
  described = family.write(dataclasses.replace(config, head='vocabulary'))
  if config.head == 'scalar':
    architecture = classifier(family)
    labels = {'id2label': {'0': 'reward'}, 'label2id': {'reward': 0}}
  return {
    'architectures': [architecture],
    'model_type': family.model_type,
    **described,
    **labels,
    **token_ids,
    'dtype': dtype,  # of transformers 5; 4 reads the next
    'torch_dtype': dtype,
  }


def _check_arguments(dtype: str, max_shard_size: int, files: Mapping) -> None:
  if dtype not in _FORMATS:
    raise ValueError(f'dtype={dtype!r} must be one of {tuple(_FORMATS)}')
  if max_shard_size < 1:
    raise ValueError(f'max_shard_size={max_shard_size} must be ≥ 1')
  for name in files:
    if not is_plain(name) or name in _WRITTEN or name.endswith('.safetensors'):
      raise ValueError(f'files={name!r} must be a file name of its own')

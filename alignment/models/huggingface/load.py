"""A model out of a folder: config, and weights straight to their devices.

No size in a file is believed before it was held against the bytes that are
there, and no file is executed: weights are safetensors, never pickles, and
code that a folder brings along (`auto_map`) is refused.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.description import (
  Description,
  read_description,
)
from alignment.models.huggingface.family import Family, ModelError, Weight
from alignment.models.huggingface.shards import find_tensors
from alignment.models.huggingface.table import (
  REWARD_HEAD,
  abstract_params,
  by_path,
  head_names,
  nested,
  numbers_in,
  stacked_path,
  weight_table,
)
from alignment.models.huggingface.tensor_file import (
  Stored,
  read_tensor,
  same_bytes,
)
from alignment.types import Array, PyTree

MATRICES = {
  'embedding',
  'positions',
  'head',
  'qkv',
  'output',
  'gate_up',
  'down',
}
"""Leaves that may be kept in bfloat16; the others are few and stay float32."""

DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
}


class Loaded(NamedTuple):
  """A model read from a folder.

  Attributes:
    config: of the transformer.
    params: its parameters, on their devices.
    family: how such models are written.
    token_ids: what the folder says of `bos_token_id`, `eos_token_id` (a number
      or several) and `pad_token_id`, where it does; None: there is none.
  """

  config: TransformerConfig
  params: PyTree
  family: Family
  token_ids: dict[str, Any]


def load_model(
  folder: os.PathLike | str,
  *,
  shardings: Callable[[PyTree], PyTree] | None = None,
  dtype: Literal['float32', 'bfloat16'] = 'float32',
  **overrides,
) -> Loaded:
  """Reads a model parameter by parameter, the largest first.

  On the host there is never more than a few times one layer's largest tensor:
  what was read is on its device before the next is. With `scan_layers` layers
  are stacked there as well.

  Args:
    folder: with `config.json` and `model.safetensors`, or shards and their
      index.
    shardings: shapes of the parameter tree -> where each parameter lies, such
      as `functools.partial(param_shardings, mesh=mesh)`; None is the default
      device. With several processes all of them read the folder.
    dtype: in which matrices are kept; bfloat16 for parameters that are not
      trained.
    **overrides: fields of `TransformerConfig` that leave what the folder
      describes alone (`config_json.RUNTIME`). `head='scalar'` or 'both' asks
      for a reward head: `score.weight` `[1, D]` of the folder, else zeros
      where it is a language model.

  Raises:
    ModelError: whatever is wrong with the folder.
    ValueError: an override that is none, an unknown dtype.
  """
  if dtype not in DTYPES:
    raise ValueError(f'dtype={dtype!r} must be one of {tuple(DTYPES)}')
  folder = pathlib.Path(folder)
  description = read_description(folder, **overrides)
  config = description.config
  weights, tensors = _match(folder, description, find_tensors(folder))
  shapes = abstract_params(config)
  where = by_path(shardings(shapes)) if shardings else {}
  leaves = _Leaves(by_path(shapes), where, dtype)
  for weight in sorted(weights, key=numbers_in, reverse=True):
    numbers = [
      read_tensor(tensors[name]).astype(leaves.dtype(weight.path), copy=False)
      for name in weight.names
    ]
    leaves.put(weight.path, weight.pack(*numbers))
  return Loaded(
    config, nested(leaves.arrays), description.family, description.token_ids
  )


def _match(
  folder: pathlib.Path, description: Description, stored: dict[str, Stored]
) -> tuple[list[Weight], dict[str, Stored]]:
  """The parameters that are in the folder, and the tensors by their names."""
  config, family = description.config, description.family
  place = str(folder)
  if config.depth > len(stored):  # before as many names are made up
    raise ModelError(
      place,
      f'{len(stored)} tensors, config.json says {config.depth} layers',
      'Take config.json and the weights of one download',
    )
  weights = weight_table(config, family)
  if REWARD_HEAD not in stored and not description.is_classifier:
    weights = [weight for weight in weights if weight.path != 'reward_head']
  spare = head_names(config, family)
  wanted = {
    name: shape
    for weight in weights
    for name, shape in zip(weight.names, weight.shapes, strict=True)
  }
  stored = _renamed(stored, family, {*wanted, *spare}, place)
  missing = [name for name in wanted if name not in stored]
  if missing:
    raise ModelError(
      place,
      f'{len(missing)} of {len(wanted)} tensors are missing: {_some(missing)}',
      f'Load it as what it is, or download it again ({family.architecture})',
    )
  unknown = [
    name
    for name in stored
    if name not in wanted
    and name not in spare
    and not any(re.fullmatch(pattern, name) for pattern in family.ignored)
  ]
  if unknown:
    raise ModelError(
      place,
      f'{len(unknown)} tensors are unknown: {_some(unknown)}',
      "A reward head is loaded with head='scalar' or 'both'"
      if unknown == [REWARD_HEAD]
      else f'{family.architecture} does not have them; remove them if they do '
      'nothing',
    )
  for name, shape in wanted.items():
    if stored[name].shape != tuple(shape):
      raise ModelError(
        f'{stored[name].path}, tensor {name!r}',
        f'has shape {list(stored[name].shape)}, config.json says {list(shape)}',
        'Take config.json and the weights of one download',
      )
  if config.tied_head:
    _check_tied(weights, spare, stored)
  return weights, stored


def _renamed(
  stored: dict[str, Stored], family: Family, known: set[str], place: str
) -> dict[str, Stored]:
  """Tensors by the names of the table, where they go by others."""
  renamed: dict[str, Stored] = {}
  for name, tensor in stored.items():
    if name not in known:
      for pattern, replacement in family.renames:
        name = re.sub(pattern, replacement, name)
    if name in renamed:
      raise ModelError(
        place,
        f'{tensor.name!r} and {renamed[name].name!r} are the same parameter',
        'Remove one of them',
      )
    renamed[name] = tensor
  return renamed


def _check_tied(
  weights: list[Weight], spare: set[str], stored: dict[str, Stored]
) -> None:
  embedding = next(w for w in weights if w.path == 'embedding')
  for name in spare & set(stored):
    if not same_bytes(stored[name], stored[embedding.names[0]]):
      raise ModelError(
        f'{stored[name].path}, tensor {name!r}',
        'differs from the embedding that config.json ties it to',
        'Write "tie_word_embeddings": false into config.json, or remove the '
        'tensor',
      )


def _some(names: list[str]) -> str:
  shown = ', '.join(f'{name:.120}' for name in names[:4])
  return shown + (', …' if len(names) > 4 else '')


class _Leaves:
  """Parameters on their devices, put there one at a time.

  Attributes:
    arrays: path -> parameter, those not put yet being zeros or absent.
  """

  def __init__(
    self,
    shapes: dict[str, jax.ShapeDtypeStruct],
    where: dict[str, NamedSharding],
    dtype: str,
  ):
    self._shapes, self._where, self._dtype = shapes, where, dtype
    self.arrays: dict[str, Array] = {}
    if 'reward_head' in shapes:
      self.put('reward_head', np.zeros(shapes['reward_head'].shape, np.float32))

  def dtype(self, path: str) -> np.dtype:
    is_matrix = path.rpartition('/')[2] in MATRICES
    return DTYPES[self._dtype if is_matrix else 'float32']

  def put(self, path: str, numbers: np.ndarray) -> None:
    stacked, layer = stacked_path(path)
    if layer < 0 or path in self._shapes:
      stacked, layer = path, -1
    shape, where = self._shapes[stacked].shape, self._where.get(stacked)
    if layer < 0:
      _same_shape(path, numbers.shape, shape)
      self.arrays[path] = _on_device(numbers, where)
      return
    _same_shape(path, numbers.shape, shape[1:])
    if stacked not in self.arrays:
      self.arrays[stacked] = jnp.zeros(shape, numbers.dtype, device=where)
    one = where and NamedSharding(where.mesh, PartitionSpec(*where.spec[1:]))
    self.arrays[stacked] = jax.block_until_ready(
      _set_layer(self.arrays[stacked], _on_device(numbers, one), layer)
    )


def _same_shape(path: str, packed: tuple, wanted: tuple) -> None:
  if packed != wanted:
    raise ValueError(f'{path} is packed as {packed}, must be {wanted}')


def _on_device(numbers: np.ndarray, where: NamedSharding | None) -> Array:
  """A copy there, finished: only then may the numbers go."""
  if jax.process_count() > 1 and where is not None:
    return jax.make_array_from_callback(
      numbers.shape, where, lambda at: numbers[at]
    )
  return jax.block_until_ready(jax.device_put(numbers, where, may_alias=False))


@functools.partial(jax.jit, donate_argnums=0)
def _set_layer(stack: Array, numbers: Array, layer: Array) -> Array:
  return lax.dynamic_update_index_in_dim(stack, numbers, layer, 0)

"""A Llama kept as a plain file of arrays, with its sizes and pieces beside it.

`params_fp32.npz` holds float32 arrays, layers stacked on a first axis and
projections as `[out, in]`; `config_and_vocab.json` holds sizes and pieces.
Queries and keys turn neighbouring features, (0, 1), (2, 3), …, as in the
original code of Llama; here, as in `transformers`, feature i turns with
feature i + F / 2, so their rows are put in that order.
"""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.family import ModelError
from alignment.models.rotary import Rotary
from alignment.types import PyTree

ARRAYS, SIZES = 'params_fp32.npz', 'config_and_vocab.json'
_COUNTS = ('dim', 'hidden', 'layers', 'heads', 'kv_heads', 'vocab', 'seq')
_KINDS = {'rope_pairs': 'interleaved', 'activation': 'silu-gated'}
"""What there is one kind of: field -> how its value begins."""
_MOST = 2**24
"""No size is larger; a file that says so is not believed."""
_HEADER = 4096
"""Bytes that the header of an array takes at most."""


class Arrays(NamedTuple):
  """A model read from a folder of arrays.

  Attributes:
    config: of the transformer, with a vocabulary head.
    params: its parameters, float32 numpy, layers not stacked.
    pieces: the text of every token id.
    bos_id, eos_id, unk_id: of them.
  """

  config: TransformerConfig
  params: PyTree
  pieces: tuple[str, ...]
  bos_id: int
  eos_id: int
  unk_id: int


def is_array_folder(folder: str | os.PathLike) -> bool:
  """Whether both files are there."""
  folder = pathlib.Path(folder)
  return all((folder / name).is_file() for name in (ARRAYS, SIZES))


def read_arrays(folder: str | os.PathLike) -> Arrays:
  """Reads the model of a folder of arrays; nothing in it is executed.

  Raises:
    ModelError: a file that is missing or broken, sizes that are no sizes, or
      arrays that are not those that the sizes ask for.
  """
  folder = pathlib.Path(folder)
  said = _sizes(folder / SIZES)
  config = TransformerConfig(
    vocab_size=said['vocab'],
    width=said['dim'],
    depth=said['layers'],
    num_heads=said['heads'],
    num_kv_heads=said['kv_heads'],
    head_dim=said['dim'] // said['heads'],
    mlp_width=said['hidden'],
    rotary=Rotary(theta=said['rope_theta']),
    context=said['seq'],
    norm_eps=said['norm_eps'],
    tied_head=True,
  )
  arrays = _arrays(folder / ARRAYS, _shapes(config))
  return Arrays(
    config,
    _params(config, arrays),
    tuple(said['pieces']),
    *(said[name] for name in ('bos', 'eos', 'unk')),
  )


def _sizes(path: pathlib.Path) -> dict[str, Any]:
  try:
    said = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise ModelError(
      str(path), f'cannot be read ({error})', f'Put {SIZES} beside {ARRAYS}'
    ) from error
  wanted = {
    **{name: (_is_count, f'an integer in [1, {_MOST}]') for name in _COUNTS},
    **{name: (_is_rate, 'a number > 0') for name in ('rope_theta', 'norm_eps')},
    'tied': (lambda value: value is True, 'true: the head is the embedding'),
    'pieces': (_are_pieces, 'a list of distinct strings'),
  }
  for name, kind in _KINDS.items():
    wanted[name] = (lambda v, kind=kind: str(v).startswith(kind), kind)
  for name in ('bos', 'eos', 'unk'):
    wanted[name] = (lambda v: type(v) is int and v >= 0, 'an id of a piece')
  for name, (holds, range_) in wanted.items():
    value = said.get(name) if isinstance(said, dict) else None
    if not holds(value):
      _refuse(path, name, value, range_)
  if said['dim'] % (2 * said['heads']) or said['heads'] % said['kv_heads']:
    wanted = f'a divisor of {said["dim"] / 2:g} and a multiple of kv_heads'
    _refuse(path, 'heads', said['heads'], wanted)
  if len(said['pieces']) != said['vocab']:
    _refuse(path, 'vocab', said['vocab'], f'{len(said["pieces"])}, the pieces')
  for name in ('bos', 'eos', 'unk'):
    if said[name] >= said['vocab']:
      _refuse(path, name, said[name], 'an id of a piece')
  return said


def _refuse(path: pathlib.Path, name: str, value: Any, wanted: str) -> None:
  raise ModelError(
    str(path), f'{name}={str(value)[:40]} must be {wanted}', f'Correct {SIZES}'
  )


def _is_count(value: Any) -> bool:
  return type(value) is int and 1 <= value <= _MOST


def _is_rate(value: Any) -> bool:
  return type(value) in (int, float) and 0 < value < float('inf')


def _are_pieces(value: Any) -> bool:
  return (
    isinstance(value, list)
    and all(isinstance(piece, str) for piece in value)
    and len(set(value)) == len(value)
  )


def _shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
  """Array -> its shape; L layers on the first axis."""
  depth, width, hidden = config.depth, config.width, config.mlp_width
  keys = config.num_kv_heads * config.head_dim
  return {
    'tok_emb': (config.vocab_size, width),
    'att_norm': (depth, width),
    'wq': (depth, width, width),
    'wk': (depth, keys, width),
    'wv': (depth, keys, width),
    'wo': (depth, width, width),
    'ffn_norm': (depth, width),
    'w1': (depth, hidden, width),
    'w2': (depth, width, hidden),
    'w3': (depth, hidden, width),
    'final_norm': (width,),
  }


def _arrays(
  path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """The arrays of exactly these shapes, read after their headers agree."""
  try:
    with zipfile.ZipFile(path) as file:
      there = {i.filename.removesuffix('.npy'): i for i in file.infolist()}
      if set(there) != set(shapes):
        odd = sorted(set(there) ^ set(shapes))
        raise ModelError(
          str(path), f'arrays missing or unknown: {odd}', 'Write it again'
        )
      return {
        name: _array(file, there[name], shape, f'{path}: {name}')
        for name, shape in shapes.items()
      }
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    if isinstance(error, ModelError):
      raise
    raise ModelError(
      str(path), f'no readable file of arrays ({error})', 'Write it again'
    ) from error


def _array(
  file: zipfile.ZipFile,
  entry: zipfile.ZipInfo,
  shape: tuple[int, ...],
  place: str,
) -> np.ndarray:
  numbers = int(np.prod(shape, dtype=np.int64))
  with file.open(entry) as stream:
    if np.lib.format.read_magic(stream) != (1, 0):
      raise ModelError(place, 'not version 1 of .npy', 'Write it again')
    header = np.lib.format.read_array_header_1_0(stream, _HEADER)
    if header != (shape, False, np.dtype('<f4')):
      raise ModelError(
        place,
        f'holds {header[2]}{list(header[0])}, the sizes ask for '
        f'float32{list(shape)}',
        f'Write it again, or correct {SIZES}',
      )
    data = stream.read(4 * numbers + 1)
  if len(data) != 4 * numbers:
    raise ModelError(place, 'shorter or longer than it says', 'Write it again')
  array = np.frombuffer(data, np.float32).reshape(shape)
  if not np.isfinite(array).all():
    raise ModelError(place, 'holds NaN or infinity', 'Train it again')
  return array


def _params(
  config: TransformerConfig, arrays: Mapping[str, np.ndarray]
) -> PyTree:
  params = {
    'embedding': arrays['tok_emb'],
    'final_norm': {'scale': arrays['final_norm']},
  }
  for i in range(config.depth):
    layer = {name: array[i] for name, array in arrays.items()}
    params[f'layer_{i}'] = {
      'attention_norm': {'scale': layer['att_norm']},
      'mlp_norm': {'scale': layer['ffn_norm']},
      'attention': _attention(config, layer),
      'mlp': {
        'gate_up': np.stack([layer['w1'].T, layer['w3'].T], axis=1),
        'down': layer['w2'].T,
      },
    }
  return params


def _attention(
  config: TransformerConfig, layer: Mapping[str, np.ndarray]
) -> PyTree:
  heads, features = config.num_kv_heads, config.head_dim
  width = config.width

  def split(rows: np.ndarray) -> np.ndarray:
    """`[heads · F, D]` to `[D, Hkv, heads / Hkv, F]`."""
    shared = rows.reshape(heads, -1, features, width)
    return np.moveaxis(shared, -1, 0)

  order = [*range(0, features, 2), *range(1, features, 2)]
  query, key = (split(layer[name])[..., order] for name in ('wq', 'wk'))
  qkv = np.concatenate([query, key, split(layer['wv'])], axis=2)
  output = layer['wo'].T.reshape(heads, -1, features, width)
  return {'qkv': qkv, 'output': output}

"""Entries of weight tables: how tensors of a folder make up a parameter.

`torch` keeps a linear map as `[out, in]`; here it is `[in, out]`.
"""

from __future__ import annotations

import math

import numpy as np

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.family import Weight


def as_it_is(path: str, name: str, *shape: int) -> Weight:
  """A parameter that is one tensor."""
  return reshaped(path, name, shape, shape)


def reshaped(
  path: str, name: str, theirs: tuple[int, ...], ours: tuple[int, ...]
) -> Weight:
  """A parameter that is one tensor of another shape."""
  return Weight(
    path,
    (name,),
    (theirs,),
    lambda tensor: tensor.reshape(ours),
    lambda array: (array.reshape(theirs),),
  )


def transposed(path: str, name: str, ours: tuple[int, ...]) -> Weight:
  """`[inputs..., D]` from a tensor `[D, inputs]`."""
  inputs, outputs = math.prod(ours[:-1]), ours[-1]
  return Weight(
    path,
    (name,),
    ((outputs, inputs),),
    lambda tensor: tensor.T.reshape(ours),
    lambda array: (array.reshape(inputs, outputs).T,),
  )


def stacked_maps(
  path: str, names: tuple[str, ...], inputs: int, outputs: int
) -> Weight:
  """`[in, n, out]` from n tensors `[out, in]`."""
  return Weight(
    path,
    names,
    ((outputs, inputs),) * len(names),
    lambda *maps: np.stack([one.T for one in maps], axis=1),
    lambda array: tuple(array[:, i].T for i in range(len(names))),
  )


def stacked_biases(path: str, names: tuple[str, ...], outputs: int) -> Weight:
  """`[n, out]` from n tensors `[out]`."""
  return Weight(
    path,
    names,
    ((outputs,),) * len(names),
    lambda *biases: np.stack(biases),
    lambda array: tuple(array),
  )


def norm(path: str, name: str, config: TransformerConfig) -> list[Weight]:
  """A norm over the width: its scale, and its bias where it has one."""
  scale = as_it_is(f'{path}/scale', f'{name}.weight', config.width)
  if config.norm == 'rms':
    return [scale]
  return [scale, as_it_is(f'{path}/bias', f'{name}.bias', config.width)]


def query_key_value(
  path: str, names: tuple[str, str, str], config: TransformerConfig, bias: bool
) -> Weight:
  """`[D, Hkv, G + 2, F]` from `[H · F, D]` and twice `[Hkv · F, D]`.

  Query head h belongs to key-value head h // G. Of a bias D is missing
  everywhere.
  """
  heads, features = config.num_kv_heads, config.head_dim
  per_head = config.num_heads // heads
  inputs = () if bias else (config.width,)

  def pack(*tensors: np.ndarray) -> np.ndarray:
    shared = [t.reshape(heads, -1, features, *inputs) for t in tensors]
    joined = np.concatenate(shared, axis=1)
    return joined if bias else np.moveaxis(joined, -1, 0)

  def unpack(array: np.ndarray) -> tuple[np.ndarray, ...]:
    rows = array if bias else np.moveaxis(array, 0, -1)
    query, key = rows[:, :per_head], rows[:, per_head]
    value = rows[:, per_head + 1]
    return tuple(t.reshape(-1, *inputs) for t in (query, key, value))

  shapes = tuple(
    (count * features, *inputs) for count in (config.num_heads, heads, heads)
  )
  return Weight(path, names, shapes, pack, unpack)


def fused_query_key_value(
  path: str,
  name: str,
  config: TransformerConfig,
  *,
  order: str,
  bias: bool,
) -> Weight:
  """`[D, H, 3, F]` from one tensor with the rows of queries, keys and values.

  Args:
    path: of ours.
    name: of theirs.
    config: with as many heads for keys as for queries.
    order: 'kind': `[D, 3 · H · F]`, all queries, all keys, all values; 'head':
      `[H · 3 · F, D]`, query, key and value of a head together.
    bias: of a bias D is missing everywhere.
  """
  heads, features = config.num_heads, config.head_dim
  inputs = () if bias else (config.width,)
  rows = 3 * heads * features

  def pack(tensor: np.ndarray) -> np.ndarray:
    if order == 'kind':
      split = tensor.reshape(*inputs, 3, heads, features)
      return np.swapaxes(split, -3, -2)
    split = tensor.reshape(heads, 3, features, *inputs)
    return split if bias else np.moveaxis(split, -1, 0)

  def unpack(array: np.ndarray) -> tuple[np.ndarray]:
    if order == 'kind':
      return (np.swapaxes(array, -3, -2).reshape(*inputs, rows),)
    split = array if bias else np.moveaxis(array, 0, -1)
    return (split.reshape(rows, *inputs),)

  shape = (*inputs, rows) if order == 'kind' else (rows, *inputs)
  return Weight(path, (name,), (shape,), pack, unpack)

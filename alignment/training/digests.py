"""Trees as named leaves, and the sha256 of each: what a checkpoint stores."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from alignment.types import PyTree


def named_leaves(tree: PyTree) -> dict[str, Any]:
  """The leaves of `tree` by path, such as `params/head/kernel`, in order.

  Raises:
    ValueError: no leaf, a leaf that is not an array (nor a
      `jax.ShapeDtypeStruct`), or two leaves of one name.
  """
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/') or 'tree'
    if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
      raise ValueError(
        f'leaf {name} is {leaf!r}, want an array; JSON values go to metadata'
      )
    if name in leaves:
      raise ValueError(f'two leaves are called {name}')
    leaves[name] = leaf
  if not leaves:
    raise ValueError('the tree has no leaves, want at least one array')
  return leaves


def outline(leaf: Any) -> dict[str, Any]:
  """Shape and dtype as JSON values; a typed key's dtype names its kind."""
  return {'shape': list(leaf.shape), 'dtype': str(leaf.dtype)}


def describe(leaves: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Outline and sha256 of every leaf: of the values, wherever they lie.

  The digest is of the bytes in C order, the same for every sharding.
  """
  plain = {name: _on_host(leaf) for name, leaf in storable(leaves).items()}
  # hashlib releases the interpreter lock.
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as p:
    hashes = list(p.map(_sha256, plain.values()))
  return {
    name: {**outline(leaf), 'sha256': digest}
    for (name, leaf), digest in zip(leaves.items(), hashes, strict=True)
  }


def of_json(value: Any) -> str:
  """sha256 of a JSON value, whatever the order of its keys."""
  text = json.dumps(value, sort_keys=True, separators=(',', ':'))
  return hashlib.sha256(text.encode()).hexdigest()


def storable(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Leaves with typed keys replaced by their integer data."""
  return {
    name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
    for name, leaf in leaves.items()
  }


def receiver(leaf: Any) -> Any:
  """What to read a stored leaf into, so that it lands where `leaf` lies."""
  shape, dtype = leaf.shape, leaf.dtype
  if _is_key(leaf):
    data = jax.eval_shape(
      jax.random.key_data, jax.ShapeDtypeStruct(shape, dtype)
    )
    shape, dtype = data.shape, data.dtype
  sharding = getattr(leaf, 'sharding', None)
  if sharding is None or not getattr(leaf, 'committed', True):
    return np.empty(shape, dtype)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def received(leaf: Any, value: Any) -> Any:
  """The stored `value` as `leaf` is: a NumPy array, a JAX array or a key.

  An array that was not committed to a device is not committed either, or the
  step that was compiled for it would compile again.
  """
  if isinstance(leaf, np.ndarray | np.generic):
    return np.asarray(value)
  value = jnp.asarray(value)
  if _is_key(leaf):
    return jax.random.wrap_key_data(value, impl=_key_kind(leaf))
  return value


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_kind(leaf: Any) -> Any:
  # `key_impl` reads arrays only; an abstract leaf has but a dtype.
  return jax.random.key_impl(jnp.empty((0,), leaf.dtype))


def _on_host(leaf: Any) -> np.ndarray:
  if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
    return np.asarray(leaf)
  if leaf.is_fully_replicated:
    return np.asarray(leaf.addressable_data(0))
  return multihost_utils.process_allgather(leaf, tiled=True)


def _sha256(array: np.ndarray) -> str:
  flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
  return hashlib.sha256(flat).hexdigest()

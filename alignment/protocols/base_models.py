"""Base models kept by content: what was trained once is not trained again."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignment.data.layout import Group
from alignment.training.checkpoints import CheckpointError, Checkpoints
from alignment.types import PyTree


class BaseModels(NamedTuple):
  """A folder of base models.

  Attributes:
    directory: shared by experiments.
    identity: what params mean: the model's config, as text.
  """

  directory: pathlib.Path
  identity: str

  def get(
    self,
    groups: Sequence[Group],
    recipe: dict[str, Any],
    like: PyTree,
    train: Callable[[], PyTree],
  ) -> PyTree:
    """The base model of a recipe: from the folder, or trained and put there.

    A damaged entry is trained again. Two programs may train the same model at
    once; the first to finish puts it in place.

    Args:
      groups: the data, part of the key.
      recipe: all that training depends on besides (seed, steps, rates, …).
      like: params of the same structure.
      train: () -> params.
    """
    place = self.directory / self._key(groups, recipe)
    if place.exists():
      try:
        return _read(place, like)
      except (CheckpointError, ValueError) as error:
        warnings.warn(f'{place} is trained again: {error}')
        shutil.rmtree(place, ignore_errors=True)
    params = train()
    partial = place.with_name(f'{place.name}.partial-{uuid.uuid4().hex}')
    write_params(partial, params)
    try:
      os.replace(partial, place)
    except OSError:  # Another program was first.
      shutil.rmtree(partial)
    return params

  def _key(self, groups: Sequence[Group], recipe: dict[str, Any]) -> str:
    digest = hashlib.sha256(
      repr((self.identity, sorted(recipe.items()))).encode()
    )
    for group in groups:
      for text in (group.prompt, *group.completions):
        digest.update(len(text).to_bytes(8, 'little'))
        digest.update(np.ascontiguousarray(text, np.int32).tobytes())
    return digest.hexdigest()[:32]


def _read(place: pathlib.Path, like: PyTree) -> PyTree:
  checkpoints = Checkpoints(place)
  try:
    found = checkpoints.restore({'params': like})
    if found is None:
      raise CheckpointError(f'{place}: holds no checkpoint')
    return found[1]['params']
  finally:
    checkpoints.close()


def write_params(
  place: pathlib.Path, params: PyTree, metadata: dict[str, Any] | None = None
) -> None:
  """Saves params as the one checkpoint of a new folder, `{'params': …}`."""
  checkpoints = Checkpoints(place)
  try:
    checkpoints.save(0, {'params': params}, metadata)
  finally:
    checkpoints.close()

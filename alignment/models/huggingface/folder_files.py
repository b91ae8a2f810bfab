"""Files of a model folder, read as what they are: written by anybody."""

from __future__ import annotations

import json
import pathlib
import stat
from typing import Any

from alignment.models.huggingface.family import ModelError

MAX_JSON = 2**24
"""Bytes of the longest JSON text that is parsed: 100,000 tensors fit."""


def file_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
  """The regular file `name` of a folder, without leaving it.

  A link may point to another file of the folder, or into `blobs` of the
  download cache of the Hub, whose `snapshots/<revision>` are links to there.

  Args:
    folder: which exists.
    name: of a file in it; no path.

  Raises:
    ModelError: a name with a path in it, no such file, a link out of the
      folder, or something that is not a regular file.
  """
  if not is_plain(name):
    raise ModelError(
      str(folder),
      f'file name {name!r} is not that of a file directly in the folder',
      'Write the name without any path',
    )
  path = folder / name
  try:
    real = path.resolve(strict=True)
    regular = stat.S_ISREG(real.stat().st_mode)
  except (OSError, RuntimeError) as error:  # a loop of links is RuntimeError
    raise ModelError(
      str(path), f'cannot be read ({error})', 'Download the model again'
    ) from error
  roots = [folder.resolve()]
  if roots[0].parent.name == 'snapshots':
    roots.append(roots[0].parent.parent / 'blobs')
  if not any(real.is_relative_to(root) for root in roots):
    raise ModelError(
      str(path),
      f'is a link to {real}, out of the folder',
      'Put the file itself there',
    )
  if not regular:
    raise ModelError(str(path), 'is no regular file', 'Put a file there')
  return path


def read_json(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """The object in a JSON file of a folder.

  Raises:
    ModelError: as `file_inside` and `parse_json`, or a file longer than
      `MAX_JSON` bytes.
  """
  path = file_inside(folder, name)
  with open(path, 'rb') as file:
    text = file.read(MAX_JSON + 1)
  if len(text) > MAX_JSON:
    raise ModelError(
      str(path), f'is longer than {MAX_JSON} bytes', 'Download it again'
    )
  return parse_json(text, str(path))


def parse_json(text: bytes, place: str) -> dict[str, Any]:
  """The object that a JSON text says, strictly.

  Raises:
    ModelError: no JSON in UTF-8, nested too deeply, a key twice in one object,
      NaN or Infinity, or something else than an object.
  """
  try:
    value = json.loads(
      text.decode('utf-8'),
      object_pairs_hook=_unique,
      parse_constant=_refuse_constant,
    )
  except RecursionError as error:
    raise ModelError(
      place, 'JSON is nested too deeply', 'Download the file again'
    ) from error
  except ValueError as error:
    raise ModelError(
      place, f'is no valid JSON ({error})', 'Download the file again'
    ) from error
  if not isinstance(value, dict):
    raise ModelError(place, 'JSON is no object {…}', 'Download the file again')
  return value


def is_plain(name: str) -> bool:
  """Whether it names a file directly in a folder: no path, no parent."""
  return (
    isinstance(name, str)
    and name not in ('', '.', '..')
    and not any(mark in name for mark in ('/', '\\', '\0'))
  )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  unique = {}
  for key, value in pairs:
    if key in unique:
      raise ValueError(f'key {key!r:.80} is there twice')
    unique[key] = value
  return unique


def _refuse_constant(name: str):
  raise ValueError(f'{name} is no JSON number')

"""A new folder, written beside its place and whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from alignment.models.huggingface.family import ModelError


@contextlib.contextmanager
def becoming(folder: pathlib.Path, needed: int) -> Iterator[pathlib.Path]:
  """A folder beside `folder` that takes its name when all went well.

  Args:
    folder: that does not exist or is empty; its parent exists.
    needed: bytes that will be written.

  Raises:
    ModelError: a folder that is not empty, a disk that is full or cannot be
      written.
  """
  if folder.is_symlink() or (
    folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
  ):
    raise ModelError(
      str(folder), 'is there and not an empty folder', 'Choose a new name'
    )
  temporary = folder.with_name(f'.{folder.name}.{os.getpid()}.tmp')
  try:
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
      raise OSError(errno.ENOSPC, f'{needed} bytes needed, {free} are free')
    temporary.mkdir()
    try:
      yield temporary
      os.replace(temporary, folder)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)
  except OSError as error:
    raise ModelError(
      str(folder),
      f'cannot be written ({error})',
      'Free space, or choose a folder on another disk that may be written',
    ) from error


def put(path: pathlib.Path, content: os.PathLike | bytes) -> None:
  """Writes a new file: a copy of another, or its content."""
  with open(path, 'xb') as file:
    if isinstance(content, bytes):
      file.write(content)
    else:
      with open(content, 'rb') as source:
        shutil.copyfileobj(source, file)
    file.flush()
    os.fsync(file.fileno())


def put_json(path: pathlib.Path, value: dict[str, Any]) -> None:
  """Writes a new file of JSON."""
  text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
  put(path, (text + '\n').encode())

"""Small files that are whole or absent, and disk errors with a remedy."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

_REMEDIES = (
  (
    'the disk is full',
    (errno.ENOSPC, errno.EDQUOT),
    ('no space left', 'disk quota exceeded'),
    'free space or choose a directory on another disk',
  ),
  (
    'the directory cannot be written',
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST),
    ('permission denied', 'read-only file system', 'not a directory'),
    'choose a directory that this user may write, or change its permissions',
  ),
)
"""What happened, errno values, phrases in wrapped errors, what to do."""


class StorageError(OSError):
  """A file could not be written; the message names its path and a remedy."""


def storage_error(
  path: os.PathLike | str, cause: BaseException
) -> StorageError:
  """The `StorageError` that tells what happened at `path`, and what to do.

  Libraries wrap the errno away, so the text of `cause` is read as well.
  """
  number, text = getattr(cause, 'errno', None), str(cause).lower()
  for what, numbers, phrases, remedy in _REMEDIES:
    if number in numbers or any(phrase in text for phrase in phrases):
      return StorageError(f'{path}: {what} ({cause}); {remedy}')
  return StorageError(
    f'{path}: could not be written ({type(cause).__name__}: {cause}); '
    'check the disk, or choose another directory'
  )


@contextlib.contextmanager
def naming(path: os.PathLike | str) -> Iterator[None]:
  """Turns an `OSError` inside into the `StorageError` of `path`."""
  try:
    yield
  except StorageError:
    raise
  except OSError as error:
    raise storage_error(path, error) from error


def make_directory(path: os.PathLike | str) -> pathlib.Path:
  """Creates a directory, proves that it can be written, returns it absolute.

  Raises:
    StorageError: it cannot be created, or nothing can be written into it.
  """
  path = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
  with naming(path):
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as probe:
      probe.write(b'0')
      probe.flush()
  return path


def write_text(path: os.PathLike | str, text: str) -> None:
  """Writes a file atomically: a reader sees the old content or the new.

  The text goes to a temporary file beside `path`, reaches the disk (fsync),
  and takes the name in one rename; an interrupted write leaves `path` alone.

  Raises:
    StorageError: the directory cannot be written or the disk is full.
  """
  path = pathlib.Path(path)
  temporary = None
  try:
    with tempfile.NamedTemporaryFile(
      'w',
      dir=path.parent,
      prefix=f'.{path.name}.',
      suffix='.tmp',
      delete=False,
      encoding='utf-8',
    ) as file:
      temporary = file.name
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except OSError as error:
    if temporary is not None:
      pathlib.Path(temporary).unlink(missing_ok=True)
    raise storage_error(path, error) from error


def write_json(path: os.PathLike | str, value: Any) -> None:
  """Writes JSON atomically, indented, keys in the given order.

  Raises:
    StorageError: as `write_text`.
    ValueError: NaN or infinity, which JSON cannot say.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')

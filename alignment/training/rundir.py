"""A run's output directory: one config, its provenance, a finished marker."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import jax

from alignment.training import storage

_VERSION = 1
_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'tensorflow-datasets',
  'numpy',
  'scipy',
)


class RunConflictError(ValueError):
  """The output directory belongs to a run of a different config."""


@dataclasses.dataclass(frozen=True)
class Run:
  """An open output directory.

  Attributes:
    directory: absolute.
    is_resumed: whether a run of the same identity was here before.
    is_finished: whether that run reached its end.
    result: what `finish` stored, None before.
  """

  directory: pathlib.Path
  is_resumed: bool
  is_finished: bool
  result: Any = None


def open_run(
  output_dir: os.PathLike | str,
  config: Mapping[str, Any],
  identity: Mapping[str, Any],
) -> Run:
  """Creates or reopens an output directory and writes its `config.json`.

  `config.json` holds the config, its identity, and one entry of provenance
  (Python, package versions, git commit) per set of versions that ran here.

  Args:
    output_dir: created with its parents.
    config: every field of the config, JSON values.
    identity: the fields that must agree for a run to be resumed.

  Returns:
    The run.

  Raises:
    RunConflictError: another identity is here; names the differing fields.
    storage.StorageError: the directory cannot be written.
  """
  directory = storage.make_directory(output_dir)
  identity = json.loads(json.dumps(dict(identity)))
  config_path = directory / 'config.json'
  before = _read_config(config_path)
  provenance = _provenance()
  history = []
  if before is not None:
    _refuse_conflict(directory, before['identity'], identity)
    history = before['provenance']
  if provenance not in history:
    history = [*history, provenance]
  if jax.process_index() == 0:
    storage.write_json(
      config_path,
      {
        'version': _VERSION,
        'config': dict(config),
        'identity': identity,
        'provenance': history,
      },
    )
  finished = directory / 'finished.json'
  is_finished = finished.exists()
  return Run(
    directory=directory,
    is_resumed=before is not None,
    is_finished=is_finished,
    result=json.loads(finished.read_text())['result'] if is_finished else None,
  )


def finish(run: Run, result: Any = None) -> Run:
  """Marks a run as finished and keeps its result, JSON values."""
  if jax.process_index() == 0:
    storage.write_json(run.directory / 'finished.json', {'result': result})
  return dataclasses.replace(run, is_finished=True, result=result)


def _read_config(path: pathlib.Path) -> dict[str, Any] | None:
  if not path.exists():
    return None
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
    version = config['version']
    if not isinstance(config['identity'], dict):
      raise TypeError('identity is not an object')
    config['provenance'] = list(config['provenance'])
  except (ValueError, KeyError, TypeError) as error:
    raise RunConflictError(
      f'{path}: not the config of a run ({error}); choose another '
      'output_dir, or delete this one'
    ) from error
  if version != _VERSION:
    raise RunConflictError(
      f'{path}: config version {version}, this program reads {_VERSION}; '
      'choose another output_dir, or resume with the program that wrote it'
    )
  return config


def _refuse_conflict(
  directory: pathlib.Path, there: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
  absent = '(absent)'
  differing = [
    f'{name}: {there.get(name, absent)!r} there, {here.get(name, absent)!r} now'
    for name in sorted({*there, *here})
    if there.get(name, absent) != here.get(name, absent)
  ]
  if differing:
    raise RunConflictError(
      f'{directory}: holds a run of a different config: '
      f'{"; ".join(differing)}. Choose another output_dir, or give the same '
      'values to resume it, or delete the directory to start again'
    )


def _provenance() -> dict[str, Any]:
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return {
    'python': platform.python_version(),
    'packages': versions,
    'git_commit': _git_commit(),
  }


def _git_commit() -> str | None:
  """The commit of this project's checkout, '+' when files were changed."""
  root = pathlib.Path(__file__).resolve().parents[2]

  def git(*arguments: str) -> str:
    return subprocess.run(
      ['git', '-C', str(root), *arguments],
      capture_output=True,
      text=True,
      timeout=10,
      check=True,
    ).stdout.strip()

  try:
    # An installed copy may lie inside somebody else's repository.
    if pathlib.Path(git('rev-parse', '--show-toplevel')).resolve() != root:
      return None
    changed = git('status', '--porcelain', '--untracked-files=no')
    return git('rev-parse', 'HEAD') + ('+' if changed else '')
  except (OSError, subprocess.SubprocessError):
    return None

"""Checkpoints that are whole, verified, and outlive a crash: around Orbax."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from alignment.training import digests, storage
from alignment.types import PyTree

_FORMAT = 1
_ASIDE = 'damaged-'
_TURN = threading.RLock()
"""Orbax numbers its operations in one count per program: two that overlap wait
for each other's signals, for minutes, and then fail."""


class CheckpointError(RuntimeError):
  """No checkpoint could be restored, or one could not be accepted."""


class Checkpoints:
  """The last checkpoints of one run, in `directory/<step>/`.

  A checkpoint is a tree of arrays (typed PRNG keys among them) and JSON
  metadata. `save` returns when the arrays may be donated or changed; the files
  are written meanwhile and get their name in one rename at the end, so a step
  that can be listed is complete. Orbax keeps no checksum of the values: a
  sha256 of every leaf is stored beside them and compared on restore.

  One object per directory, used from one thread; objects of several threads
  take turns, and a save outside the main thread returns when it is on disk.
  Every process of a distributed run takes part in `save` and `restore`.
  """

  def __init__(self, directory: os.PathLike | str, *, keep: int = 2):
    """Opens or creates the directory.

    Args:
      directory: of the checkpoints, nothing else.
      keep: how many of the newest steps stay, ≥ 2: with one, a crash while its
        successor is written could leave none.

    Raises:
      storage.StorageError: the directory cannot be written.
      ValueError: `keep` < 2.
    """
    if keep < 2:
      raise ValueError(f'keep must be ≥ 2, got {keep!r}')
    # Orbax fails in its background thread on a relative path.
    self.directory = storage.make_directory(directory)
    self._keep = keep
    self._refused: set[int] = set()
    self._open()

  def _open(self) -> None:
    policy = checkpoint_managers.preservation_policy.LatestN(self._keep)
    with _TURN:
      self._manager = ocp.CheckpointManager(
        self.directory,
        options=ocp.CheckpointManagerOptions(
          create=False,
          cleanup_tmp_directories=True,
          preservation_policy=policy,
        ),
      )

  def steps(self) -> list[int]:
    """The steps that can be listed, in order, damaged ones included."""
    return sorted(self._manager.all_steps())

  def save(
    self, step: int, tree: PyTree, metadata: Mapping[str, Any] | None = None
  ) -> None:
    """Starts to save `tree` as `step`; waits for the save before it.

    Args:
      step: larger than every step saved or restored before.
      tree: of arrays.
      metadata: JSON values.

    Raises:
      storage.StorageError: this save, or the one before it, could not be
        written; the older checkpoints are untouched.
      CheckpointError: `step` is not newer than what is in the directory.
      ValueError: a leaf is not an array, or metadata is not JSON.
    """
    self._set_aside_refused()
    leaves = digests.named_leaves(tree)
    record = {
      'format': _FORMAT,
      'step': step,
      'leaves': digests.describe(leaves),
      'metadata': json.loads(json.dumps(dict(metadata or {}))),
    }
    record['digest'] = digests.of_json(record)
    arguments = ocp.args.Composite(
      tree=ocp.args.StandardSave(digests.storable(leaves)),
      record=ocp.args.JsonSave(record),
    )
    with _TURN, self._naming_the_path():
      self._manager.wait_until_finished()
      is_saving = self._manager.save(step, args=arguments)
      if threading.current_thread() is not threading.main_thread():
        self._manager.wait_until_finished()
    if not is_saving:
      raise CheckpointError(
        f'{self.directory}: step {step} was not saved, the directory holds '
        f'steps {self.steps()}; restore first, or choose another directory'
      )

  def restore(
    self, target: PyTree
  ) -> tuple[int, PyTree, dict[str, Any]] | None:
    """The newest checkpoint that restores and whose digests agree.

    One that does not is named in a warning, and the step before it is tried;
    the next `save` renames it to `damaged-<step>`.

    Args:
      target: a tree of arrays, or of `jax.ShapeDtypeStruct` whose shardings
        say where the arrays go; any device count may restore any other's.

    Returns:
      (step, tree, metadata), or None where nothing was ever saved.

    Raises:
      CheckpointError: there are checkpoints and none restores.
      ValueError: the newest sound checkpoint has other leaves, shapes or
        dtypes than `target`; names them.
    """
    self.wait()
    wanted = digests.named_leaves(target)
    reasons = {}
    for step in reversed(self.steps()):
      try:
        with _TURN:
          record = self._read_record(step)
          self._refuse_mismatch(step, record['leaves'], wanted)
          leaves = self._read_leaves(step, record['leaves'], wanted)
      except (_TargetMismatch, MemoryError):
        raise
      except Exception as error:  # Orbax raises whatever its layers raise.
        reasons[step] = f'{type(error).__name__}: {_first_line(error)}'
        continue
      self._refused = set(reasons)
      for bad, reason in reasons.items():
        warnings.warn(
          f'{self.directory / str(bad)}: damaged ({reason}); falling back to '
          f'step {step}',
          RuntimeWarning,
          stacklevel=2,
        )
      structure = jax.tree.structure(target)
      tree = jax.tree.unflatten(structure, leaves)
      return step, tree, record['metadata']
    if reasons:
      listed = '; '.join(f'step {s}: {r}' for s, r in reasons.items())
      raise CheckpointError(
        f'{self.directory}: no checkpoint restores ({listed}); move the '
        'directory away to start again'
      )
    return None

  def metadata(self) -> dict[str, Any] | None:
    """What was said beside the newest checkpoint whose record can be read.

    For a reader that learns from it what to restore.

    Returns:
      The metadata given to `save`, or None where nothing was ever saved.

    Raises:
      CheckpointError: there are checkpoints and no record can be read.
    """
    self.wait()
    reason = None
    for step in reversed(self.steps()):
      try:
        with _TURN:
          return self._read_record(step)['metadata']
      except Exception as error:  # Orbax raises whatever its layers raise.
        reason = f'step {step}: {type(error).__name__}: {_first_line(error)}'
    if reason:
      raise CheckpointError(f'{self.directory}: no record is whole ({reason})')
    return None

  def wait(self) -> None:
    """Blocks until the last save is on disk.

    Raises:
      storage.StorageError: it could not be written.
    """
    with self._naming_the_path():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then releases the threads of Orbax; raises as `wait`."""
    with _TURN:
      try:
        self.wait()
      finally:
        self._manager.close()

  def _read_record(self, step: int) -> dict[str, Any]:
    arguments = ocp.args.Composite(record=ocp.args.JsonRestore())
    record = dict(self._manager.restore(step, args=arguments)['record'])
    digest = record.pop('digest', None)
    if digest != digests.of_json(record):
      raise CheckpointError('record: its digest does not agree')
    if record['format'] != _FORMAT or record['step'] != step:
      raise CheckpointError(
        f'record: format {record["format"]} of step {record["step"]}, want '
        f'format {_FORMAT} of step {step}'
      )
    return record

  def _refuse_mismatch(
    self, step: int, stored: Mapping[str, Any], wanted: Mapping[str, Any]
  ) -> None:
    problems = [f'{name}: not stored' for name in wanted if name not in stored]
    problems += [
      f'{name}: stored, not wanted' for name in stored if name not in wanted
    ]
    for name in wanted:
      want = digests.outline(wanted[name])
      have = {key: stored.get(name, want)[key] for key in want}
      if have != want:
        problems.append(
          f'{name}: stored {have["dtype"]}{have["shape"]}, wanted '
          f'{want["dtype"]}{want["shape"]}'
        )
    if problems:
      shown = '; '.join(problems[:8])
      more = f'; and {len(problems) - 8} more' if len(problems) > 8 else ''
      raise _TargetMismatch(
        f'{self.directory}: step {step} holds a different state: {shown}{more};'
        ' restore with the model and optimiser that saved it, or choose '
        'another directory'
      )

  def _read_leaves(
    self, step: int, stored: Mapping[str, Any], wanted: Mapping[str, Any]
  ) -> list[Any]:
    targets = {name: digests.receiver(leaf) for name, leaf in wanted.items()}
    arguments = ocp.args.Composite(tree=ocp.args.StandardRestore(targets))
    values = self._manager.restore(step, args=arguments)['tree']
    found = digests.describe(values)
    wrong = [
      name for name in wanted if found[name]['sha256'] != stored[name]['sha256']
    ]
    if wrong:
      raise CheckpointError(
        f'the values of {", ".join(wrong[:4])} do not agree with their digest'
      )
    return [
      digests.received(leaf, values[name]) for name, leaf in wanted.items()
    ]

  def _set_aside_refused(self) -> None:
    """Renames damaged steps: Orbax would refuse to save a step before them."""
    if not self._refused:
      return
    if jax.process_index() == 0:
      for step in sorted(self._refused):
        aside = self.directory / f'{_ASIDE}{step}'
        if aside.exists():
          shutil.rmtree(aside)
        os.rename(self.directory / str(step), aside)
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('checkpoints: set aside')
    self._refused = set()
    self._manager.close()
    self._open()

  @contextlib.contextmanager
  def _naming_the_path(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # Orbax raises whatever its layers raise.
      self._clear_failed_save()
      raise storage.storage_error(self.directory, error) from error

  def _clear_failed_save(self) -> None:
    """Frees what a failed save wrote, and forgets its step."""
    if jax.process_count() > 1:  # The others may not have failed.
      return
    with contextlib.suppress(Exception):  # The same failure again.
      self._manager.close()
    self._open()


class _TargetMismatch(ValueError):
  """The target, not the checkpoint, is wrong."""


def _first_line(error: BaseException) -> str:
  return str(error).strip().split('\n')[0][:200]

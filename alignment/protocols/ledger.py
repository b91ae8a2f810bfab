"""Many independent pieces of work, each done once: a ledger on disk.

A row is appended when its piece of work is done, so that an interrupted run
goes on with what is missing. Work runs in a pool of threads: compiled programs
release Python's lock, and on small models two threads do twice the work of one.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignment.training import storage, writers

Row = dict[str, Any]


def carry_out(
  work: Mapping[str, Callable[[], Row]],
  path: os.PathLike | str,
  *,
  threads: int,
  on_done: Callable[[str, Row, int, int], None] = lambda *_: None,
) -> dict[str, Row]:
  """Does every piece of work whose row is not in the ledger yet.

  Args:
    work: key -> what computes its row of JSON values.
    path: of the ledger, JSON lines.
    threads: pieces of work at a time.
    on_done: (key, row, number done, number of all), as rows arrive.

  Returns:
    key -> row, in the order of `work`, as JSON gives them back: the same
    whether they were computed now or before.

  Raises:
    storage.StorageError: the ledger cannot be written.
    Exception: whatever the first piece of work to fail raised; the rows done
      by then are in the ledger.
  """
  path = pathlib.Path(path)
  done = {key: row for key, row in _entries(path).items() if key in work}
  missing = [key for key in work if key not in done]
  pool = concurrent.futures.ThreadPoolExecutor(threads)
  futures = {pool.submit(work[key]): key for key in missing}

  def keep(future: concurrent.futures.Future) -> None:
    key = futures.pop(future)
    entry = json.dumps({'key': key, 'row': future.result()})
    _append(path, entry)
    done[key] = json.loads(entry)['row']
    on_done(key, done[key], len(done), len(work))

  try:
    for future in concurrent.futures.as_completed(list(futures)):
      keep(future)
  finally:
    pool.shutdown(wait=True, cancel_futures=True)
    # After a failure: what the other threads have still brought to its end.
    for future in list(futures):
      if not future.cancelled() and future.exception() is None:
        keep(future)
  return {key: done[key] for key in work}


def in_threads(
  work: Callable[[Any], Any], items: Sequence[Any], threads: int
) -> list[Any]:
  """`[work(item) for item in items]`, side by side; raises the first error."""
  pool = concurrent.futures.ThreadPoolExecutor(threads)
  try:
    return list(pool.map(work, items))
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


def _entries(path: pathlib.Path) -> dict[str, Row]:
  # A kill may have cut the last line short.
  writers.truncate_rows(path, lambda entry: 'key' in entry)
  if not path.exists():
    return {}
  with path.open(encoding='utf-8') as lines:
    return {e['key']: e['row'] for e in map(json.loads, lines)}


def _append(path: pathlib.Path, entry: str) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', encoding='utf-8') as file:
      file.write(entry + '\n')
      file.flush()
      os.fsync(file.fileno())
  except OSError as error:
    raise storage.storage_error(path, error) from error

"""Where metrics go: JSON lines, TensorBoard, one console line per interval."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import rich.console
import rich.text

from alignment.training import storage

if TYPE_CHECKING:
  import tensorboardX

Row = Mapping[str, float | str]
"""Metric name -> value; text values say which run of many a row is from."""


class Writer(NamedTuple):
  """Three functions that may be called from any thread.

  Attributes:
    write: (step, row) -> None.
    rewind: (step, tags) -> None, forgets the rows after `step` whose text
      values are exactly `tags`: a resumed run writes them again.
    close: () -> None.
  """

  write: Callable[[int, Row], None]
  rewind: Callable[[int, Mapping[str, str]], None]
  close: Callable[[], None]


def truncate_rows(
  path: os.PathLike | str, keep: Callable[[dict], bool]
) -> None:
  """Keeps the rows of a JSON-lines file for which `keep` holds, atomically.

  A line cut short by a kill is dropped too. What is no regular file is left
  alone.

  Raises:
    storage.StorageError: the file cannot be replaced.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    return
  kept = []
  lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
  for line in lines:
    try:
      row = json.loads(line)
    except ValueError:
      continue
    if isinstance(row, dict) and keep(row):
      kept.append(line + '\n')
  storage.write_text(path, ''.join(kept))


def jsonl_writer(path: os.PathLike | str) -> Writer:
  """Appends one JSON object per row, flushed: `{'step': ..., name: value}`.

  NaN and infinities become null, with `'notes': {name: 'nan'}` beside them. A
  line that an earlier process left unfinished is dropped.

  Raises:
    storage.StorageError: the file cannot be opened or a row not written.
  """
  path = pathlib.Path(os.path.abspath(path))
  last: dict[frozenset, int] = {}

  def noted(row: Mapping[str, Any]) -> bool:
    tags = frozenset(_tags(row).items())
    last[tags] = max(last.get(tags, 0), row.get('step', 0))
    return True

  truncate_rows(path, noted)
  file = _opened(path)
  lock = threading.Lock()

  def write(step: int, row: Row) -> None:
    values = _json_row(step, row)
    line = json.dumps(values, allow_nan=False)
    with lock, storage.naming(path):
      noted(values)
      file.write(line + '\n')
      file.flush()

  def rewind(step: int, tags: Mapping[str, str]) -> None:
    nonlocal file
    with lock:
      # A sweep rewinds every fresh cell: the file is read where it must be.
      if last.get(frozenset(tags.items()), 0) <= step:
        return
      last[frozenset(tags.items())] = step
      file.close()
      truncate_rows(path, lambda row: row['step'] <= step or _tags(row) != tags)
      file = _opened(path)

  def close() -> None:
    with lock, storage.naming(path):
      file.close()

  return Writer(write, rewind, close)


def tensorboard_writer(directory: os.PathLike | str) -> Writer:
  """Writes finite values as TensorBoard scalars, one TensorBoard run per tags.

  Rows with text values go to the sub-directory `<value>-<value>`; rewinding
  makes TensorBoard hide the points that will be written again.
  """
  directory = storage.make_directory(directory)
  runs: dict[str, tensorboardX.SummaryWriter] = {}
  restarts: list[tuple[int, Mapping[str, str]]] = []
  lock = threading.Lock()

  def run(tags: Mapping[str, str]) -> tensorboardX.SummaryWriter:
    name = '-'.join(re.sub(r'[^\w.,@+=]+', '_', tag) for tag in tags.values())
    if name not in runs:
      # With the first row, so after the first step was dispatched: it brings in
      # torch where that is installed, which takes seconds.
      import tensorboardX

      runs[name] = tensorboardX.SummaryWriter(str(directory / name))
    return runs[name]

  def restart() -> None:
    while restarts:
      from tensorboardX.proto import event_pb2

      step, tags = restarts.pop(0)
      # What TensorBoard reads as a restart: it drops the points from there on.
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      run(tags).file_writer.add_event(
        event_pb2.Event(step=step + 1, session_log=log)
      )

  def write(step: int, row: Row) -> None:
    with lock:
      restart()
      events = run(_tags(row))
      for name, value in row.items():
        if not isinstance(value, str) and math.isfinite(value):
          events.add_scalar(name, float(value), step)

  def rewind(step: int, tags: Mapping[str, str]) -> None:
    with lock:
      restarts.append((step, tags))

  def close() -> None:
    with lock:
      restart()
      for events in runs.values():
        events.close()

  return Writer(write, rewind, close)


_COLUMNS = (
  ('loss', 'loss', '{:.4f}'),
  ('rewards/accuracies', 'rewards/accuracies', '{:.3f}'),
  ('rewards/margins', 'rewards/margins', '{:+.4f}'),
  ('logps/chosen', 'logps/chosen', '{:.2f}'),
  ('perf/tokens_per_second', 'tokens/s', '{:,.0f}'),
)


def console_writer(
  *,
  num_steps: int | None = None,
  label: str = '',
  file: TextIO | None = None,
) -> Writer:
  """Prints one line per row: the metrics a person watches, and the ETA.

  Colours on a terminal, plain text into a file or pipe; never wrapped. Columns
  that the row lacks are left out.

  Args:
    num_steps: printed after the step.
    label: first word of every line, the stage or the cell.
    file: standard output by default.
  """
  console = rich.console.Console(file=file, highlight=False)
  width = len(str(num_steps)) if num_steps else 6
  lock = threading.Lock()

  def write(step: int, row: Row) -> None:
    count = f'{step:>{width}}' + (f'/{num_steps}' if num_steps else '')
    line = rich.text.Text(f'{label} ' if label else '')
    words = [value for value in row.values() if isinstance(value, str)]
    line.append(' '.join([*words, f'step {count}']), style='bold')
    for name, title, form in _COLUMNS:
      if name in row:
        line.append(f'  {title} ', style='dim')
        line.append(form.format(row[name]))
    if 'perf/eta_seconds' in row:
      line.append('  ETA ', style='dim')
      line.append(_duration(row['perf/eta_seconds']))
    if row.get('nonfinite'):
      line.append(f'  non-finite steps {row["nonfinite"]:.0f}', style='red')
    with lock:
      console.print(line, soft_wrap=True)
      console.file.flush()

  return Writer(write, lambda step, tags: None, lambda: None)


def combined_writer(writers: Sequence[Writer]) -> Writer:
  """Writes every row to every writer, in order."""
  writers = tuple(writers)

  def write(step: int, row: Row) -> None:
    for writer in writers:
      writer.write(step, row)

  def rewind(step: int, tags: Mapping[str, str]) -> None:
    for writer in writers:
      writer.rewind(step, tags)

  def close() -> None:
    for writer in writers:
      writer.close()

  return Writer(write, rewind, close)


def tagged_writer(writer: Writer, tags: Mapping[str, str]) -> Writer:
  """Adds text columns to every row; closing is left to the owner of `writer`.

  The cells of a sweep share one file this way, and each rewinds its own rows.
  """
  return Writer(
    lambda step, row: writer.write(step, {**tags, **row}),
    lambda step, more: writer.rewind(step, {**tags, **more}),
    lambda: None,
  )


def _opened(path: pathlib.Path) -> TextIO:
  with storage.naming(path):
    return open(path, 'a', encoding='utf-8')


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
  return {name: value for name, value in row.items() if isinstance(value, str)}


def _json_row(step: int, row: Row) -> dict:
  values: dict = {'step': int(step)}
  notes = {}
  for name, value in row.items():
    if isinstance(value, str):
      values[name] = value
      continue
    value = float(value)
    values[name] = value if math.isfinite(value) else None
    if not math.isfinite(value):
      notes[name] = str(value)
  if notes:
    values['notes'] = notes
  return values


def _duration(seconds: float) -> str:
  if not math.isfinite(seconds):
    return '?'
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02d}:{seconds:02d}'

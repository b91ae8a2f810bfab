"""Where metrics go: JSON lines, TensorBoard, one console line per interval."""

from __future__ import annotations

import json
import math
import os
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TextIO

import rich.console
import rich.text
import tensorboardX

from alignment.training import storage

Row = Mapping[str, float | str]
"""Metric name -> value; text values say which run of many a row is from."""


class Writer(NamedTuple):
  """Two functions; both may be called from any thread.

  Attributes:
    write: (step, row) -> None.
    close: () -> None.
  """

  write: Callable[[int, Row], None]
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


def jsonl_writer(
  path: os.PathLike | str, *, start_step: int | None = None
) -> Writer:
  """Appends one JSON object per row, flushed: `{'step': ..., name: value}`.

  NaN and infinities become null, with `'notes': {name: 'nan'}` beside them.

  Args:
    path: of the file.
    start_step: the step that was restored; rows after it are dropped, for
      they will be written again. None keeps all.

  Raises:
    storage.StorageError: the file cannot be opened or a row not written.
  """
  path = pathlib.Path(os.path.abspath(path))
  limit = math.inf if start_step is None else start_step
  truncate_rows(path, lambda row: row.get('step', 0) <= limit)
  try:
    file = open(path, 'a', encoding='utf-8')
  except OSError as error:
    raise storage.storage_error(path, error) from error
  lock = threading.Lock()

  def write(step: int, row: Row) -> None:
    line = json.dumps(_json_row(step, row), allow_nan=False)
    with lock:
      try:
        file.write(line + '\n')
        file.flush()
      except OSError as error:
        raise storage.storage_error(path, error) from error

  def close() -> None:
    with lock:
      file.close()

  return Writer(write, close)


def tensorboard_writer(
  directory: os.PathLike | str, *, start_step: int | None = None
) -> Writer:
  """Writes finite values as TensorBoard scalars.

  Args:
    directory: of the event files.
    start_step: the step that was restored; TensorBoard hides what an earlier
      process wrote after it.
  """
  directory = storage.make_directory(directory)
  purge_step = None if start_step is None else start_step + 1
  events = tensorboardX.SummaryWriter(str(directory), purge_step=purge_step)
  lock = threading.Lock()

  def write(step: int, row: Row) -> None:
    with lock:
      for name, value in row.items():
        if not isinstance(value, str) and math.isfinite(value):
          events.add_scalar(name, float(value), step)

  def close() -> None:
    with lock:
      events.close()

  return Writer(write, close)


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

  return Writer(write, lambda: None)


def combined_writer(writers: Sequence[Writer]) -> Writer:
  """Writes every row to every writer, in order."""
  writers = tuple(writers)

  def write(step: int, row: Row) -> None:
    for writer in writers:
      writer.write(step, row)

  def close() -> None:
    for writer in writers:
      writer.close()

  return Writer(write, close)


def tagged_writer(writer: Writer, tags: Mapping[str, str]) -> Writer:
  """Adds text columns to every row; closing is left to the owner of `writer`.

  The cells of a sweep share one file this way.
  """
  return Writer(
    lambda step, row: writer.write(step, {**tags, **row}), lambda: None
  )


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

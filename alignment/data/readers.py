"""JSONL, JSONL.gz and Parquet files become records; records become JSONL."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alignment.data.chat_template import ChatTemplate, Rendering
from alignment.data.messages import Example, examples
from alignment.data.parsing import (
  MESSAGES,
  MESSAGES_COLUMNS,
  PAIR_COLUMNS,
  UNPAIRED_COLUMNS,
  Row,
  fault,
  parse_row,
  required_columns,
)
from alignment.data.records import (
  DataError,
  Preference,
  Report,
  Unpaired,
  refuse_empty,
)

SUFFIXES = ('.jsonl', '.jsonl.gz', '.parquet')


def read_file(
  path: str | os.PathLike,
  *,
  columns: Mapping[str, str] | None = None,
  strict: bool = False,
  template: ChatTemplate | None = None,
) -> tuple[list[Preference] | list[Unpaired], Report]:
  """Reads one file of preference pairs or of unpaired labels.

  Rows that no reader could understand are errors. Rows that are well formed
  and teach nothing (an empty completion, chosen == rejected) are dropped and
  counted in the report.

  Args:
    path: a `.jsonl`, `.jsonl.gz` or `.parquet` file.
    columns: our column name -> the file's, for files that use other names.
    strict: raise at the first row that would be dropped.
    template: of columns that hold lists of messages (`messages.examples`);
      None writes plain Human/Assistant turns. Text is taken as it is.

  Returns:
    The records in file order, and what was dropped. `index` is the 0-based row
    unless the file has such a column; where a row of `messages` becomes several
    records it counts them, and so does the report.

  Raises:
    DataError: names file, line, field and remedy.
  """
  path = os.fspath(path)
  return records_of_rows(
    file_rows(path), path, columns=columns, strict=strict, template=template
  )


def records_of_rows(
  rows: Iterable[tuple[int, Row]],
  path: str,
  *,
  columns: Mapping[str, str] | None = None,
  strict: bool = False,
  template: ChatTemplate | None = None,
) -> tuple[list[Preference] | list[Unpaired], Report]:
  """Records of numbered rows, whatever they were read from.

  Args:
    rows: (1-based line, column -> value).
    path: their source, for messages.
    columns: our column name -> theirs.
    strict: raise at the first row that would be dropped.
    template: as in `read_file`.

  Returns:
    The records and the report.

  Raises:
    DataError: a row that cannot be read, two rows of one index, no row left.
  """
  report, records, lines = Report(path), [], {}
  template = template or ChatTemplate()
  with template.rendering() as rendering:
    for line, example in _examples(rows, path, columns, rendering, report):
      record = parse_row(example.row, example.required, path, line)
      report.read += 1
      if record.index in lines:
        raise DataError(
          f'is {record.index}, which line {lines[record.index]} also has',
          'Give every row its own index, or leave the column out',
          path,
          line,
          'index',
        )
      lines[record.index] = line
      found = example.fault or fault(record)
      if found is None:
        records.append(record)
      elif strict:
        field, reason = found
        raise DataError(
          reason.removeprefix('dropped, '),
          'Remove the row, or read with strict=False, which drops and counts '
          'it',
          path,
          line,
          field,
        )
      else:
        report.add(found[1], line)
    if rendering.used:
      report.notes.append(f'messages written as text by {template.place}')
  if not report.read:
    raise DataError('is empty', 'Give a file with one row per example', path)
  report.kept = len(records)
  refuse_empty(records, report)
  return records, report


def _examples(
  rows: Iterable[tuple[int, Row]],
  path: str,
  columns: Mapping[str, str] | None,
  rendering: Rendering,
  report: Report,
) -> Iterator[tuple[int, Example]]:
  """(line, row of text) of every example."""
  required: tuple[str, ...] = ()
  for line, row in rows:
    row = _renamed(row, columns, path, line)
    if not required:
      required = required_columns(row)
      _note_ignored(report, row, required)

    def fail(field, problem, remedy, line=line):
      return DataError(problem, remedy, path, line, field)

    for example in examples(row, required, report.read, rendering, fail):
      yield line, example


def file_rows(path: str) -> Iterator[tuple[int, Row]]:
  """(1-based line, columns) of a JSONL, JSONL.gz or Parquet file.

  Raises:
    DataError: a file that cannot be opened, broken JSON, broken UTF-8, a
      truncated archive, an unknown ending.
  """
  if not path.endswith(SUFFIXES):
    raise DataError(
      'is a kind of file that is not read here',
      f'Use one of {", ".join(SUFFIXES)}',
      path,
    )
  try:
    yield from (
      _parquet_rows(path) if path.endswith('.parquet') else json_rows(path)
    )
  except OSError as error:
    raise DataError(
      f'cannot be read: {error.strerror or error}',
      'Check the path and its permissions',
      path,
    ) from error


def json_rows(path: str) -> Iterator[tuple[int, Row]]:
  """(1-based line, object) of a JSONL file, gzipped or not; blank lines skip.

  Raises:
    DataError: broken JSON, broken UTF-8, a line that is no object, a truncated
      or broken gzip.
    OSError: the file cannot be opened.
  """
  line = 0
  opener = gzip.open if path.endswith('.gz') else open
  with opener(path, 'rb') as file:
    while True:
      line += 1
      try:
        raw = file.readline()
      except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
          f'the gzip is truncated or broken: {error}',
          'Fetch or compress the file again',
          path,
          line,
        ) from error
      if not raw:
        return
      if raw.strip():
        yield line, _json_object(raw, path, line)


def _json_object(raw: bytes, path: str, line: int) -> Row:
  try:
    row = json.loads(raw.decode('utf-8-sig' if line == 1 else 'utf-8'))
  except UnicodeDecodeError as error:
    raise DataError(
      f'not UTF-8: {error}',
      'Re-encode the file as UTF-8',
      path,
      line,
      _field_before(raw[: error.start]),
    ) from error
  except json.JSONDecodeError as error:
    raise DataError(
      f'broken JSON: {error.msg} at character {error.pos + 1}',
      'Write one JSON object per line; a text may hold no raw line break',
      path,
      line,
      _field_before(raw[: error.pos]),
    ) from error
  if not isinstance(row, dict):
    raise DataError(
      f'holds a JSON {type(row).__name__}, must hold an object',
      'Write one JSON object per line, not one array per file',
      path,
      line,
    )
  return row


def _field_before(raw: bytes) -> str:
  """The last known column named before the place where a line breaks."""
  named = {
    name: raw.rfind(b'"%s"' % name.encode())
    for name in {*PAIR_COLUMNS, *UNPAIRED_COLUMNS, MESSAGES}
  }
  last = max(named, key=named.get)
  return last if named[last] >= 0 else ''


def _parquet_rows(path: str) -> Iterator[tuple[int, Row]]:
  # Loaded only where a table is read: it costs a quarter of a second.
  import pyarrow
  import pyarrow.parquet

  line = 0
  try:
    with pyarrow.parquet.ParquetFile(path) as file:
      for batch in file.iter_batches():
        for row in range(batch.num_rows):
          line += 1
          yield line, _parquet_row(batch, row, path, line)
  except pyarrow.ArrowException as error:
    raise DataError(
      f'no readable Parquet: {error}', 'Write the file again', path, line
    ) from error


def _parquet_row(batch: Any, row: int, path: str, line: int) -> Row:
  values = {}
  for name, column in zip(batch.schema.names, batch.columns, strict=True):
    try:
      values[name] = column[row].as_py()
    except UnicodeDecodeError as error:
      raise DataError(
        f'not UTF-8: {error}', 'Re-encode the column', path, line, name
      ) from error
  return values


def _renamed(
  row: Row, columns: Mapping[str, str] | None, path: str, line: int
) -> Row:
  if not columns:
    return row
  known = {*PAIR_COLUMNS, *UNPAIRED_COLUMNS, MESSAGES}
  for ours, theirs in columns.items():
    if ours not in known:
      raise ValueError(f'columns: {ours!r} is not one of {sorted(known)}')
    if theirs not in row:
      raise DataError(
        f'column is missing, though columns= maps {ours!r} to it (the row has '
        f'{sorted(row)})',
        'Correct the mapping',
        path,
        line,
        theirs,
      )
  taken = set(columns.values())
  rest = {name: value for name, value in row.items() if name not in taken}
  return rest | {ours: row[theirs] for ours, theirs in columns.items()}


def _note_ignored(report: Report, row: Row, required: Iterable[str]) -> None:
  if MESSAGES in required:
    known = MESSAGES_COLUMNS
    report.notes.append('messages: one example per turn of the assistant')
  elif 'completion' in required:
    known = UNPAIRED_COLUMNS
  else:
    known = PAIR_COLUMNS
  ignored = sorted(set(row) - set(known))
  if ignored:
    report.notes.append(f'columns not used: {", ".join(ignored)}')
  if required == ('chosen', 'rejected'):
    report.notes.append('no column prompt: the shared prefix is the prompt')


def row_of(record: Preference | Unpaired) -> dict[str, Any]:
  """The columns of a record: strings, and the extras that are known."""
  row = {}
  for field in dataclasses.fields(record):
    value = getattr(record, field.name)
    if field.name not in ('path', 'line') and value not in (None, ()):
      row[field.name] = list(value) if field.name == 'votes' else value
  return row


def write_jsonl(
  path: str | os.PathLike, records: Iterable[Preference | Unpaired]
) -> None:
  """Writes records as JSONL that any reader of preference pairs understands.

  `{prompt, chosen, rejected}` are strings, the rest are extra columns; unknown
  values are left out. A `.gz` path is compressed, without a time stamp, so that
  equal records give equal bytes. The file appears whole or not at all.

  Args:
    path: `.jsonl` or `.jsonl.gz`.
    records: what to write.

  Raises:
    ValueError: another ending.
  """
  path = os.fspath(path)
  if not path.endswith(('.jsonl', '.jsonl.gz')):
    raise ValueError(f'path: {path!r} must end in .jsonl or .jsonl.gz')
  write_lines(path, json_lines(map(row_of, records)))


def json_lines(rows: Iterable[Row]) -> Iterator[str]:
  """Every row as one line of JSON; NaN and infinity are a ValueError."""
  for row in rows:
    yield json.dumps(row, ensure_ascii=False, allow_nan=False) + '\n'


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
  """Writes text that appears whole or not at all; `.gz` is compressed."""
  path = os.fspath(path)
  data = ''.join(lines).encode('utf-8')
  if path.endswith('.gz'):
    data = gzip.compress(data, mtime=0)
  # In the same folder, so that the rename cannot cross file systems.
  folder = os.path.dirname(os.path.abspath(path))
  handle, temporary = tempfile.mkstemp(dir=folder, prefix='.writing-')
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise

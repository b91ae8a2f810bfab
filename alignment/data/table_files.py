"""CSV, JSONL and Parquet files as columns, and columns as files."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.data.readers import file_rows, json_lines, write_lines
from alignment.data.records import DataError

CSV_SUFFIXES = ('.csv', '.csv.gz')


@dataclasses.dataclass(frozen=True)
class Columns:
  """A file, column by column.

  Attributes:
    path: the file, for messages.
    values: name -> one value per row; None where a row has none.
    lines: 1-based line (JSONL) or row (CSV without its header, Parquet).
  """

  path: str
  values: dict[str, list[Any]]
  lines: Sequence[int]

  def __len__(self) -> int:
    return len(self.lines)

  def get(self, name: str) -> list[Any]:
    """One column.

    Raises:
      DataError: there is none of that name; lists those there are.
    """
    if name not in self.values:
      raise DataError(
        f'column is missing (the file has {sorted(self.values)})',
        'Correct the name, or map it with the flag that names this column',
        self.path,
        field=name,
      )
    return self.values[name]

  def row(self, place: int) -> dict[str, Any]:
    """The columns of one row that have a value."""
    row = {name: values[place] for name, values in self.values.items()}
    return {name: value for name, value in row.items() if value is not None}


def read_columns(path: str | os.PathLike) -> Columns:
  """Reads a `.csv`, `.csv.gz`, `.jsonl`, `.jsonl.gz` or `.parquet` file.

  CSV values are strings, an empty field is None. A column that some rows lack
  holds None there.

  Raises:
    DataError: names file, line, field and remedy.
  """
  path = os.fspath(path)
  if path.endswith(CSV_SUFFIXES):
    columns = _read_csv(path)
  else:
    lines, rows = [], []
    for line, row in file_rows(path):
      lines.append(line)
      rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = Columns(path, {n: [r.get(n) for r in rows] for n in names}, lines)
  if not len(columns):
    raise DataError('is empty', 'Give a file with one row per label', path)
  return columns


def write_columns(
  path: str | os.PathLike, columns: Mapping[str, Sequence[Any]]
) -> None:
  """Writes columns of equal length; the file appears whole or not at all.

  Args:
    path: `.csv`, `.csv.gz`, `.jsonl` or `.jsonl.gz`.
    columns: name -> values; None becomes an empty field, or is left out.

  Raises:
    ValueError: another ending.
  """
  path = os.fspath(path)
  rows = zip(*columns.values(), strict=True)
  if path.endswith(('.jsonl', '.jsonl.gz')):
    write_lines(
      path,
      json_lines(
        {n: v for n, v in zip(columns, row, strict=True) if v is not None}
        for row in rows
      ),
    )
    return
  if not path.endswith(CSV_SUFFIXES):
    raise ValueError(f'path: {path!r} must end in .csv or .jsonl (or .gz)')
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(columns)
  writer.writerows(rows)
  write_lines(path, [text.getvalue()])


def as_name(value: Any) -> str | None:
  """What a cell says, as text: `1`, `1.0` and `'1 '` are one answer.

  None where it says nothing: no value, NaN, or white space.
  """
  if isinstance(value, str):
    return value.strip() or None
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return None
  if isinstance(value, bool):
    return 'true' if value else 'false'
  if isinstance(value, float) and value.is_integer():
    return str(int(value))
  return str(value)


def _read_csv(path: str) -> Columns:
  # Loaded only where a table is read: it costs a quarter of a second.
  import pyarrow
  import pyarrow.csv

  try:
    # As bytes, so that broken UTF-8 can be traced to its row and column.
    with pyarrow.csv.open_csv(path) as reader:
      names = reader.schema.names
    table = pyarrow.csv.read_csv(
      path,
      parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
      convert_options=pyarrow.csv.ConvertOptions(
        column_types={name: pyarrow.binary() for name in names}
      ),
    )
  except OSError as error:
    raise DataError(
      f'cannot be read: {error}', 'Check the path and its permissions', path
    ) from error
  except pyarrow.ArrowException as error:
    raise DataError(
      f'no readable CSV: {error}',
      'Give every row the fields that the first line names; quote fields that '
      'hold commas, quotes or line breaks',
      path,
    ) from error
  repeated = [n for n, times in collections.Counter(names).items() if times > 1]
  if repeated:
    raise DataError(
      'column is there twice', 'Rename one of the two', path, 1, repeated[0]
    )
  values = {
    name: _decoded(table.column(name).to_pylist(), path, name) for name in names
  }
  return Columns(path, values, range(1, table.num_rows + 1))


def _decoded(cells: Sequence[bytes], path: str, name: str) -> list[str | None]:
  texts = []
  for row, cell in enumerate(cells):
    try:
      texts.append(cell.decode('utf-8') or None)
    except UnicodeDecodeError as error:
      raise DataError(
        f'not UTF-8: {error}',
        'Re-encode the file as UTF-8',
        path,
        row + 1,
        name,
      ) from error
  return texts

"""One way in: whatever a path names becomes the subject of an audit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from alignment.data.label_layouts import (
  COMPARISONS,
  LONG,
  Naming,
  column_of,
)
from alignment.data.label_tables import read_table
from alignment.data.readers import file_rows
from alignment.data.records import (
  DataError,
  Record,
  Report,
  VotedPair,
  refuse_empty,
)
from alignment.data.source import TFDS_PREFIX, load
from alignment.data.table_files import CSV_SUFFIXES, as_name
from alignment.noise.corruption.draws import uniforms
from alignment.protocols.audit.from_records import from_records, known_columns
from alignment.protocols.audit.from_tables import from_table
from alignment.protocols.audit.subject import Subject

_SAMPLE = 103
_RECORD_COLUMNS = {
  'group': 'group',
  'gold': 'clean_label',
  'annotator': 'annotator_id',
  'confidence': 'label_prob',
}
"""What a flag that names a column of a table means for a preference file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """What is to be audited.

  Attributes:
    data: a preference file, a table of labels, a folder of votes, or tfds:.
    naming: which column of a table says what.
    columns: our column name -> the file's, of a preference file.
    slices: columns by whose values parts are told apart.
    strict: refuse what is otherwise dropped and counted.
    seed: of the order of pairs, ties and the sample.
    max_rows: audit a random sample of so many rows; 0 takes all.
  """

  data: str
  naming: Naming = Naming()
  columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
  slices: tuple[str, ...] = ()
  strict: bool = False
  seed: int = 0
  max_rows: int = 0


def read_subject(request: Request) -> Subject:
  """Reads what `request.data` names.

  A table of labels where columns of votes or of a label are named, where the
  file is CSV, or where its columns are those of a long table or of
  comparisons; else a preference file.

  Raises:
    DataError: names file, line, field and remedy.
    ValueError: an option that the kind of data does not use.
  """
  if not request.data:
    raise ValueError('--data=: name what is to be audited')
  if _is_table(request):
    return _read_table(request)
  return _read_records(request)


def _is_table(request: Request) -> bool:
  data, naming = request.data, request.naming
  if os.path.isdir(data) or data.startswith(TFDS_PREFIX):
    return False
  if naming.votes or naming.label or data.endswith(CSV_SUFFIXES):
    return True
  names = set(next(iter(file_rows(data)), (0, {}))[1])
  return any(
    {column_of(naming, name) for name in wanted} <= names
    for wanted in (LONG, COMPARISONS)
  )


def _read_table(request: Request) -> Subject:
  if request.columns:
    raise ValueError(
      'columns: a table of labels has flags of its own for its columns'
    )
  naming = request.naming
  table = read_table(request.data, naming, strict=request.strict)
  if request.max_rows and request.max_rows < len(table):
    table = table.take(_sample(np.arange(len(table)), request))
    table.report.notes.append(f'a random sample of {len(table)} is audited')
  return from_table(
    table,
    seed=request.seed,
    group_name=naming.group or 'group',
    label_field='' if table.is_long else naming.label,
    slices={
      name: [value or '(none)' for value in table.names(name)]
      for name in request.slices
    },
  )


def _read_records(request: Request) -> Subject:
  naming = request.naming
  unused = [
    f.name
    for f in dataclasses.fields(naming)
    if getattr(naming, f.name) != f.default and f.name not in _RECORD_COLUMNS
  ]
  if unused:
    raise ValueError(
      f'--{unused[0]}={getattr(naming, unused[0])}: only for a table of '
      f'labels; {request.data!r} is read as a preference file'
    )
  columns = dict(request.columns)
  for ours, column in _RECORD_COLUMNS.items():
    if getattr(naming, ours):
      columns[column] = getattr(naming, ours)
  records, report = load(
    request.data, columns=columns or None, strict=request.strict
  )
  records = _usable(records, report)
  if request.max_rows and request.max_rows < len(records):
    index = np.array([r.index for r in records])
    kept = set(_sample(index, request).tolist())
    records = [r for r in records if r.index in kept]
    report.notes.append(f'a random sample of {len(records)} rows is audited')
  extras = _extra_columns(request, records[0], columns)
  return from_records(
    records,
    report,
    seed=request.seed,
    group_name=_group_name(records[0], columns),
    columns=extras,
    slices={name: _slice(records, extras, name) for name in request.slices},
  )


def _usable(records: Sequence[Record], report: Report) -> Sequence[Record]:
  """Voted pairs of which no vote names a winner have no label.

  Raises:
    DataError: no pair has one.
  """
  if not isinstance(records[0], VotedPair):
    return records
  usable = []
  for pair in records:
    if any(vote.value for vote in pair.votes):
      usable.append(pair)
    else:
      report.add('dropped, no vote names a winner', pair.line)
  votes = [vote.value for pair in records for vote in pair.votes]
  report.notes.append(
    f"{votes.count(0)} of {len(votes)} votes say 'equal' and name no winner"
  )
  report.kept = len(usable)
  refuse_empty(usable, report)
  return usable


def _sample(index: np.ndarray, request: Request) -> np.ndarray:
  """The ids of a random sample, in file order, the same for a seed."""
  draws = uniforms(jax.random.key(request.seed), _SAMPLE, index)
  return np.sort(index[np.argsort(draws, kind='stable')[: request.max_rows]])


def _extra_columns(
  request: Request,
  record: Record,
  columns: Mapping[str, str],
) -> dict[int, dict]:
  """line -> what the file says and a record does not hold."""
  if os.path.isdir(request.data) or request.data.startswith(TFDS_PREFIX):
    return {}
  held = known_columns(record) | set(columns.values())
  return {
    line: {k: v for k, v in row.items() if k not in held and v is not None}
    for line, row in file_rows(request.data)
  }


def _slice(
  records: Sequence[Record], extras: Mapping[int, Mapping], name: str
) -> list[str]:
  """What a column says of every record.

  Raises:
    DataError: no row has the column.
  """
  said = [
    extras.get(r.line, {}).get(name, getattr(r, name, None)) for r in records
  ]
  if all(value is None for value in said):
    named = sorted(set().union(*extras.values()))
    raise DataError(
      f'column is missing (beside those of a preference, rows have {named})',
      'Correct the name',
      records[0].path,
      field=name,
    )
  return [as_name(value) or '(none)' for value in said]


def _group_name(record: Record, columns: Mapping[str, str]) -> str:
  if isinstance(record, VotedPair):
    return 'title'
  if 'group' in columns:
    return columns['group']
  return 'first turn or prompt' if record.group in record.prompt else 'group'

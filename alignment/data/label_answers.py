"""From answers as text to classes, and from repeated answers to votes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from alignment.data.records import DataError, Report
from alignment.data.table_files import Columns, as_name

MAX_CLASSES = 50


def cells(
  columns: Columns, name: str, ties: Iterable[str] = ()
) -> list[str | None]:
  """A column of answers as text; None where it says nothing, or a tie."""
  ties = set(ties)
  names = map(as_name, columns.get(name))
  return [None if value in ties else value for value in names]


def class_names(
  given: Sequence[str],
  gold: Iterable[str | None],
  labels: Iterable[str | None],
  *,
  path: str,
  field: str,
) -> tuple[str, ...]:
  """The classes: as given, else what gold says, else what labels say; sorted.

  Raises:
    DataError: fewer than two, or more than 50 of them.
  """
  if given:
    classes = tuple(given)
  else:
    classes = tuple(sorted(set(gold) - {None}))
    if len(classes) < 2:
      classes = tuple(sorted({*labels, *classes} - {None}))
  if len(classes) > MAX_CLASSES:
    raise DataError(
      f'holds {len(classes)} different answers ({", ".join(classes[:3])}, …)',
      f'Name a column with at most {MAX_CLASSES} answers, or the classes',
      path,
      field=field,
    )
  if len(classes) < 2:
    raise DataError(
      f'all labels are {classes[0]!r}' if classes else 'holds no label',
      'Two classes are needed to speak of errors: name the classes if one '
      'never occurs',
      path,
      field=field,
    )
  return classes


def class_ids(
  names: Sequence[str | None],
  classes: Sequence[str],
  columns: Columns,
  rows: Sequence[int],
  field: str | Sequence[str],
  report: Report,
  *,
  strict: bool,
) -> np.ndarray:
  """Ids of answers, −1 where there is none; other answers are counted.

  Args:
    names: `[V]` answers.
    classes: C names.
    columns: for messages.
    rows: `[V]`, the row of every answer.
    field: the column, or one per answer, for messages.
    report: counts answers outside the classes.
    strict: raise at the first of these.

  Returns:
    `[V]` int32 in [−1, C).
  """
  place = {name: i for i, name in enumerate(classes)}
  ids = np.fromiter((place.get(name, -1) for name in names), np.int32)
  for i in np.flatnonzero(ids < 0):
    if names[i] is None:
      continue
    line = columns.lines[rows[i]]
    if strict:
      raise DataError(
        f'is {names[i]!r:.60}, which is none of the classes '
        f'{", ".join(classes)}',
        'Correct the answer, name it as a tie or a class, or read with '
        'strict=False, which drops and counts it',
        columns.path,
        line,
        field if isinstance(field, str) else field[i],
      )
    report.add('answer dropped, none of the classes', line)
  return ids


def distinct(
  task: np.ndarray,
  worker: np.ndarray,
  label: np.ndarray,
  lines: np.ndarray,
  worker_names: Sequence[str],
  report: Report,
  *,
  path: str,
  strict: bool,
) -> np.ndarray:
  """Which votes to keep, so that a worker answers a task once.

  Equal answers count once; different ones say that the worker does not know,
  or that a key is wrong: all of them are dropped.

  Args:
    task, worker, label: `[V]` ids.
    lines: `[V]`, for messages.
    worker_names: A names, for messages.
    report: counts what is dropped.
    path: for messages.
    strict: raise at the first contradiction.

  Returns:
    `[V]` bool.
  """
  key = task.astype(np.int64) * (len(worker_names) + 1) + worker
  _, first, cell = np.unique(key, return_index=True, return_inverse=True)
  contradicts = (label != label[first[cell]]).astype(np.int64)
  is_contradicted = np.bincount(cell, contradicts, len(first))[cell] > 0
  is_first = np.zeros(len(task), bool)
  is_first[first] = True
  if strict and is_contradicted.any():
    i = int(np.flatnonzero(contradicts)[0])
    before = lines[first[cell[i]]]
    raise DataError(
      f'{worker_names[worker[i]]!r} answers the task of line {before} again, '
      'and otherwise',
      'Keep one of the two, or read with strict=False, which drops both',
      path,
      int(lines[i]),
      'worker',
    )
  for reason, which in (
    (
      'vote dropped, its worker says otherwise of the same task',
      is_contradicted,
    ),
    ('vote dropped, repeated', ~is_contradicted & ~is_first),
  ):
    for line in lines[which]:
      report.add(reason, int(line))
  return ~is_contradicted & is_first


def per_task(
  values: Sequence[str | None],
  task: np.ndarray,
  num_tasks: int,
  columns: Columns,
  field: str,
  unit: str = 'task',
) -> list[str | None]:
  """What a column says of every task: the same on all of its rows.

  Raises:
    DataError: two rows of a task that differ.
  """
  said: list[str | None] = [None] * num_tasks
  for row, (value, i) in enumerate(zip(values, task, strict=True)):
    if value is None or value == said[i]:
      continue
    if said[i] is not None:
      raise DataError(
        f'is {value!r:.40}, yet an earlier row of the same {unit} says '
        f'{said[i]!r:.40}',
        f'Give all rows of a {unit} the same value, or {unit}s different names',
        columns.path,
        columns.lines[row],
        field,
      )
    said[i] = value
  return said


def ids_of(names: Iterable[str]) -> tuple[np.ndarray, tuple[str, ...]]:
  """Ids in the order of first appearance, and the names they stand for."""
  place: dict[str, int] = {}
  ids = [place.setdefault(name, len(place)) for name in names]
  return np.asarray(ids, np.int32), tuple(place)

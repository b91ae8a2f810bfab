"""Tables of labels: one row per label, or one row per task."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from alignment.data import label_answers
from alignment.data.label_layouts import (
  SIDES,
  Answers,
  Naming,
  column_of,
  read_answers,
)
from alignment.data.records import DataError, Report, refuse_empty
from alignment.data.table_files import (
  Columns,
  as_name,
  read_columns,
  write_columns,
)
from alignment.noise.crowd.table import VoteTable

FEWEST_ALIKE = 5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LabelTable:
  """I tasks, their labels, and what else a table says of them.

  Attributes:
    columns: the file as read.
    place: `[I]`, the row of `columns` that a task first appears in.
    tasks, classes, workers, annotators: names; ids count along them.
    votes: who said what; None where the table holds one label per task.
    label: `[I]` int32, the label at hand, −1 where there is none.
    gold: `[I]` int32, −1 where it is unknown.
    annotator: `[I]` int32, who gave the label at hand, −1 unknown.
    confidence: `[I]` float64 in [0, 1], NaN unknown.
    group: I names.
    texts: I tuples: (text,), or (prompt, first, second) where labels compare
      two texts and class 0 says that the first is better.
    is_pairs: whether they do.
    worker_group: what each worker belongs to, such as a judge model; () where
      nothing says so.
    is_long: a row of the file is a vote, not a task.
    is_left: `[V]`, +1 where the first text of the vote's task was shown first
      (on the left), −1 where second, 0 unknown.
    report: what was dropped.
  """

  columns: Columns
  place: np.ndarray
  tasks: tuple[str, ...]
  classes: tuple[str, ...]
  workers: tuple[str, ...]
  annotators: tuple[str, ...]
  votes: VoteTable | None
  label: np.ndarray
  gold: np.ndarray
  annotator: np.ndarray
  confidence: np.ndarray
  group: tuple[str, ...]
  texts: tuple[tuple[str, ...], ...]
  is_pairs: bool
  worker_group: tuple[str, ...]
  is_long: bool
  is_left: np.ndarray
  report: Report

  def __len__(self) -> int:
    return len(self.tasks)

  def take(self, rows: np.ndarray) -> LabelTable:
    """Some of the tasks, in the order of `rows`."""
    votes, is_left = self.votes, self.is_left
    if votes is not None:
      is_left = is_left[np.isin(votes.task, rows)]
      votes = votes.of_tasks(rows)
    return dataclasses.replace(
      self,
      place=self.place[rows],
      tasks=tuple(self.tasks[i] for i in rows),
      votes=votes,
      label=self.label[rows],
      gold=self.gold[rows],
      annotator=self.annotator[rows],
      confidence=self.confidence[rows],
      group=tuple(self.group[i] for i in rows),
      texts=tuple(self.texts[i] for i in rows),
      is_left=is_left,
    )

  def names(self, column: str) -> list[str | None]:
    """What a column says of every task."""
    values = self.columns.get(column)
    return [as_name(values[row]) for row in self.place]


def read_table(
  path: str | os.PathLike | Columns, naming: Naming, *, strict: bool = False
) -> LabelTable:
  """Reads a table of labels from CSV, JSONL or Parquet.

  - wide: `naming.votes` or `naming.label` name columns, a row is a task;
  - long: columns task, worker, label, and gold, group, text and worker_group
    if there are any;
  - comparisons: columns worker, left, right, label, where the label repeats
    the better one of left and right (or says `left` or `right`). A task is a
    pair in either order; `prompt` and texts are columns `naming.text` and
    `naming.pair`, the names themselves stand in for missing texts.

  Answers are compared as text (`1`, `1.0` and `'1 '` agree). Nothing, NaN and
  ties are no vote. Two different answers of one worker to one task are both
  dropped, equal ones count once; every drop is in the report.

  Args:
    path: the file, or its columns.
    naming: which column says what.
    strict: raise where a vote would be dropped, ties and gaps apart.

  Returns:
    Tasks that have a label, a vote or both, in file order.

  Raises:
    DataError: names file, line, field and remedy: an unknown column, a label
      outside the classes, one class only, gold or group that differ within a
      task, a confidence outside [0, 1].
  """
  columns = path if isinstance(path, Columns) else read_columns(path)
  answers = read_answers(columns, naming)
  return _assemble(columns, naming, answers, strict)


def write_long(path: str | os.PathLike, table: LabelTable) -> None:
  """Writes `task, worker, label`, and gold, group and text, a row per vote.

  Raises:
    ValueError: a table without votes, or one of pairs (texts are left out).
  """
  if table.votes is None:
    raise ValueError('votes=None: a long table has one row per vote')
  task = table.votes.task
  columns = {
    'task': [table.tasks[i] for i in task],
    'worker': [table.workers[i] for i in table.votes.worker],
    'label': [table.classes[i] for i in table.votes.label],
    **{name: [values[i] for i in task] for name, values in _extras(table)},
  }
  write_columns(path, columns)


def write_wide(path: str | os.PathLike, table: LabelTable) -> None:
  """Writes one row per task, one column per worker, and what else is known.

  Raises:
    ValueError: a worker whose name is that of another column.
  """
  columns = {'task': list(table.tasks), **dict(_extras(table))}
  if np.any(table.label >= 0):
    columns['label'] = _class_names(table, table.label)
  clash = sorted(set(columns) & set(table.workers))
  if clash:
    raise ValueError(f'workers={clash} must not be named like other columns')
  if table.votes is not None:
    answers = np.full((len(table.workers), len(table)), -1)
    answers[table.votes.worker, table.votes.task] = table.votes.label
    for name, row in zip(table.workers, answers, strict=True):
      columns[name] = _class_names(table, row)
  write_columns(path, columns)


def _extras(table: LabelTable) -> Iterable[tuple[str, list[Any]]]:
  yield 'group', list(table.group)
  if np.any(table.gold >= 0):
    yield 'gold', _class_names(table, table.gold)
  for place, name in enumerate(
    ('prompt', 'first', 'second') if table.is_pairs else ('text',)
  ):
    yield name, [texts[place] for texts in table.texts]


def _class_names(table: LabelTable, ids: np.ndarray) -> list[str | None]:
  return [table.classes[i] if i >= 0 else None for i in ids]


def _assemble(
  columns: Columns, naming: Naming, answers: Answers, strict: bool
) -> LabelTable:
  """Classes, distinct votes, and the tasks that have a label or a vote."""
  report = Report(columns.path, read=len(answers.tasks))
  is_pairs = len(answers.texts[0]) == 3
  classes = _classes(columns, naming, answers)
  encode = functools.partial(
    label_answers.class_ids,
    classes=classes,
    columns=columns,
    report=report,
    strict=strict,
  )
  label = encode(answers.label, rows=answers.row, field=answers.field)
  at_hand = encode(answers.at_hand, rows=answers.place, field=naming.label)
  gold = encode(
    answers.gold, rows=answers.place, field=column_of(naming, 'gold')
  )
  worker, workers = label_answers.ids_of(answers.worker)
  lines = np.asarray(columns.lines)
  valid = np.flatnonzero(label >= 0)
  valid = valid[
    label_answers.distinct(
      answers.task[valid],
      worker[valid],
      label[valid],
      lines[answers.row[valid]],
      workers,
      report,
      path=columns.path,
      strict=strict,
    )
  ]
  kept = _kept(answers, at_hand, answers.task[valid], lines, report)
  place = np.full(len(answers.tasks), -1)
  place[kept] = np.arange(len(kept))
  valid = valid[place[answers.task[valid]] >= 0]
  report.kept = len(kept)
  refuse_empty(kept.tolist(), report)
  annotator, annotators = _annotators(columns, naming, answers.place[kept])
  votes = VoteTable(
    place[answers.task[valid]],
    worker[valid],
    label[valid],
    len(kept),
    max(len(workers), 1),
    len(classes),
  )
  if workers:
    _note_workers(votes, workers, report)
  is_left = answers.is_left
  return LabelTable(
    columns=columns,
    place=answers.place[kept],
    tasks=tuple(answers.tasks[i] for i in kept),
    classes=classes,
    workers=workers,
    annotators=annotators,
    votes=votes if len(votes) else None,
    label=at_hand[kept],
    gold=gold[kept],
    annotator=annotator,
    confidence=_confidence(columns, naming, answers.place[kept]),
    group=tuple(answers.group[i] or answers.tasks[i] for i in kept),
    texts=tuple(answers.texts[i] for i in kept),
    is_pairs=is_pairs,
    worker_group=tuple(answers.worker_group[w] for w in workers)
    if answers.worker_group
    else (),
    is_long=answers.is_long,
    is_left=np.zeros(len(valid)) if is_left is None else is_left[valid],
    report=report,
  )


def _classes(
  columns: Columns, naming: Naming, answers: Answers
) -> tuple[str, ...]:
  if answers.is_left is not None:
    return SIDES
  field = naming.label or ', '.join(naming.votes) or 'label'
  classes = label_answers.class_names(
    naming.classes,
    answers.gold,
    [*answers.label, *answers.at_hand],
    path=columns.path,
    field=field,
  )
  if naming.pair and len(classes) != 2:
    raise DataError(
      f'has answers {", ".join(classes)}, yet two texts are compared',
      'Name the answers that favour neither text as ties, or the two classes',
      columns.path,
      field=field,
    )
  return classes


def _kept(
  answers: Answers,
  labelled: np.ndarray,
  voted: np.ndarray,
  lines: np.ndarray,
  report: Report,
) -> np.ndarray:
  """Ids of the tasks that can be used."""
  has_label = labelled >= 0
  has_label[voted] = True
  kept = []
  for i, texts in enumerate(answers.texts):
    line = int(lines[answers.place[i]])
    if not has_label[i]:
      report.add('task dropped, no label', line)
    elif len(texts) == 3 and not (texts[1].strip() and texts[2].strip()):
      report.add('task dropped, empty text', line)
    elif len(texts) == 3 and texts[1] == texts[2]:
      report.add('task dropped, both texts are the same', line)
    else:
      kept.append(i)
  return np.asarray(kept, np.int64)


def _annotators(
  columns: Columns, naming: Naming, place: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
  ids = np.full(len(place), -1, np.int32)
  if not naming.annotator:
    return ids, ()
  names = label_answers.cells(columns, naming.annotator)
  names = [names[row] for row in place]
  known = np.array([name is not None for name in names])
  ids[known], found = label_answers.ids_of(filter(None, names))
  return ids, found


def _confidence(
  columns: Columns, naming: Naming, place: np.ndarray
) -> np.ndarray:
  values = np.full(len(place), np.nan)
  if not naming.confidence:
    return values
  cells = label_answers.cells(columns, naming.confidence)
  for i, row in enumerate(place):
    if cells[row] is None:
      continue
    try:
      values[i] = float(cells[row])
    except ValueError:
      values[i] = np.inf
    if not 0 <= values[i] <= 1:
      raise DataError(
        f'is {cells[row]!r:.40}, must be a number in [0, 1]',
        'Correct it, or leave it out where it is unknown',
        columns.path,
        columns.lines[row],
        naming.confidence,
      )
  return values


def _note_workers(
  votes: VoteTable, workers: Sequence[str], report: Report
) -> None:
  given = np.bincount(votes.worker, minlength=len(workers))
  once = int(np.sum(given == 1))
  if once:
    report.notes.append(
      f'{once} of {len(workers)} workers gave one label: nothing can be said '
      'of them alone'
    )
  cell = votes.worker.astype(np.int64) * votes.num_classes + votes.label
  said = np.bincount(cell, minlength=len(workers) * votes.num_classes)
  commonest = said.reshape(-1, votes.num_classes).max(axis=1, initial=0)
  alike = np.flatnonzero((given >= FEWEST_ALIKE) & (commonest == given))
  if len(alike):
    named = ', '.join(repr(workers[a]) for a in alike[:3])
    report.notes.append(
      f'{len(alike)} of {len(workers)} workers gave the same label '
      f'{FEWEST_ALIKE} times or more, and no other ({named}, …)'
    )

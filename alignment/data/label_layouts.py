"""The layouts a table of labels may have, brought to answers of workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from alignment.data import label_answers
from alignment.data.records import DataError
from alignment.data.table_files import Columns, as_name

LONG = ('task', 'worker', 'label')
COMPARISONS = ('worker', 'left', 'right', 'label')
SIDES = ('first', 'second')
"""The classes of a table of comparisons."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
  """Which column says what; empty where none does.

  Attributes:
    votes: one column per worker (a wide table).
    label: the label at hand; in a long table the vote of a row.
    text: columns that are read, one after the other, as the task's text.
    pair: two text columns that the labels compare; the first class, sorted,
      names the first column. `text` is then what the two answer.
    gold: the true class where it is known.
    group: what was drawn together; every task on its own unless given.
    annotator: who gave the label at hand.
    confidence: P(label at hand is right) as its giver says, in [0, 1].
    ties: values that name no class, such as `0` or `tie`: no vote.
    classes: all classes; unless given those of gold, else those of the labels.
    task, worker, left, right: of long tables.
  """

  votes: tuple[str, ...] = ()
  label: str = ''
  text: tuple[str, ...] = ()
  pair: tuple[str, ...] = ()
  gold: str = ''
  group: str = ''
  annotator: str = ''
  confidence: str = ''
  ties: tuple[str, ...] = ()
  classes: tuple[str, ...] = ()
  task: str = 'task'
  worker: str = 'worker'
  left: str = 'left'
  right: str = 'right'


@dataclasses.dataclass(kw_only=True)
class Answers:
  """V answers on I tasks, as text."""

  tasks: tuple[str, ...]
  place: np.ndarray
  task: np.ndarray
  worker: Sequence[str]
  label: list[str | None]
  row: np.ndarray
  field: Sequence[str] | str
  texts: list[tuple[str, ...]]
  gold: list[str | None]
  group: list[str | None]
  at_hand: list[str | None]
  worker_group: dict[str, str] = dataclasses.field(default_factory=dict)
  is_long: bool = True
  is_left: np.ndarray | None = None


def read_answers(columns: Columns, naming: Naming) -> Answers:
  """Reads whichever layout the columns have.

  Raises:
    DataError: names file, line, field and remedy.
    ValueError: a name that the layout does not use.
  """
  if naming.pair and len(naming.pair) != 2:
    raise ValueError(f'pair={naming.pair} must name two columns')
  if naming.votes:
    return _wide(columns, naming)
  for wanted, layout in ((COMPARISONS, _comparisons), (LONG, _long)):
    if _holds(columns, naming, wanted):
      _refuse_of_tasks(naming)
      return layout(columns, naming)
  if naming.label:
    return _wide(columns, naming)
  raise DataError(
    f'is no table of labels (its columns are {sorted(columns.values)})',
    f'Give columns {", ".join(LONG)} or {", ".join(COMPARISONS)}, or name the '
    'columns that hold votes or a label (pairs with chosen and rejected are '
    'read from JSONL or Parquet)',
    columns.path,
  )


def _refuse_of_tasks(naming: Naming) -> None:
  """Raises for names that mean something only where a row is a task."""
  for name in ('annotator', 'confidence'):
    if getattr(naming, name):
      raise ValueError(
        f'{name}={getattr(naming, name)!r}: not used where a row is a vote'
      )


def _holds(columns: Columns, naming: Naming, wanted: Sequence[str]) -> bool:
  return {column_of(naming, name) for name in wanted} <= set(columns.values)


def column_of(naming: Naming, name: str) -> str:
  """The file's name of a column that needs no flag where it has ours."""
  return getattr(naming, name) or name


def _wide(columns: Columns, naming: Naming) -> Answers:
  size, width = len(columns), len(naming.votes)
  rows = np.arange(size)
  names = [as_name(v) for v in columns.values.get('task', ())]
  if None in names or len(set(names)) < size:
    names = [str(line) for line in columns.lines]
  labels = [
    label_answers.cells(columns, name, naming.ties) for name in naming.votes
  ]
  no_cells = [None] * size

  def named(column: str, ties: Sequence[str] = ()) -> list[str | None]:
    if not column:
      return no_cells
    return label_answers.cells(columns, column, ties)

  return Answers(
    tasks=tuple(names),
    place=rows,
    task=np.tile(rows, width),
    worker=[name for name in naming.votes for _ in rows],
    label=[label for column in labels for label in column],
    row=np.tile(rows, width),
    field=[name for name in naming.votes for _ in rows],
    texts=_texts(columns, naming, rows),
    gold=named(naming.gold, naming.ties),
    group=named(naming.group),
    at_hand=named(naming.label, naming.ties),
    is_long=False,
  )


def _long(columns: Columns, naming: Naming) -> Answers:
  task, tasks = label_answers.ids_of(_filled(columns, naming.task))
  workers = _filled(columns, naming.worker)
  _, place = np.unique(task, return_index=True)
  label = column_of(naming, 'label')
  if not naming.text and not naming.pair and 'text' in columns.values:
    naming = dataclasses.replace(naming, text=('text',))
  return Answers(
    tasks=tasks,
    place=place,
    task=task,
    worker=workers,
    label=label_answers.cells(columns, label, naming.ties),
    row=np.arange(len(columns)),
    field=label,
    texts=_texts(columns, naming, place),
    gold=_of_tasks(columns, naming, 'gold', task, len(tasks)),
    group=_of_tasks(columns, naming, 'group', task, len(tasks)),
    at_hand=[None] * len(tasks),
    worker_group=_worker_groups(columns, workers),
  )


def _comparisons(columns: Columns, naming: Naming) -> Answers:
  if naming.classes:
    raise ValueError(
      f'classes={naming.classes}: a comparison names its left or right'
    )
  left, right = (_filled(columns, n) for n in (naming.left, naming.right))
  workers = _filled(columns, naming.worker)
  prompts = _joined(columns, naming.text, range(len(columns)))
  # The two come in either order; sorted, a pair is one task.
  is_left = np.array([a <= b for a, b in zip(left, right, strict=True)])
  task, tasks = label_answers.ids_of(
    ' | '.join([*filter(None, [prompt]), *sorted((a, b))])
    for prompt, a, b in zip(prompts, left, right, strict=True)
  )
  _, place = np.unique(task, return_index=True)

  def sided(names: Sequence[str | None]) -> list[str | None]:
    """`first` and `second` for the names of the two."""
    answers = []
    for name, a, b, first in zip(names, left, right, is_left, strict=True):
      side = {a: 0, 'left': 0, b: 1, 'right': 1}.get(name)
      answers.append(
        SIDES[side if first else 1 - side] if side is not None else name
      )
    return answers

  label, gold = column_of(naming, 'label'), column_of(naming, 'gold')
  golds: list[str | None] = [None] * len(tasks)
  if naming.gold or gold in columns.values:
    cells = sided(label_answers.cells(columns, gold, naming.ties))
    golds = label_answers.per_task(cells, task, len(tasks), columns, gold)
  sides = zip(*(columns.get(n) for n in naming.pair), strict=True)
  texts = list(sides) if naming.pair else list(zip(left, right, strict=True))
  return Answers(
    tasks=tasks,
    place=place,
    task=task,
    worker=workers,
    label=sided(label_answers.cells(columns, label, naming.ties)),
    row=np.arange(len(columns)),
    field=label,
    texts=[
      (prompts[row], *map(_text, texts[row][:: 1 if is_left[row] else -1]))
      for row in place
    ],
    gold=golds,
    group=_of_tasks(columns, naming, 'group', task, len(tasks)),
    at_hand=[None] * len(tasks),
    worker_group=_worker_groups(columns, workers),
    is_left=np.where(is_left, 1, -1),
  )


def _worker_groups(columns: Columns, workers: Sequence[str]) -> dict[str, str]:
  """worker -> what it belongs to; the column `worker_group` is optional.

  Raises:
    DataError: a worker of two groups.
  """
  field = 'worker_group'
  if field not in columns.values:
    return {}
  ids, names = label_answers.ids_of(workers)
  cells = label_answers.cells(columns, field)
  groups = label_answers.per_task(
    cells, ids, len(names), columns, field, 'worker'
  )
  return {
    name: group or name for name, group in zip(names, groups, strict=True)
  }


def _of_tasks(
  columns: Columns,
  naming: Naming,
  name: str,
  task: np.ndarray,
  num_tasks: int,
) -> list[str | None]:
  """A column that says the same on all rows of a task; optional."""
  column = column_of(naming, name)
  if not getattr(naming, name) and column not in columns.values:
    return [None] * num_tasks
  values = label_answers.cells(columns, column, naming.ties)
  return label_answers.per_task(values, task, num_tasks, columns, column)


def _filled(columns: Columns, name: str) -> list[str]:
  """A column in which every row says something."""
  names = label_answers.cells(columns, name)
  if None in names:
    raise DataError(
      'is empty',
      'Fill it in, or remove the row',
      columns.path,
      columns.lines[names.index(None)],
      name,
    )
  return names


def _texts(
  columns: Columns, naming: Naming, rows: Iterable[int]
) -> list[tuple[str, ...]]:
  """(text,) of every row, or (prompt, first, second)."""
  prompts = _joined(columns, naming.text, rows)
  if not naming.pair:
    return [(prompt,) for prompt in prompts]
  first, second = (columns.get(name) for name in naming.pair)
  return [
    (prompt, _text(first[row]), _text(second[row]))
    for prompt, row in zip(prompts, rows, strict=True)
  ]


def _joined(
  columns: Columns, names: Sequence[str], rows: Iterable[int]
) -> list[str]:
  """Columns of text, one below the other."""
  values = [columns.get(name) for name in names]
  return [
    '\n'.join(filter(None, (_text(column[row]) for column in values)))
    for row in rows
  ]


def _text(value: object) -> str:
  return '' if value is None else str(value)

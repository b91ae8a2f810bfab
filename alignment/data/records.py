"""What one line of data says, and what is said when it cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

NUM_LINES_SHOWN = 5


class DataError(ValueError):
  """Data that cannot be used as it is: where, what, and what to do.

  Attributes:
    problem: what is wrong, with the value that is wrong.
    remedy: what the reader of the message can do about it.
    path: the file, folder or data set.
    line: 1-based line (text) or row (tables); 0 where it is the whole file.
    field: the column.
  """

  def __init__(
    self,
    problem: str,
    remedy: str,
    path: str = '',
    line: int = 0,
    field: str = '',
  ):
    super().__init__(problem, remedy, path, line, field)
    self.problem, self.remedy = problem, remedy
    self.path, self.line, self.field = path, line, field

  def __str__(self) -> str:
    where = [str(self.path)] if self.path else []
    if self.line:
      unit = 'line' if '.jsonl' in str(self.path) else 'row'
      where.append(f'{unit} {self.line}')
    if self.field:
      where.append(f'field {self.field!r}')
    return f'{", ".join(where) or "data"}: {self.problem}. {self.remedy}.'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference:
  """Two completions of one prompt, `chosen` labelled better.

  Attributes:
    prompt: text before the completion, '' where there is none.
    chosen: the completion labelled better (after noise, if there is noise).
    rejected: the completion labelled worse.
    index: ≥ 0, unique in its data set, the same however often it is read.
    group: what splits and intervals treat as one: a title, a first human turn.
    label_prob: in [0, 1], P(chosen ≻ rejected) given by the labeller.
    weight: ≥ 0, multiplicity.
    annotator_id: −1 where unknown.
    clean_label: True where `chosen` is truly better; None where unknown.
    is_flipped: True where noise swapped the two; None where unknown. Where both
      are known, `is_flipped` = not `clean_label`.
    flip_rate: in [0, 1], the probability with which noise was to swap them;
      None where unknown.
    votes: other labellers' votes on the same pair, never trained on: +1 for
      `chosen`, −1 for `rejected`, 0 for equal.
    path: where it was read.
    line: the 1-based line or row there.
  """

  prompt: str
  chosen: str
  rejected: str
  index: int
  group: str
  label_prob: float = 1.0
  weight: float = 1.0
  annotator_id: int = -1
  clean_label: bool | None = None
  is_flipped: bool | None = None
  flip_rate: float | None = None
  votes: tuple[int, ...] = ()
  path: str = dataclasses.field(default='', compare=False, repr=False)
  line: int = dataclasses.field(default=0, compare=False, repr=False)

  def completions(self) -> tuple[str, ...]:
    return self.chosen, self.rejected


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unpaired:
  """One completion of one prompt, labelled good or bad.

  Attributes:
    prompt: text before the completion, '' where there is none.
    completion: the text that is judged.
    label: True where it is labelled good.
    index, group, weight, annotator_id, clean_label, is_flipped, flip_rate,
      path, line: as in `Preference`; `clean_label` is True where it is truly
      good, so that `is_flipped` = (`label` ≠ `clean_label`).
  """

  prompt: str
  completion: str
  label: bool
  index: int
  group: str
  weight: float = 1.0
  annotator_id: int = -1
  clean_label: bool | None = None
  is_flipped: bool | None = None
  flip_rate: float | None = None
  path: str = dataclasses.field(default='', compare=False, repr=False)
  line: int = dataclasses.field(default=0, compare=False, repr=False)

  def completions(self) -> tuple[str, ...]:
    return (self.completion,)


@dataclasses.dataclass(frozen=True)
class Vote:
  """One worker's answer to "which is better?".

  Attributes:
    worker: ≥ 0, the same number for the same worker.
    value: +1 the first completion, −1 the second, 0 equal.
  """

  worker: int
  value: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class VotedPair:
  """Two completions of one prompt and everything the workers said.

  Attributes:
    prompt: what the completions answer.
    first: a completion; its place carries no meaning.
    second: the other.
    votes: every vote on the pair.
    index, group, path, line: as in `Preference`.
  """

  prompt: str
  first: str
  second: str
  votes: tuple[Vote, ...]
  index: int
  group: str
  path: str = dataclasses.field(default='', compare=False, repr=False)
  line: int = dataclasses.field(default=0, compare=False, repr=False)

  def completions(self) -> tuple[str, ...]:
    return self.first, self.second


Record = Preference | Unpaired | VotedPair


@dataclasses.dataclass
class Report:
  """What happened to the rows between a source and what was made of them.

  Attributes:
    source: what was read.
    read: rows seen.
    kept: rows that came out.
    reasons: reason -> every line (or index) it happened to.
    notes: remarks that concern the whole source.
  """

  source: str
  read: int = 0
  kept: int = 0
  reasons: dict[str, list[int]] = dataclasses.field(default_factory=dict)
  notes: list[str] = dataclasses.field(default_factory=list)

  def add(self, reason: str, where: int) -> None:
    self.reasons.setdefault(reason, []).append(where)

  def count(self, reason: str) -> int:
    return len(self.reasons.get(reason, ()))

  def lines(self) -> list[str]:
    """One line in all, one per reason with the first places, one per note."""
    lines = [f'{self.source}: {self.kept} kept of {self.read} read']
    for reason, where in sorted(self.reasons.items()):
      shown = ', '.join(str(place) for place in where[:NUM_LINES_SHOWN])
      more = ', …' if len(where) > NUM_LINES_SHOWN else ''
      lines.append(f'  {reason}: {len(where)} (at {shown}{more})')
    return lines + [f'  {note}' for note in self.notes]

  def __str__(self) -> str:
    return '\n'.join(self.lines())


def refuse_empty(records: Sequence, report: Report) -> None:
  """Raises `DataError` where every row was dropped."""
  if not records:
    raise DataError(
      f'none of its {report.read} rows can be used ({report.lines()[1:]})',
      'Look at the rows named above, or give another file',
      report.source,
    )

"""One row of named columns becomes one record, or a `DataError`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from alignment.data.records import DataError, Preference, Unpaired

# Arrays downstream are float32 and int32.
MAX_FLOAT = 3.4e38
MAX_INTEGER = 2**31 - 1
ASSISTANT_TURN = '\n\nAssistant:'
HUMAN_TURN = '\n\nHuman:'
PAIR_COLUMNS = (
  *('prompt', 'chosen', 'rejected', 'index', 'group', 'label_prob', 'weight'),
  *('annotator_id', 'clean_label', 'is_flipped', 'flip_rate', 'votes'),
)
UNPAIRED_COLUMNS = (
  *('prompt', 'completion', 'label', 'index', 'group', 'weight'),
  *('annotator_id', 'clean_label', 'is_flipped', 'flip_rate'),
)
MESSAGES = 'messages'
MESSAGES_COLUMNS = (MESSAGES, 'group', 'weight', 'annotator_id')

Row = Mapping[str, Any]
Fail = Callable[[str, str, str], DataError]
"""(field, problem, remedy) -> the error that also names file and line."""


def required_columns(names: Iterable[str]) -> tuple[str, ...]:
  """The columns every row must have, told from those of the first row.

  `{chosen, rejected}` with or without `prompt`, or `{prompt, completion,
  label}`, or else `{messages}`; every other known column is optional.
  """
  names = set(names)
  if not names & {'chosen', 'rejected', 'completion'} and MESSAGES in names:
    return (MESSAGES,)
  if 'completion' in names and not names & {'chosen', 'rejected'}:
    return 'prompt', 'completion', 'label'
  if 'prompt' in names:
    return 'prompt', 'chosen', 'rejected'
  return 'chosen', 'rejected'


def implicit_prompt(chosen: str, rejected: str) -> str:
  """The prompt that two full transcripts share.

  The longest common prefix, cut right after its last '\\n\\nAssistant:' so that
  the prompt ends with the turn that both completions answer; text without such
  a turn is cut before the last white space of the common prefix, so that no
  word is divided.

  Args:
    chosen: a full transcript.
    rejected: a full transcript.

  Returns:
    `prompt`, a prefix of both; '' where they share nothing usable.
  """
  shared = os.path.commonprefix([chosen, rejected])
  turn = shared.rfind(ASSISTANT_TURN)
  if turn >= 0:
    return shared[: turn + len(ASSISTANT_TURN)]
  whole_words = shared.rstrip()
  if whole_words == shared:
    words = shared.rsplit(None, 1)
    whole_words = words[0] if len(words) == 2 else ''
  return whole_words


def default_group(prompt: str, index: int) -> str:
  """First human turn of a transcript, else the prompt, else the row itself."""
  if prompt.startswith(HUMAN_TURN):
    prompt = prompt.split(ASSISTANT_TURN, 1)[0][len(HUMAN_TURN) :]
  return prompt.strip() or f'row {index}'


def parse_row(
  row: Row, required: Iterable[str], path: str, line: int
) -> Preference | Unpaired:
  """Checks the columns of one row and makes its record.

  Args:
    row: column name -> value as read; None counts as absent.
    required: what `required_columns` said.
    path: the source, for messages.
    line: 1-based, for messages; `line − 1` is the index unless a column
      `index` says otherwise.

  Returns:
    A `Preference`, or an `Unpaired` where `completion` is required.

  Raises:
    DataError: a missing column, a wrong type, a number out of its range.
  """

  def fail(field: str, problem: str, remedy: str) -> DataError:
    return DataError(problem, remedy, path, line, field)

  refuse_missing(row, required, fail)
  text = {
    name: text_of(row[name], name, fail) for name in required if name != 'label'
  }
  index = _integer(row, 'index', line - 1, 0, fail)
  shared = {
    'index': index,
    'weight': _number(row, 'weight', 1.0, MAX_FLOAT, fail),
    'annotator_id': _integer(row, 'annotator_id', -1, -1, fail),
    'clean_label': _flag(row, 'clean_label', fail),
    'is_flipped': _flag(row, 'is_flipped', fail),
    'flip_rate': _number(row, 'flip_rate', None, 1.0, fail),
    'path': path,
    'line': line,
  }
  if 'label' in required:
    label = _flag(row, 'label', fail)
    _agree(shared, label, fail)
    group = _group(row, text['prompt'], index, fail)
    return Unpaired(**text, label=label, group=group, **shared)
  _agree(shared, True, fail)
  if 'prompt' not in text:
    prompt = implicit_prompt(text['chosen'], text['rejected'])
    text = {name: value[len(prompt) :] for name, value in text.items()}
    text['prompt'] = prompt
  return Preference(
    **text,
    group=_group(row, text['prompt'], index, fail),
    label_prob=_number(row, 'label_prob', 1.0, 1.0, fail),
    votes=_votes(row, fail),
    **shared,
  )


def refuse_missing(row: Row, required: Iterable[str], fail: Fail) -> None:
  """Raises `DataError` where a required column is absent or null."""
  for name in required:
    if row.get(name) is None:
      raise fail(
        name,
        f'column is missing or null (the row has {sorted(row)})',
        'Give every row {prompt, chosen, rejected}, {prompt, completion, '
        'label} or {messages}, or map other names with columns={ours: theirs}',
      )


def text_of(value: Any, name: str, fail: Fail) -> str:
  """The text of a column, checked to be UTF-8."""
  if isinstance(value, bytes):
    try:
      return value.decode('utf-8')
    except UnicodeDecodeError as error:
      raise fail(name, f'not UTF-8: {error}', 'Re-encode the text') from error
  if not isinstance(value, str):
    raise fail(
      name,
      f'is {_kind(value)}, must be a string',
      'Write the column as text',
    )
  try:
    value.encode('utf-8')
  except UnicodeEncodeError as error:
    raise fail(
      name, f'not UTF-8: {error}', 'Remove the lone surrogate'
    ) from error
  return value


def fault(record: Preference | Unpaired) -> tuple[str, str] | None:
  """Why a well-formed record teaches nothing: (field, reason), or None."""
  paired = isinstance(record, Preference)
  fields = ('chosen', 'rejected') if paired else ('completion',)
  for field in fields:
    if not getattr(record, field).strip():
      return field, 'dropped, empty completion'
  if paired and record.chosen == record.rejected:
    return 'rejected', 'dropped, chosen == rejected'
  return None


def _group(row: Row, prompt: str, index: int, fail: Fail) -> str:
  if row.get('group') is None:
    return default_group(prompt, index)
  return text_of(row['group'], 'group', fail)


def _number(
  row: Row, name: str, default: float | None, upper: float, fail: Fail
) -> float | None:
  value = row.get(name)
  if value is None:
    return default
  wanted = 'in [0, 1]' if upper == 1.0 else '≥ 0'
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise fail(
      name, f'is {_kind(value)}, must be a number', 'Write a plain number'
    )
  if not 0.0 <= value <= upper:  # Also refuses NaN.
    raise fail(
      name,
      f'is {value}, must be finite and {wanted}',
      'Correct the value, or leave it out where it is unknown',
    )
  return float(value)


def _integer(row: Row, name: str, default: int, low: int, fail: Fail) -> int:
  value = row.get(name)
  if value is None:
    return default
  # Tables with gaps store whole numbers as floats.
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if (
    isinstance(value, bool)
    or not isinstance(value, int)
    or not low <= value <= MAX_INTEGER
  ):
    raise fail(
      name,
      f'is {_kind(value)}, must be a whole number in [{low}, {MAX_INTEGER}]',
      'Correct the value, or leave it out where it is unknown',
    )
  return value


def _flag(row: Row, name: str, fail: Fail) -> bool | None:
  value = row.get(name)
  if value is None:
    return None
  if not isinstance(value, (bool, int, float)) or value not in (0, 1):
    raise fail(
      name,
      f'is {_kind(value)}, must be true or false',
      'Write true, false, 1 or 0, or leave it out where it is unknown',
    )
  return bool(value)


def _votes(row: Row, fail: Fail) -> tuple[int, ...]:
  value = row.get('votes')
  if value is None:
    return ()
  if not isinstance(value, (list, tuple)) or any(
    vote not in (-1, 0, 1) for vote in value
  ):
    raise fail(
      'votes',
      f'is {_kind(value)}, must be a list of −1, 0 and 1',
      'Write +1 for chosen, −1 for rejected, 0 for equal',
    )
  return tuple(int(vote) for vote in value)


def _agree(shared: dict[str, Any], label: bool, fail: Fail) -> None:
  """Fills `is_flipped` and `clean_label` from each other, or refuses them."""
  clean, flipped = shared['clean_label'], shared['is_flipped']
  if clean is None and flipped is not None:
    shared['clean_label'] = label != flipped
  elif flipped is None and clean is not None:
    shared['is_flipped'] = label != clean
  elif clean is not None and flipped != (label != clean):
    raise fail(
      'is_flipped',
      f'is {flipped}, yet clean_label is {clean} and the label {label}',
      'Correct one of the two columns, or leave one out',
    )


def _kind(value: Any) -> str:
  return f'{value!r:.40} ({type(value).__name__})'

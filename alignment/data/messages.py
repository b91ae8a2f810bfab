"""Rows whose columns are lists of messages become rows of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from alignment.data.chat_template import Rendering
from alignment.data.parsing import (
  MESSAGES,
  Fail,
  Row,
  refuse_missing,
  text_of,
)
from alignment.data.records import DataError

ROLES = ('system', 'developer', 'user', 'assistant', 'tool')
TURNS = ('prompt', 'chosen', 'rejected', 'completion')
PER_TURN = ('prompt', 'completion', 'label')

Messages = Sequence[Mapping[str, Any]]


class Example(NamedTuple):
  """One row of text.

  Attributes:
    row: column -> value.
    required: the columns that it must have.
    fault: (field, reason) where it teaches nothing, as `parsing.fault`.
  """

  row: Row
  required: tuple[str, ...]
  fault: tuple[str, str] | None = None


def examples(
  row: Row,
  required: tuple[str, ...],
  index: int,
  rendering: Rendering,
  fail: Fail,
) -> Iterator[Example]:
  """The rows of text that one row stands for.

  - Text columns: the row itself.
  - `prompt`, `chosen`, `rejected`, or `prompt`, `completion`: lists of {role,
    content}. Without `prompt` it is what both conversations share before the
    last turn of the assistant that both have at the same place. A completion
    that begins with the messages of its prompt is read without them. Strings
    beside lists are turns: a prompt of the user, completions of the assistant.
  - `messages`: one example per turn of the assistant, whose prompt is all
    before it; they share the group, so that no split divides a conversation.

  A completion is what the template writes for the whole conversation after what
  it writes for the prompt and the opening of an assistant turn. Where the row
  has no group, it is the first turn of the user.

  A message that spells a control token of the template's tokenizer would be
  read as one and speak as the template does (`transformers` lets it), and an
  empty answer teaches nothing: such examples have a fault.

  Args:
    row: column -> value.
    required: what `parsing.required_columns` said.
    index: of the first example that comes out, where `messages` make several.
    rendering: of the template.
    fail: (field, problem, remedy) -> the error.

  Raises:
    DataError: what is no list of messages, a conversation without a turn of
      the user or the assistant where one belongs, or one that the template
      refuses.
  """
  if MESSAGES in required:
    refuse_missing(row, required, fail)
    yield from _per_turn(row, index, rendering, fail)
  elif any(isinstance(row.get(name), (list, tuple, dict)) for name in TURNS):
    yield _rendered_row(row, required, rendering, fail)
  else:
    yield Example(row, required)


def _per_turn(
  row: Row, index: int, rendering: Rendering, fail: Fail
) -> Iterator[Example]:
  messages = _messages(row[MESSAGES], MESSAGES, fail)
  turns = [i for i, m in enumerate(messages) if m['role'] == 'assistant']
  if not turns:
    raise fail(MESSAGES, 'has no turn of the assistant', 'Remove the row')
  rest = {name: row[name] for name in row if name != MESSAGES}
  for place, turn in enumerate(turns):
    prompt, answer = messages[:turn], messages[turn : turn + 1]
    texts = _texts(prompt, {MESSAGES: answer}, rendering, fail)
    made = {'prompt': texts[0], 'completion': texts[1], 'label': True}
    made |= _group(rest, messages) | {'index': index + place}
    fault = _fault({MESSAGES: prompt + answer}, answer, rendering)
    yield Example(rest | made, PER_TURN, fault)


def _rendered_row(
  row: Row, required: tuple[str, ...], rendering: Rendering, fail: Fail
) -> Example:
  refuse_missing(row, required, fail)
  names = [name for name in required if name in TURNS]
  turns = {name: _messages(row[name], name, fail) for name in names}
  prompt = turns.pop('prompt', None)
  if prompt is None:
    prompt = _shared(turns['chosen'], turns['rejected'], fail)
    turns = {name: found[len(prompt) :] for name, found in turns.items()}
  for name, found in turns.items():
    if prompt and found[: len(prompt)] == prompt:
      turns[name] = found[len(prompt) :]
  prompt_text, *texts = _texts(prompt, turns, rendering, fail)
  made = {'prompt': prompt_text, **dict(zip(turns, texts, strict=True))}
  made |= _group(row, prompt)
  fault = _fault({'prompt': prompt}, (), rendering)
  for name, found in turns.items():
    fault = fault or _fault({name: found}, found, rendering)
  wanted = ('prompt', *(name for name in required if name != 'prompt'))
  return Example({**row, **made}, wanted, fault)


def _messages(value: Any, field: str, fail: Fail) -> list[dict[str, Any]]:
  """Checked messages; a string is one turn of whoever the column speaks for."""
  if isinstance(value, (str, bytes)) and field != MESSAGES:
    role = 'user' if field == 'prompt' else 'assistant'
    return [{'role': role, 'content': text_of(value, field, fail)}]
  remedy = "Write a list of {'role': …, 'content': …}"
  if isinstance(value, dict):
    value = _transposed(value, field, fail, remedy)
  if not isinstance(value, (list, tuple)) or not value:
    raise fail(field, f'is {value!r:.40}, must be a list of messages', remedy)
  found = []
  for place, message in enumerate(value):
    if not isinstance(message, dict) or not {'role', 'content'} <= set(message):
      raise fail(
        f'{field}[{place}]',
        f'is {message!r:.60}, must hold role and content',
        remedy,
      )
    # As `transformers`, everything else in a message is for the template.
    message = dict(message)
    for name in ('role', 'content'):
      message[name] = text_of(message[name], f'{field}[{place}].{name}', fail)
    if message['role'] not in ROLES:
      raise fail(
        f'{field}[{place}].role',
        f'is {message["role"]!r:.40}, must be one of {ROLES}',
        'Rename the role',
      )
    found.append(message)
  return found


def _transposed(
  value: dict[str, Any], field: str, fail: Fail, remedy: str
) -> list[dict[str, Any]]:
  """Messages from one list per key, as TFDS gives sequences of features."""
  columns = list(value.values())
  if not all(isinstance(column, list) for column in columns) or (
    len({len(column) for column in columns}) != 1
  ):
    raise fail(field, f'is {value!r:.40}, must be a list of messages', remedy)
  return [
    dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)
  ]


def _shared(chosen: Messages, rejected: Messages, fail: Fail) -> list[Any]:
  """What both begin with, before a turn of the assistant in each."""
  same, last = 0, -1
  for first, second in zip(chosen, rejected, strict=False):
    if first['role'] == second['role'] == 'assistant':
      last = same
    if first != second:
      break
    same += 1
  if last < 0:
    raise fail(
      'chosen',
      'and rejected share no turns before one of the assistant',
      'Write the turns before the two answers as a column prompt',
    )
  return list(chosen[:last])


def _texts(
  prompt: Messages,
  completions: Mapping[str, Messages],
  rendering: Rendering,
  fail: Fail,
) -> list[str]:
  """The text of the prompt, and what each completion adds to it."""
  first = next(iter(completions))
  if not prompt:
    raise fail(
      'prompt' if first != MESSAGES else MESSAGES,
      'has nothing before the answer of the assistant',
      'Begin with a turn of the user',
    )
  for name, turns in completions.items():
    if not turns or turns[0]['role'] != 'assistant':
      raise fail(
        name,
        'does not begin with a turn of the assistant after the prompt',
        'End the prompt with the turn that is answered',
      )
  asked = [(prompt, True)]
  asked += [([*prompt, *turns], False) for turns in completions.values()]
  try:
    prompt_text, *whole = rendering.texts(asked)
  except DataError as error:
    raise fail(
      first, f'{error.problem} ({error.path})', error.remedy
    ) from error
  for name, text in zip(completions, whole, strict=True):
    if not text.startswith(prompt_text):
      raise fail(
        name,
        'the chat template does not begin the conversation with what it writes '
        'for the prompt',
        'Give a template that leaves earlier turns as they are, or columns of '
        'text',
      )
  return [prompt_text, *(text[len(prompt_text) :] for text in whole)]


def _group(row: Row, messages: Messages) -> dict[str, str]:
  if row.get('group') is not None:
    return {}
  asked = (m['content'].strip() for m in messages if m['role'] == 'user')
  found = next(asked, '')
  return {'group': found} if found else {}


def _fault(
  turns: Mapping[str, Messages], answers: Messages, rendering: Rendering
) -> tuple[str, str] | None:
  ((field, messages),) = turns.items()
  if any(rendering.template.control_token(m['content']) for m in messages):
    return field, 'dropped, control token in a message'
  if answers and not answers[0]['content'].strip():
    return field, 'dropped, empty completion'
  return None

"""Lists of messages become text by a template, in a process of its own."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.util
import json
import os
import pathlib
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.data.records import DataError

MAX_TEMPLATE = 2**17
"""Characters; the longest of known models have some 2**14."""
MAX_TEXT = 2**22
"""Characters of one rendered conversation."""
MAX_REPLY = 2**27
"""Bytes that a process may answer at once."""
MAX_MEMORY = 2**30
"""Bytes of address space of the process."""
MAX_SECONDS = 10
"""Processor time for a template, and for each request, in whole seconds."""
MAX_WAIT = 120.0
"""Seconds until an answer, however busy the machine is."""
DATE = datetime.date(2024, 7, 26)
"""What `strftime_now` formats: the date that Llama 3's template falls back to.
Texts that changed from day to day would never be the same data again."""

PLAIN = (
  "{% set names = {'system': 'System', 'developer': 'System', 'user': 'Human', "
  "'assistant': 'Assistant', 'tool': 'Tool'} %}"
  '{% for message in messages %}'
  "{{ '\\n\\n' + names[message['role']] + ': ' + message['content'] }}"
  '{% endfor %}'
  "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""Turns as in the transcripts of hh-rlhf."""

Conversation = tuple[Sequence[Mapping[str, Any]], bool]
"""(messages, whether the opening of an assistant turn follows them)."""


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """A template of conversations, in Jinja as `transformers` understands it.

  Attributes:
    source: of the template.
    tokens: its variables `bos_token`, `eos_token`, ….
    special: texts that a tokenizer reads as control tokens; a message that
      holds one would speak as the template does.
    place: where it is from, for messages and reports.
    date: what `strftime_now` formats.
  """

  source: str = PLAIN
  tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
  special: tuple[str, ...] = ()
  place: str = 'plain Human/Assistant turns'
  date: datetime.date = DATE

  def __post_init__(self):
    if len(self.source) > MAX_TEMPLATE:
      raise DataError(
        f'the chat template has {len(self.source)} characters, at most '
        f'{MAX_TEMPLATE} are read',
        'Give a shorter one',
        self.place,
      )

  def rendering(self) -> Rendering:
    """A process for a data set: `with template.rendering() as rendering`."""
    return Rendering(self)

  def render(
    self,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
  ) -> str:
    """The text of one conversation; `rendering` is faster for many.

    Args:
      messages: dictionaries with `role` and `content`.
      add_generation_prompt: ends with the opening of an assistant turn.

    Raises:
      DataError: a template that is no Jinja, a conversation that it refuses,
        or one that needs more time, memory or characters than are allowed.
    """
    with self.rendering() as rendering:
      return rendering.texts([(messages, add_generation_prompt)])[0]

  def control_token(self, text: str) -> str | None:
    """The first control token that the text spells, or None."""
    found = self._control.search(text)
    return found and found.group()

  @functools.cached_property
  def _control(self) -> re.Pattern:
    longest_first = sorted(self.special, key=len, reverse=True)
    # Nothing matches (?!).
    return re.compile('|'.join(map(re.escape, longest_first)) or '(?!)')


class Rendering:
  """A process that renders by one template; started by the first request.

  Messages cross as JSON, so a template never holds an object of this process.
  """

  def __init__(self, template: ChatTemplate):
    self.template = template
    self._process: subprocess.Popen | None = None

  @property
  def used(self) -> bool:
    """Whether anything was rendered."""
    return self._process is not None

  def __enter__(self) -> Rendering:
    return self

  def __exit__(self, *_) -> None:
    if self._process is not None:
      self._process.kill()
      # Closes the pipes and waits.
      self._process.communicate()

  def texts(self, conversations: Sequence[Conversation]) -> list[str]:
    """One text per conversation.

    Raises:
      DataError: as `ChatTemplate.render`.
    """
    if self._process is None:
      self._start()
    try:
      request = json.dumps(conversations)
    except (TypeError, ValueError) as error:
      raise DataError(
        f'a message cannot be written as JSON ({error})',
        'Keep to strings, numbers, lists and dictionaries in messages',
      ) from error
    reply = self._checked(
      self._asked(request), 'Correct the messages, or give another template'
    )
    return reply['texts']

  def _start(self) -> None:
    worker = pathlib.Path(__file__).with_name('template_worker.py')
    folders = {
      str(pathlib.Path(importlib.util.find_spec(name).origin).parents[1])
      for name in ('jinja2', 'markupsafe')
    }
    # Isolated: neither our environment nor our paths are the template's.
    self._process = subprocess.Popen(
      [sys.executable, '-I', str(worker), *sorted(folders)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env={},
    )
    setup = {
      'source': self.template.source,
      'tokens': dict(self.template.tokens),
      'date': self.template.date.isoformat(),
      'seconds': MAX_SECONDS,
      'bytes': MAX_MEMORY,
      'characters': MAX_TEXT,
    }
    self._checked(self._asked(json.dumps(setup)), 'Correct the template')

  def _asked(self, request: str) -> dict[str, Any]:
    """The reply; `error` in it says why there is none."""
    try:
      self._process.stdin.write(request.encode() + b'\n')
      self._process.stdin.flush()
      return json.loads(self._line())
    except (BrokenPipeError, EOFError, TimeoutError) as error:
      self._process.kill()
      code = self._process.wait()
      if code == -signal.SIGXCPU:
        return {'error': f'takes more than {MAX_SECONDS} s'}
      return {'error': f'{error} (exit status {code})'}

  def _checked(self, reply: dict[str, Any], remedy: str) -> dict[str, Any]:
    if 'error' in reply:
      raise DataError(
        f'the chat template fails: {reply["error"]}',
        remedy,
        self.template.place,
      )
    return reply

  def _line(self) -> bytes:
    """The next line of the process."""
    received, until = bytearray(), time.monotonic() + MAX_WAIT
    with selectors.DefaultSelector() as selector:
      selector.register(self._process.stdout, selectors.EVENT_READ)
      while not received.endswith(b'\n'):
        if not selector.select(until - time.monotonic()):
          raise TimeoutError(f'no answer in {MAX_WAIT:g} s')
        piece = os.read(self._process.stdout.fileno(), 2**16)
        if not piece or len(received) > MAX_REPLY:
          raise EOFError('its process ended')
        received += piece
    return bytes(received)

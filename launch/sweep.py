"""A grid of runs from one line of text, each with a folder of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re


@dataclasses.dataclass
class Point:
  """One run of the grid.

  Attributes:
    name: of its folder.
    flags: flag name -> value.
    status: what became of it.
    seconds: how long it ran this time.
  """

  name: str
  flags: dict[str, str]
  status: str = 'not started'
  seconds: float = 0.0


def grid(sweep: str) -> list[Point]:
  """Every combination of a sweep such as `loss=dpo,rdpo|ipo; seeds=5`.

  Raises:
    ValueError: an entry without a name or value, or a flag named twice.
  """
  choices: dict[str, list[str]] = {}
  for entry in filter(None, map(str.strip, sweep.split(';'))):
    name, equals, values = entry.partition('=')
    name = name.strip().removeprefix('--')
    if not equals or not name.isidentifier():
      raise ValueError(f'--sweep: {entry!r} is not flag=value|value')
    if name in choices or name == 'output_dir':
      raise ValueError(f'--sweep: {name} is given twice')
    choices[name] = [value.strip() for value in values.split('|')]
    if len(set(choices[name])) < len(choices[name]):
      raise ValueError(f'--sweep: {entry!r} repeats a value')
  return [
    Point(_folder(flags), flags)
    for values in itertools.product(*choices.values())
    for flags in [dict(zip(choices, values, strict=True))]
  ]


def _folder(flags: dict[str, str]) -> str:
  """A folder's name from flags; a digest where characters were replaced."""
  name = '_'.join(f'{k}={v}' for k, v in flags.items()) or 'run'
  plain = re.sub(r'[^\w=,.+-]', '-', name)[:120]
  if plain == name:
    return name
  return f'{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'

"""The table of losses in the README, written from the docstrings.

`python -m alignment.losses.table README.md` brings it up to date.
"""

from __future__ import annotations

import inspect
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from alignment.losses import pointwise, reward
from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
)

_BEGIN, _END = '<!-- losses:begin -->', '<!-- losses:end -->'


class Section(NamedTuple):
  """One dictionary of the table.

  Attributes:
    kind: heading of the first column.
    words: what the equations speak of, where the README's text does not say.
    functions: name -> function, its docstring read.
    cell: name -> what stands under hyperparameters.
  """

  kind: str
  words: str
  functions: Mapping[str, Callable]
  cell: Callable[[str], str]


def _defaults(keywords: Mapping[str, Any]) -> str:
  return ', '.join(f'{key}={value}' for key, value in keywords.items())


def _pointwise(functions: Mapping[str, Callable]) -> Callable[[str], str]:
  def cell(name: str) -> str:
    given = ', '.join(pointwise.needs(functions[name]))
    defaults = _defaults(pointwise.hyperparameters(functions[name]))
    return ', '.join(part for part in (given, defaults) if part)

  return cell


SECTIONS = (
  Section('loss', '', METHODS, lambda name: _defaults(hyperparameters(name))),
  Section(
    'aggregate',
    '',
    AGGREGATES,
    lambda name: _defaults(aggregate_hyperparameters(name)),
  ),
  Section(
    'reward-model loss',
    '`REWARD`: `h` is the reward of the chosen minus that of the rejected '
    'completion, `p = σ(h)`.',
    reward.REWARD,
    lambda name: _defaults(reward.hyperparameters(name)),
  ),
  Section(
    'classification loss',
    '`CLASSIFICATION`: `p = softmax(logits)` over C classes, `y` the label, '
    '`T` the transition, `T[i, j] = P(noisy = j | clean = i)`.',
    pointwise.CLASSIFICATION,
    _pointwise(pointwise.CLASSIFICATION),
  ),
  Section(
    'unpaired loss',
    '`UNPAIRED`: `u` is the log-ratio of one completion, `z = beta·u`; `good` '
    'and `bad` are what it costs if it is one or the other; `ε₊`, `ε₋` = '
    'label_smoothing_good, label_smoothing_bad, P(labelled bad given good) and '
    'P(labelled good given bad).',
    pointwise.UNPAIRED,
    _pointwise(pointwise.UNPAIRED),
  ),
)


def loss_table() -> str:
  """Markdown: one table per dictionary, one row per entry."""
  lines = []
  for section in SECTIONS:
    lines += [section.words, ''] if section.words else []
    lines += [
      f'| {section.kind} | what it is | equation | hyperparameters | source |',
      '|---|---|---|---|---|',
    ]
    for name, function in section.functions.items():
      lines.append(_row(name, function, section.cell(name)))
    lines.append('')
  return '\n'.join(lines)


def _row(name: str, function: Callable, keywords: str) -> str:
  """name | first line | indented equation | keywords | Source."""
  document = inspect.getdoc(function)
  paragraphs = document.split('\n\n')
  equation = next(
    (part for part in paragraphs if part.startswith('  ')), ''
  ).splitlines()
  source = next(
    (part for part in paragraphs if part.startswith('Source: ')), ''
  )
  cells = [
    f'`{name}`',
    paragraphs[0].rstrip('.'),
    '<br>'.join(f'`{" ".join(line.split())}`' for line in equation),
    keywords,
    ' '.join(source.removeprefix('Source: ').split()).rstrip('.'),
  ]
  return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def rewrite(path: pathlib.Path) -> None:
  """Puts the table between the marks `losses:begin` and `losses:end`.

  Raises:
    ValueError: the file lacks the marks.
  """
  text = path.read_text(encoding='utf-8')
  before, begin, rest = text.partition(_BEGIN)
  _, end, after = rest.partition(_END)
  if not end:
    raise ValueError(f'{path}: lacks the lines {_BEGIN} and {_END}')
  path.write_text(
    f'{before}{begin}\n{loss_table()}{end}{after}', encoding='utf-8'
  )


if __name__ == '__main__':
  rewrite(pathlib.Path(sys.argv[1]))

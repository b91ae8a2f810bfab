"""The table of losses in the README, written from the docstrings.

`python -m alignment.losses.table README.md` brings it up to date.
"""

from __future__ import annotations

import inspect
import pathlib
import sys
from collections.abc import Callable

from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
)

_BEGIN, _END = '<!-- losses:begin -->', '<!-- losses:end -->'


def loss_table() -> str:
  """Markdown: one row per method, then one per aggregate."""
  rows = [_row(name, METHODS[name], hyperparameters(name)) for name in METHODS]
  more = [
    _row(name, AGGREGATES[name], aggregate_hyperparameters(name))
    for name in AGGREGATES
  ]
  return '\n'.join(
    [
      '| loss | what it is | equation | hyperparameters | source |',
      '|---|---|---|---|---|',
      *rows,
      '',
      '| aggregate | what it is | equation | hyperparameters | source |',
      '|---|---|---|---|---|',
      *more,
      '',
    ]
  )


def _row(name: str, function: Callable, defaults: dict) -> str:
  """name | first line | indented equation | keyword=default | Source."""
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
    ', '.join(f'{key}={value}' for key, value in defaults.items()),
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

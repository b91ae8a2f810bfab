"""The table of losses in the README, written from the docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
)


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

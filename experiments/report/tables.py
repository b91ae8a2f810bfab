"""Numbers with their intervals, as Markdown that also reads as plain text."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

from alignment.metrics.comparison import Best, Recovery
from alignment.metrics.intervals import Estimate
from alignment.training.storage import write_text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """A Markdown table, padded so that it also reads well as plain text."""
  cells = [list(header), *[list(row) for row in rows]]
  widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

  def line(row: Sequence[str]) -> str:
    padded = (
      text.ljust(width) for text, width in zip(row, widths, strict=True)
    )
    return f'| {" | ".join(padded)} |'

  rule = f'|{"|".join("-" * (width + 2) for width in widths)}|'
  return '\n'.join([line(cells[0]), rule, *map(line, cells[1:])])


def number(value: float | None, digits: int = 3) -> str:
  """A number, or – where there is none."""
  if value is None or math.isnan(value):
    return '–'
  return f'{value:.{digits}f}'


def estimate(value: Estimate | None, *, signed: bool = False) -> str:
  """`value [low, high]`; the interval is left out where there is none."""
  if value is None:
    return '–'
  sign = '+' if signed else ''
  if value.low is None:
    return f'{value.value:{sign}.3f}'
  return (
    f'{value.value:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]'
  )


def recovered(value: Recovery | None) -> str:
  """Recovery with its interval; `undefined` where the gap covers 0."""
  if value is None:
    return '–'
  if value.estimate is None:
    return 'undefined'
  point = value.estimate
  if point.low is None:
    return f'{point.value:.2f}'
  return f'{point.value:.2f} [{point.low:.2f}, {point.high:.2f}]'


def verdict(metric: str, best: Best) -> str:
  """One sentence: what is best and what cannot be told from it."""
  if not best.differences:
    return f'{metric}: {best.name} ran alone.'
  if not best.indistinguishable:
    return f'{metric}: {best.name} is best, and distinguishable from the rest.'
  others = ', '.join(best.indistinguishable)
  return f'{metric}: {best.name} is best; not distinguishable: {others}.'


def write(path: pathlib.Path, parts: Sequence[str]) -> None:
  """Writes a Markdown file of paragraphs, atomically."""
  write_text(path, '\n\n'.join(part for part in parts if part) + '\n')

"""The report of the estimators: one row per world, size and rate."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich import progress as bars

from alignment.protocols.estimators.trials import Cell, band, is_in_band
from experiments.report import figures, tables


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, dict, int, int], None]]:
  """A bar over the cells, with the time left."""
  with bars.Progress() as bar:
    task = bar.add_task('cells', total=None)

    def on_done(key: str, _: dict, done: int, total: int) -> None:
      bar.update(task, completed=done, total=total, description=key)

    yield on_done


def write(directory: pathlib.Path, cells: Sequence[Cell]) -> dict[str, Any]:
  """Writes `report.md` and the figure; returns the numbers they rest on."""
  sound = [cell for cell in cells if cell.holds]
  broken = [cell for cell in cells if not cell.holds]
  judged = [cell for cell in sound if is_in_band(cell) is not None]
  missed = [cell for cell in judged if not is_in_band(cell)]
  parts = [
    '# Which estimator tells the flip rate, and when does it refuse?',
    f'{len(judged)} cells were judged where the assumption holds; in '
    f'{len(judged) - len(missed)} of them coverage lies in its band.',
    *[_miss(cell) for cell in missed],
    '## The assumption holds' if sound else '',
    _table(sound) if sound else '',
    '## The assumption fails' if broken else '',
    _table(broken) if broken else '',
    '## What is assumed',
    tables.table(('estimator', 'assumption'), _assumptions(cells)),
    'Coverage: share of the 95 % intervals (or identified sets) given that '
    'hold the truth; band: where it should lie. Set: intervals without a '
    'number. ½: intervals that end there. Flagged: with another remark.',
    '![coverage](figures/coverage.png)',
  ]
  tables.write(directory / 'report.md', parts)
  figures.figure(
    directory / 'figures' / 'coverage.png',
    [
      lambda ax: _coverage(ax, sound, 'the assumption holds'),
      lambda ax: _bias(ax, cells),
    ],
    title='Estimators of a flip rate: coverage and bias',
  )
  print((directory / 'report.md').read_text(encoding='utf-8'))
  return {
    'cells': [cell._asdict() for cell in cells],
    'judged': len(judged),
    'in_band': len(judged) - len(missed),
  }


def _table(cells: Sequence[Cell]) -> str:
  header = (
    'world',
    'estimator',
    'N',
    'ε',
    'trials',
    'bias',
    'RMSE',
    'coverage',
    'band',
    'width',
    'refused',
    'set',
    '½',
    'flagged',
  )
  return tables.table(header, [_cells(cell) for cell in cells])


def _cells(cell: Cell) -> tuple[str, ...]:
  verdict = is_in_band(cell)
  low, high = band(cell)
  told = '–' if verdict is None else f'{low:.2f}-{high:.2f}'
  return (
    cell.world,
    cell.estimator,
    str(cell.size),
    f'{cell.truth:g}',
    str(cell.trials),
    tables.number(cell.bias, 4),
    tables.number(cell.rmse, 4),
    tables.number(cell.coverage),
    told if verdict is not False else f'{told} MISSED',
    tables.number(cell.width),
    *(
      f'{share:.2f}'
      for share in (
        cell.refused,
        cell.set_valued,
        cell.touches_half,
        cell.flagged,
      )
    ),
  )


def _miss(cell: Cell) -> str:
  low, high = band(cell)
  return (
    f'Missed: {cell.world}, N = {cell.size}, ε = {cell.truth:g} covers '
    f'{cell.coverage:.3f}, outside {low:.2f}-{high:.2f}.'
  )


def _assumptions(cells: Sequence[Cell]) -> list[tuple[str, str]]:
  return list({cell.estimator: cell.assumption for cell in cells}.items())


def _coverage(ax, cells: Sequence[Cell], title: str) -> None:
  worlds = list(dict.fromkeys(cell.world for cell in cells))
  colour = figures.colours([str(size) for size in _sizes(cells)])
  for size in _sizes(cells):
    own = [c for c in cells if c.size == size and c.coverage is not None]
    ax.scatter(
      [c.coverage for c in own],
      [worlds.index(c.world) for c in own],
      s=14,
      color=colour[str(size)],
      label=f'N = {size}',
      alpha=0.7,
    )
  ax.axvline(0.95, color='black', linewidth=0.8)
  ax.axvspan(0.93, 0.97, alpha=0.15, color='grey')
  ax.set_yticks(range(len(worlds)), worlds, fontsize=7)
  ax.invert_yaxis()
  ax.set_xlabel('coverage of 95 % intervals')
  ax.set_title(title, fontsize=9)
  if cells:
    ax.legend(fontsize=7)


def _bias(ax, cells: Sequence[Cell]) -> None:
  largest = max(_sizes(cells))
  own = [c for c in cells if c.size == largest and c.bias is not None]
  worlds = list(dict.fromkeys(cell.world for cell in own))
  for cell in own:
    ax.errorbar(
      cell.bias,
      worlds.index(cell.world),
      xerr=np.sqrt(max(cell.rmse**2 - cell.bias**2, 0)),
      fmt='o',
      markersize=3,
      color='tab:blue' if cell.holds else 'tab:red',
      alpha=0.7,
    )
  ax.axvline(0, color='black', linewidth=0.8)
  ax.set_yticks(range(len(worlds)), worlds, fontsize=7)
  ax.invert_yaxis()
  ax.set_xlabel(f'bias ± standard deviation, N = {largest}; red: fails')


def _sizes(cells: Sequence[Cell]) -> list[int]:
  return sorted({cell.size for cell in cells})

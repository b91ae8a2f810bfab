"""The report of a bake-off: tables, figure, last line."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.comparison import Best
from alignment.metrics.intervals import covers
from alignment.protocols.standings import (
  Cell,
  Standing,
  Units,
  best_of_standings,
  select,
  standings,
)
from alignment.training.storage import write_text
from experiments.report import figures
from experiments.report.tables import (
  estimate,
  number,
  recovered,
  table,
  verdict,
)


@dataclasses.dataclass(frozen=True)
class Setup:
  """What the report says a run was.

  Attributes:
    title: one line: what was measured, on what.
    facts: sentences that a reader of the tables needs.
    flip_rates: in the order of the tables.
    metrics: keys of a cell's summary to compare, the first decides.
    units: what intervals are over.
    baseline: name of the contestant others are compared with.
    start: summary of the start, the floor, averaged over seeds.
  """

  title: str
  facts: Sequence[str]
  flip_rates: Sequence[float]
  metrics: Sequence[str]
  units: Units
  baseline: str
  start: Mapping[str, float]


def write(
  directory: pathlib.Path, setup: Setup, cells: Sequence[Cell]
) -> dict[str, Any]:
  """Writes `report.md` and the figure, prints the report, returns numbers."""
  parts = [f'# {setup.title}', *setup.facts, _floor(setup)]
  result = {}
  for rate in setup.flip_rates:
    clean = select(cells, flip_rate=rate, role='clean')
    contestants = [
      c for c in cells if c['flip_rate'] == rate and c['role'] == 'contestant'
    ]
    controls = [
      c
      for c in cells
      if c['flip_rate'] == rate and c['role'] in ('clean', 'unflipped')
    ]
    for setting, heading in _SETTINGS.items():
      lines = standings(
        contestants + controls,
        flip_rate=rate,
        setting=setting,
        metrics=(*setup.metrics, *_extra(cells)),
        units=setup.units,
        baseline=setup.baseline,
        clean=clean,
      )
      parts.append(f'## Flip rate {rate:g}: {heading}')
      parts.append(_table(lines, setup))
      result[f'{rate:g}/{setting}'] = _numbers(lines)
    parts.append(_can_rank(cells, rate, setup))
    parts.append(_cost_of_selection(cells, rate, setup))
    parts.append(_verdicts(contestants, rate, setup))
  parts.append(_leak(cells, setup))
  if _has_curves(cells):
    name = 'figures/noisy_dpo.png'
    _figure(directory / name, setup, cells)
    parts.append(f'![accuracy against steps, gold against KL]({name})')
  parts.append(_last_line(cells, setup))
  text = '\n\n'.join(part for part in parts if part) + '\n'
  write_text(directory / 'report.md', text)
  print(text)
  return result


_SETTINGS = {
  'selected': 'selected on noisy validation pairs',
  'fixed': 'fixed setting, trained to fit (no selection)',
}


def _floor(setup: Setup) -> str:
  known = ', '.join(f'{k} {v:.3f}' for k, v in setup.start.items())
  return (
    f'Start (the floor, mean over seeds): {known}. Its pairs are ranked by its '
    'own log-probabilities: its log-ratios, which the methods are ranked by, '
    f'are all 0, which is .5 in {setup.metrics[0]}.'
  )


def _extra(cells: Sequence[Cell]) -> tuple[str, ...]:
  """Metrics that stand in the table without being compared."""
  return ('kl', 'mass') if 'kl' in cells[0]['selected']['summary'] else ()


def _table(lines: Sequence[Standing], setup: Setup) -> str:
  header = ['method', 'assumed ε', *setup.metrics]
  has_kl = 'kl' in lines[0].means
  header += ['KL', 'mass'] if has_kl else []
  header += [f'Δ {metric} to {setup.baseline}' for metric in setup.metrics]
  header += [f'recovery, {metric}' for metric in setup.metrics]
  header += ['flips fitted', 'lr × step chosen']
  return table(header, [_row(line, setup, has_kl) for line in lines])


def _row(line: Standing, setup: Setup, has_kl: bool) -> list[str]:
  row = [line.name, '–' if line.assumed is None else f'{line.assumed:g}']
  row += [number(line.means[m].value) for m in setup.metrics]
  if has_kl:
    row += [number(line.means[m].value) for m in ('kl', 'mass')]
  row += [estimate(line.differences.get(m), signed=True) for m in setup.metrics]
  row += [recovered(line.recovery.get(m)) for m in setup.metrics]
  return [*row, number(line.fitted, 2), _stops(line)]


def _stops(line: Standing) -> str:
  counts = {stop: line.stops.count(stop) for stop in sorted(set(line.stops))}
  return ', '.join(
    f'{rate:g}×{step}' + (f' ({count})' if count > 1 else '')
    for (rate, step), count in counts.items()
  )


def _numbers(lines: Sequence[Standing]) -> dict[str, Any]:
  return {
    line.name: {
      'means': {k: list(v) for k, v in line.means.items()},
      'differences': {k: list(v) for k, v in line.differences.items()},
      'fitted': None if np.isnan(line.fitted) else line.fitted,
    }
    for line in lines
  }


def _can_rank(cells: Sequence[Cell], rate: float, setup: Setup) -> str:
  """Whether there is anything to win: the controls against the baseline."""
  base = select(cells, flip_rate=rate, role='contestant', name=setup.baseline)
  sentences = []
  for role, what in (
    ('clean', 'the best labels known'),
    ('unflipped', 'the unflipped pairs only'),
  ):
    control = select(cells, flip_rate=rate, role=role)
    if not control or not base:
      continue
    gaps = {
      metric: setup.units.difference(control, base, 'selected', metric)
      for metric in setup.metrics
    }
    text = ', '.join(f'{m} {estimate(g, signed=True)}' for m, g in gaps.items())
    first = gaps[setup.metrics[0]]
    if first.low is None:
      ruling = 'one seed: no interval, nothing can be ranked'
    elif first.low > 0:
      ruling = f'there is {setup.metrics[0]} to win'
    else:
      ruling = 'not above 0: **this table cannot rank losses**'
    sentences.append(
      f'{setup.baseline} on {what} minus {setup.baseline}: {text}; {ruling}.'
    )
  return '\n'.join(f'- {sentence}' for sentence in sentences)


def _cost_of_selection(cells: Sequence[Cell], rate: float, setup: Setup) -> str:
  base = select(cells, flip_rate=rate, role='contestant', name=setup.baseline)
  if not base:
    return ''
  costs = ', '.join(
    f'{m} '
    + estimate(
      setup.units.difference(base, base, 'oracle', m, 'selected'), signed=True
    )
    for m in setup.metrics
  )
  return (
    f'- What selecting {setup.baseline} on noisy instead of clean validation '
    f'labels cost (oracle minus noisy selection): {costs}.'
  )


def _verdicts(contestants: Sequence[Cell], rate: float, setup: Setup) -> str:
  return '\n'.join(
    f'- {verdict(metric, _best(contestants, rate, metric, setup))}'
    for metric in setup.metrics
  )


def _best(
  contestants: Sequence[Cell], rate: float, metric: str, setup: Setup
) -> Best:
  names = list(
    dict.fromkeys(c['name'] for c in contestants if c['flip_rate'] == rate)
  )
  return best_of_standings(
    contestants,
    flip_rate=rate,
    setting='selected',
    metric=metric,
    units=setup.units,
    among=names,
  )


def _leak(cells: Sequence[Cell], setup: Setup) -> str:
  one = select(cells, role='leak')
  other = select(cells, role='leak complement')
  if not one:
    return ''
  lines = ['## Leak check: labels at flip rate ½, and their complement']
  for metric in setup.metrics:
    a = setup.units.values(one, 'fixed', metric)
    b = setup.units.values(other, 'fixed', metric)
    groups = setup.units.groups(one, metric)
    half = setup.units.interval((a - b) / 2, groups)
    ruling = 'covers 0' if covers(half, 0) else '**does not cover 0: a leak**'
    if half.low is None:
      ruling = 'one seed, so no interval'
    drift = setup.units.interval((a + b) / 2, groups)
    lines.append(
      f'- {metric}: half the paired difference {estimate(half, signed=True)}, '
      f'{ruling}; drift (mean of the two) {estimate(drift)}.'
    )
  return '\n'.join([lines[0], '', *lines[1:]])


def _last_line(cells: Sequence[Cell], setup: Setup) -> str:
  rate = max(setup.flip_rates)
  contestants = [c for c in cells if c['role'] == 'contestant']
  rulings = ' '.join(
    verdict(metric, _best(contestants, rate, metric, setup))
    for metric in setup.metrics
  )
  return f'**At flip rate {rate:g}** {rulings}'


def _has_curves(cells: Sequence[Cell]) -> bool:
  return bool(cells[0]['selected']['curves'])


def _figure(path: pathlib.Path, setup: Setup, cells: Sequence[Cell]) -> None:
  rate = max(setup.flip_rates)
  here = [
    c for c in cells if c['flip_rate'] == rate and c['role'] == 'contestant'
  ]
  names = _leading(here)
  colour = figures.colours(names)
  chosen = {name: select(here, name=name) for name in names}

  def fits(ax):
    for name, rows in chosen.items():
      steps, clean, fitted = _mean_curves(rows)
      ax.plot(steps, clean, color=colour[name], label=name)
      ax.plot(steps, fitted, color=colour[name], linestyle=':')
      stop = float(np.median([r['selected']['stop']['step'] for r in rows]))
      ax.plot(stop, np.interp(stop, steps, clean), 'o', color=colour[name])
    ax.set_xlabel("step (mean over seeds, at each seed's chosen rate)")
    ax.set_ylabel('share of pairs')
    ax.set_title(
      f'solid: clean validation accuracy; dotted: flips fitted (ε = {rate:g});'
      ' dot: median stop chosen',
      fontsize=8,
    )
    ax.legend(fontsize=8)

  def trade(ax):
    for name, rows in chosen.items():
      curves = [r['selected']['curves'] for r in rows]
      kl = np.mean([c['kl'] for c in curves], axis=0)
      gold = np.mean([c['gold'] for c in curves], axis=0)
      ax.plot(kl, gold, color=colour[name], label=name)
      points = [r['selected']['summary'] for r in rows]
      ax.plot(
        np.mean([p['kl'] for p in points]),
        np.mean([p['gold'] for p in points]),
        'o',
        color=colour[name],
      )
    best = [r['selected']['curves'] for r in next(iter(chosen.values()))]
    ax.plot(
      np.mean([c['optimum_kl'] for c in best], axis=0),
      np.mean([c['optimum_gold'] for c in best], axis=0),
      'k--',
      label='π*(β), exact',
    )
    ax.set_xlabel('KL(π ‖ π_ref), nats')
    ax.set_ylabel('E[gold] (0 = start, 1 = optimum)')
    ax.set_title('gold against KL over β; dot: as trained', fontsize=8)
    ax.legend(fontsize=8)

  figures.figure(path, [fits, trade], title=setup.title)


def _leading(cells: Sequence[Cell]) -> list[str]:
  """Contestants without those that assume a wrong rate."""
  return list(
    dict.fromkeys(
      c['name']
      for c in cells
      if c['estimator'] or c['assumed'] in (None, c['flip_rate'])
    )
  )


def _mean_curves(rows: Sequence[Cell]):
  """steps, clean accuracy and fitted share, at each seed's chosen rate."""
  runs = []
  for row in rows:
    rate = row['selected']['stop']['learning_rate']
    runs.append([s for s in row['curve'] if s['learning_rate'] == rate])
  steps = np.array([stop['step'] for stop in runs[0]])
  clean = np.array([[s['clean_accuracy'] for s in run] for run in runs])
  fitted = np.array(
    [[np.nan if s['fitted'] is None else s['fitted'] for s in r] for r in runs]
  )
  return steps, clean.mean(axis=0), fitted.mean(axis=0)

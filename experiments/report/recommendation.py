"""The report of a rule that chooses losses, judged where it was not made."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.intervals import paired_difference
from alignment.protocols.noise_scenarios import ARMS, PLAIN
from alignment.protocols.recommendation import ArmRow, Recommendation
from experiments.report import figures
from experiments.report.tables import estimate, table
from experiments.report.tables import write as write_markdown


def progress() -> Callable[[str, Mapping[str, Any], int, int], None]:
  """A line at every tenth of the scenarios, with the time left."""
  begun, before = time.monotonic(), []

  def on_done(key: str, row: Mapping, done: int, total: int) -> None:
    del row
    before.append(done)
    if done == total or done % max(1, total // 10) == 0:
      left = (time.monotonic() - begun) / len(before) * (total - done)
      print(f'[{done}/{total}] {key:<50} ETA {left:.0f}s', flush=True)

  return on_done


def band_name(bands: Sequence[float], band: int) -> str:
  """The interval of estimated rates below, between or above `bands`."""
  low = f'{bands[band - 1]:g} ≤ ' if band else ''
  high = f' < {bands[band]:g}' if band < len(bands) else ''
  return f'{low}ε̂{high}'


def arms_table(rows: Sequence[ArmRow]) -> str:
  """Every loss on the judging scenarios."""
  return table(
    ['loss', 'clean accuracy', 'regret', f'Δ to {PLAIN}'],
    [
      [
        row.loss,
        estimate(row.accuracy),
        estimate(row.regret),
        estimate(row.gain, signed=True),
      ]
      for row in rows
    ],
  )


def write(
  directory: pathlib.Path,
  task: str,
  scenarios: Sequence[Mapping[str, Any]],
  found: Recommendation,
) -> dict[str, Any]:
  """Writes `report.md` and the figure, prints the report, returns numbers."""
  title = f'A rule for losses, judged on held-out noise: {task} world'
  parts = [
    f'# {title}',
    f'{len(scenarios)} scenarios, every second one to learn from, every other '
    'to judge by; losses share draws, l2 grid and noisy validation labels. '
    'Accuracy against the truth on other pairs; intervals over the judging '
    'scenarios.',
    table(
      ['observed', 'the rule says'],
      [[seen or '(anything else)', loss] for seen, loss in found.rule.items()],
    ),
    table(
      ['policy', 'regret against the best loss of each scenario'],
      [
        ['the rule', estimate(found.regret)],
        [f'always {PLAIN}', estimate(found.plain_regret)],
        ['difference', estimate(found.gain, signed=True)],
      ],
    ),
    arms_table(found.table),
    f'By noise and rate, each loss minus {PLAIN}, all scenarios; an interval '
    'that excludes 0 is marked + or −.',
    _by_noise(scenarios),
    f'**{found.reason}**',
  ]
  figures.figure(
    directory / 'figures' / 'recommendation.png',
    [_panel(scenarios)],
    title=title,
  )
  write_markdown(directory / 'report.md', parts)
  print('\n\n'.join(['', *parts]))
  print(f'\nreport and figure: {directory}')
  return {
    'rule': {str(seen): loss for seen, loss in found.rule.items()},
    'regret': list(found.regret),
    'plain_regret': list(found.plain_regret),
    'gain': list(found.gain),
    'reason': found.reason,
  }


def _gains(
  scenarios: Sequence[Mapping[str, Any]], noise: str, rate: float
) -> np.ndarray:
  """`[scenarios, arms]` accuracy minus that of plain training."""
  here = [
    s['accuracy']
    for s in scenarios
    if s['noise'] == noise and s['flip_rate'] == rate
  ]
  accuracy = np.array(here)
  return accuracy - accuracy[:, [list(ARMS).index(PLAIN)]]


def _settings(scenarios) -> list[tuple[str, float]]:
  return sorted({(s['noise'], s['flip_rate']) for s in scenarios})


def _by_noise(scenarios: Sequence[Mapping[str, Any]]) -> str:
  rows = []
  for noise, rate in _settings(scenarios):
    gains = _gains(scenarios, noise, rate)
    row = [f'{noise}, ε = {rate:g}']
    for i, arm in enumerate(ARMS):
      if arm == PLAIN:
        continue
      gap = paired_difference(gains[:, i], np.zeros(len(gains)))
      mark = ''
      if gap.low is not None and not gap.low <= 0 <= gap.high:
        mark = ' +' if gap.low > 0 else ' −'
      row.append(f'{gap.value:+.3f}{mark}')
    rows.append(row)
  return table(['scenarios', *[a for a in ARMS if a != PLAIN]], rows)


def _panel(scenarios: Sequence[Mapping[str, Any]]):
  colour = figures.colours(list(ARMS))

  def draw(ax):
    names = [f'{noise}, {rate:g}' for noise, rate in _settings(scenarios)]
    for i, arm in enumerate(ARMS):
      if arm == PLAIN:
        continue
      means = [
        _gains(scenarios, noise, rate)[:, i].mean()
        for noise, rate in _settings(scenarios)
      ]
      ax.plot(means, range(len(names)), 'o', color=colour[arm], label=arm)
    ax.axvline(0, color='k', linewidth=0.8)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.set_xlabel(f'clean accuracy minus that of {PLAIN}')
    ax.legend(fontsize=7)

  return draw

"""The report of methods on noisy labels: tables, figure, last line."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.intervals import Estimate
from alignment.protocols.noisy_labels.methods import BASELINE
from alignment.protocols.noisy_labels.standings import (
  CONTROLS,
  Standings,
  ruling,
)
from alignment.protocols.noisy_labels.trial import CLEAN, UNFLIPPED
from alignment.protocols.noisy_labels.world import World
from experiments.report import figures, tables

FIGURE = 'figures/noisy_labels.png'
Where = tuple[str, float]


@dataclasses.dataclass(frozen=True)
class Setup:
  """What the report says a run was.

  Attributes:
    title: one line.
    facts: paragraphs before the tables.
    settings: noise and flip rate, in the order of the tables.
    arms: names, the baseline first.
    floors: accuracy of the majority class, by seed.
    groups: `[B]` of the test rows where intervals are over these; None where
      they are over seeds.
    grid_ends: the smallest and largest (learning rate, stop) of the grid.
    estimator: of the transition.
  """

  title: str
  facts: Sequence[str]
  settings: Sequence[Where]
  arms: Sequence[str]
  floors: Sequence[float]
  groups: np.ndarray | None
  grid_ends: Sequence[tuple[float, int]]
  estimator: str


def floor(world: World) -> float:
  """Test accuracy of always saying the commonest class of training."""
  counts = np.bincount(world.train.label, minlength=world.num_classes)
  return float(np.mean(world.test.label == counts.argmax()))


def progress() -> Callable[[str, dict, int, int], None]:
  """One line per finished trial, with the time left."""
  begun, before = time.monotonic(), []

  def on_done(key: str, row: dict, done: int, total: int) -> None:
    before.append(done)
    left = (time.monotonic() - begun) / len(before) * (total - done)
    accuracy = '  '.join(
      f'{name} {row["arms"][name]["selected"]["accuracy"]:.3f}'
      for name in (BASELINE, *CONTROLS)
    )
    print(
      f'[{done:>{len(str(total))}}/{total}] {key:<28} {accuracy}  '
      f'ETA {left:.0f}s',
      flush=True,
    )

  return on_done


def write(
  directory: pathlib.Path, setup: Setup, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """Writes `report.md` and the figure, prints the report, returns numbers."""
  found = {
    (noise, rate): Standings(
      [r for r in rows if (r['noise'], r['flip_rate']) == (noise, rate)],
      setup.arms,
      setup.groups,
    )
    for noise, rate in setup.settings
  }
  _figure(directory / FIGURE, setup, found)
  parts = [
    f'# {setup.title}',
    *setup.facts,
    _units(setup),
    '## At a glance: accuracy minus that of cross-entropy',
    _glance(setup, found),
    _chance(found),
    f'![differences by noise, accuracy by step]({FIGURE})',
    *(part for where in found for part in _section(setup, where, found[where])),
    _last_line(found),
  ]
  tables.write(directory / 'report.md', parts)
  print('\n\n'.join(part for part in parts if part))
  return {
    f'{noise}/{rate:g}': {
      name: {
        'accuracy': list(standings.accuracy(name)),
        'difference': list(standings.difference(name)),
      }
      for name in standings.names
    }
    for (noise, rate), standings in found.items()
  }


def _units(setup: Setup) -> str:
  text = (
    'Intervals are 95 %, over seeds: they speak of new prompts, noise, starts '
    'and orders.'
  )
  if setup.groups is not None:
    text = (
      f'Intervals are 95 %, over {len(np.unique(setup.groups))} groups of test '
      'rows, each row averaged over seeds: they speak of new test texts, for '
      'this training set.'
    )
  return (
    f'{text} Differences are paired. Floor: the majority class is right on '
    f'{np.mean(setup.floors):.3f} of the test rows. Ceiling: cross-entropy '
    f'{CLEAN}.'
  )


def _glance(setup: Setup, found: Mapping[Where, Standings]) -> str:
  header = ['method', *(f'{noise} {rate:g}' for noise, rate in found)]
  lines = [
    [name, *(_mark(standings, name) for standings in found.values())]
    for name in (*setup.arms[1:], *CONTROLS)
  ]
  blind = [f'{n} {r:g}' for n, r in found if (n, r) not in _rankable(found)]
  return (
    f'{tables.table(header, lines)}\n\n▲ better, ▼ worse: the interval '
    'excludes 0; – could not be trained. Cannot rank methods, and is not '
    f'counted below: {", ".join(blind) or "none"}.'
  )


def _rankable(found: Mapping[Where, Standings]) -> dict[Where, Standings]:
  """Where sparing the baseline its wrong labels shows."""
  return {
    where: standings
    for where, standings in found.items()
    if ruling(standings.difference(UNFLIPPED)) == 'better'
  }


def _mark(standings: Standings, name: str) -> str:
  if name not in standings.names:
    return '–'
  gap = standings.difference(name)
  sign = {'better': ' ▲', 'worse': ' ▼'}.get(ruling(gap), '')
  return f'{gap.value:+.3f}{sign}'


def _chance(found: Mapping[Where, Standings]) -> str:
  """How many rulings chance alone would give, and which survive the count."""
  found = _rankable(found)
  gaps = [g for s in found.values() for g in s.contestants().values()]
  if not gaps:
    return ''
  count, rulings = len(gaps), Counter(map(ruling, gaps))
  kept = []
  for (noise, rate), standings in found.items():
    names = [
      name
      for name in standings.contestants()
      if standings.difference(name, confidence=1 - 0.05 / count).low > 0
    ]
    kept += [f'{noise} {rate:g}: {", ".join(names)}'] if names else []
  return (
    f'Of {count} intervals {rulings["better"]} lie above 0 and '
    f'{rulings["worse"]} below; if no method differed from cross-entropy about '
    f'{count * 0.025:.0f} would on either side. Better even with all {count} '
    f'comparisons counted (Bonferroni): {"; ".join(kept) or "none"}.'
  )


def _section(setup: Setup, where: Where, standings: Standings) -> list[str]:
  rows = standings.rows
  realised = np.mean([row['realised_rate'] for row in rows])
  header = ['method', 'accuracy', 'Δ to cross_entropy', 'recovery']
  header += ['last step', 'wrong labels fitted', 'lr × step chosen']
  gap = standings.difference(UNFLIPPED)
  told = {
    'better': 'there is something to win',
    'no interval': 'no interval, nothing can be ranked',
  }.get(ruling(gap), '**this table cannot rank methods**')
  remarks = [
    f'- Cross-entropy {UNFLIPPED} minus cross-entropy: '
    f'{tables.estimate(gap, signed=True)}; {told}.',
    *_cost_of_estimating(standings),
    *_refusals(standings),
    *_edges(setup, standings),
  ]
  errors = [row['estimate_error'] for row in rows if 'estimate_error' in row]
  if errors:
    remarks.append(
      f'- Estimated T ({setup.estimator}): off by {np.mean(errors):.3f} per '
      'entry, the mean over entries and seeds.'
    )
  return [
    f'## {where[0]}, {realised:.0%} of the labels wrong',
    tables.table(header, [_line(standings, name) for name in standings.names]),
    '\n'.join(remarks),
  ]


def _line(standings: Standings, name: str) -> list[str]:
  chosen = [arm['selected'] for arm in standings.of(name)]
  stops = Counter(f'{c["learning_rate"]:g}×{c["step"]}' for c in chosen)
  stop, times = stops.most_common(1)[0]
  last = np.mean([arm['last']['accuracy'] for arm in standings.of(name)])
  gap = None if name == BASELINE else standings.difference(name)
  return [
    name,
    tables.number(standings.accuracy(name).value),
    tables.estimate(gap, signed=True),
    tables.recovered(standings.recovery(name)),
    tables.number(float(last)),
    tables.number(float(np.mean([c['fitted'] for c in chosen])), 2),
    f'{stop} ({times} of {len(chosen)})',
  ]


def _cost_of_estimating(standings: Standings) -> list[str]:
  """Accuracy with the true transition minus that with the estimated one."""
  costs = []
  for name in standings.names:
    method, _, source = name.partition(', ')
    other = f'{method}, estimated T'
    if source == 'true T' and other in standings.names:
      gap = standings.difference(name, other)
      costs.append(f'{method} {tables.estimate(gap, signed=True)}')
  if not costs:
    return []
  return [
    f'- What estimating T instead of knowing it cost: {"; ".join(costs)}.'
  ]


def _refusals(standings: Standings) -> list[str]:
  reasons = {}
  for row in standings.rows:
    for name, reason in row['refused'].items():
      reasons.setdefault((name, reason), []).append(str(row['seed']))
  return [
    f'- {name}: not trained on seed {", ".join(seeds)}: {reason}.'
    for (name, reason), seeds in reasons.items()
  ]


def _edges(setup: Setup, standings: Standings) -> list[str]:
  """Arms whose choices say that the grid was too narrow for them."""
  remarks = []
  for what, end in zip(
    ('first stop of the smallest', 'last stop of the largest'),
    setup.grid_ends,
    strict=True,
  ):
    names = []
    for name in standings.names:
      chosen = [arm['selected'] for arm in standings.of(name)]
      stops = [(c['learning_rate'], c['step']) for c in chosen]
      names += [name] if 2 * stops.count(end) > len(stops) else []
    if names:
      remarks.append(
        f'- Chosen mostly at the {what} learning rate, so another grid might '
        f'serve better: {", ".join(names)}.'
      )
  return remarks


def _last_line(found: Mapping[Where, Standings]) -> str:
  """Which methods are never worse and somewhere better."""
  better, worse = Counter(), Counter()
  found = _rankable(found)
  if not found:
    return '**Nothing can be ranked.**'
  for standings in found.values():
    for name, gap in standings.contestants().items():
      better[name] += ruling(gap) == 'better'
      worse[name] += ruling(gap) == 'worse'
  safe = [
    f'{name} ({count} of {len(found)})'
    for name, count in better.most_common()
    if count and not worse[name]
  ]
  harmful = [
    f'{name} ({count})' for name, count in worse.most_common() if count
  ]
  return (
    '**Better than cross-entropy somewhere and worse nowhere: '
    f'{", ".join(safe) or "none"}. Worse somewhere: '
    f'{", ".join(harmful) or "none"}.**'
  )


def _figure(
  path: pathlib.Path, setup: Setup, found: Mapping[Where, Standings]
) -> None:
  rate = max(rate for _, rate in found)
  here = {noise: s for (noise, r), s in found.items() if r == rate}
  figures.figure(
    path,
    [
      lambda ax: _draw_gaps(ax, here, (*setup.arms[1:], UNFLIPPED), rate),
      lambda ax: _draw_curves(ax, *next(iter(here.items())), rate),
    ],
    title=setup.title,
  )


def _draw_gaps(ax, here: Mapping[str, Standings], names, rate: float) -> None:
  colour = figures.colours(list(here))
  for k, (noise, standings) in enumerate(here.items()):
    gaps: list[tuple[float, Estimate]] = [
      (-place - 0.8 * k / len(here), standings.difference(name))
      for place, name in enumerate(names)
      if name in standings.names
    ]
    heights = [y for y, _ in gaps]
    ax.plot(
      [gap.value for _, gap in gaps],
      heights,
      'o',
      markersize=3,
      color=colour[noise],
      label=noise,
    )
    for y, gap in gaps:
      if gap.low is not None:
        ax.plot([gap.low, gap.high], [y, y], color=colour[noise], linewidth=1)
  ax.axvline(0, color='k', linewidth=0.8)
  ax.set_yticks([-p - 0.3 for p in range(len(names))], names, fontsize=7)
  ax.set_xlabel('accuracy minus that of cross-entropy, 95 %')
  ax.set_title(f'{rate:g} of the labels wrong', fontsize=8)
  ax.legend(fontsize=7)


def _draw_curves(ax, noise: str, standings: Standings, rate: float) -> None:
  """The baseline, the four best arms that are told no truth, the controls."""
  free = [n for n in standings.contestants() if not n.endswith(', true T')]
  best = sorted(free, key=lambda n: -standings.accuracy(n).value)[:4]
  shown = [BASELINE, *best, *CONTROLS]
  colour = figures.colours(shown)
  for name in shown:
    curve = np.mean([arm['curve'] for arm in standings.of(name)], axis=0)
    share = (np.arange(len(curve)) + 1) / len(curve)
    ax.plot(share, curve, color=colour[name], label=name)
  ax.set_xlabel('share of the updates')
  ax.set_ylabel('accuracy on clean test labels')
  ax.set_title(
    f"{noise}, {rate:g} wrong; at each seed's chosen learning rate", fontsize=8
  )
  ax.legend(fontsize=7)

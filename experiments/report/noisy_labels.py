"""The report of methods on noisy labels: tables, figure, last line."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.comparison import Recovery, recovery
from alignment.metrics.intervals import (
  Estimate,
  clustered_mean,
  mean_interval,
  paired_difference,
)
from alignment.protocols.noisy_labels.methods import BASELINE
from alignment.protocols.noisy_labels.trial import CLEAN, UNFLIPPED
from alignment.protocols.noisy_labels.world import World
from experiments.report import figures, tables

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Setup:
  """What the report says a run was.

  Attributes:
    title: one line.
    facts: paragraphs before the tables.
    noises, flip_rates: in the order of the tables.
    arms: names, the baseline first.
    floors: accuracy of the majority class, by seed.
    groups: `[B]` of the test rows where intervals are over these; None where
      they are over seeds.
    estimator: of the transition.
  """

  title: str
  facts: Sequence[str]
  noises: Sequence[str]
  flip_rates: Sequence[float]
  arms: Sequence[str]
  floors: Sequence[float]
  groups: np.ndarray | None
  estimator: str

  @property
  def settings(self) -> list[tuple[str, float]]:
    return [(noise, rate) for noise in self.noises for rate in self.flip_rates]


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
    arms = row['arms']
    accuracy = '  '.join(
      f'{name} {arms[name]["selected"]["accuracy"]:.3f}'
      for name in (BASELINE, UNFLIPPED, CLEAN)
    )
    print(
      f'[{done:>{len(str(total))}}/{total}] {key:<32} {accuracy}  '
      f'ETA {left:.0f}s',
      flush=True,
    )

  return on_done


def write(
  directory: pathlib.Path, setup: Setup, rows: Sequence[Row]
) -> dict[str, Any]:
  """Writes `report.md` and the figure, prints the report, returns numbers."""
  found = {
    where: _differences(setup, _of(rows, where)) for where in setup.settings
  }
  figure = 'figures/noisy_labels.png'
  _figure(directory / figure, setup, rows, found)
  parts = [
    f'# {setup.title}',
    *setup.facts,
    _units(setup),
    _floor(setup),
    '## At a glance: accuracy minus that of cross-entropy',
    _glance(setup, found),
    _chance(setup, rows, found),
    f'![differences by noise, accuracy by step]({figure})',
  ]
  for where in setup.settings:
    parts += _section(setup, _of(rows, where), where, found[where])
  parts.append(_last_line(setup, rows, found))
  tables.write(directory / 'report.md', parts)
  print('\n\n'.join(part for part in parts if part))
  return {
    f'{noise}/{rate:g}': {
      name: {
        'accuracy': list(_accuracy(setup, _of(rows, (noise, rate)), name)),
        'difference': list(gap),
      }
      for name, gap in found[noise, rate].items()
    }
    for noise, rate in setup.settings
  }


def _of(rows: Sequence[Row], where: tuple[str, float]) -> list[Row]:
  return [r for r in rows if (r['noise'], r['flip_rate']) == where]


def _names(setup: Setup, rows: Sequence[Row]) -> list[str]:
  """Arms that every seed could train, then the controls."""
  trained = [n for n in setup.arms if all(n in r['arms'] for r in rows)]
  return [*trained, UNFLIPPED, CLEAN]


def _values(
  setup: Setup, rows: Sequence[Row], name: str, kind: str = 'selected'
) -> np.ndarray:
  """By seed; by test row, the mean over seeds, where units are groups."""
  arms = [row['arms'][name] for row in rows]
  if setup.groups is None or kind == 'last':
    return np.array([arm[kind]['accuracy'] for arm in arms])
  return np.mean([[c == '1' for c in arm['right']] for arm in arms], axis=0)


def _accuracy(setup: Setup, rows: Sequence[Row], name: str) -> Estimate:
  values = _values(setup, rows, name)
  if setup.groups is None:
    return mean_interval(values)
  return clustered_mean(values, setup.groups)


def _difference(
  setup: Setup,
  rows: Sequence[Row],
  name: str,
  other: str = BASELINE,
  confidence: float = 0.95,
) -> Estimate:
  mine, base = (_values(setup, rows, n) for n in (name, other))
  if setup.groups is None:
    return paired_difference(mine, base, confidence)
  return clustered_mean(mine - base, setup.groups, confidence)


def _differences(setup: Setup, rows: Sequence[Row]) -> dict[str, Estimate]:
  """name -> accuracy minus the baseline's."""
  return {
    name: _difference(setup, rows, name)
    for name in _names(setup, rows)
    if name != BASELINE
  }


def _ruling(gap: Estimate) -> str:
  if gap.low is None:
    return 'no interval'
  if gap.low > 0:
    return 'better'
  return 'worse' if gap.high < 0 else 'undecided'


def _contestants(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
  return {n: g for n, g in found.items() if n not in (UNFLIPPED, CLEAN)}


def _units(setup: Setup) -> str:
  if setup.groups is None:
    return (
      'Intervals are 95 %, over seeds: they speak of new prompts, noise, '
      'starts and orders.'
    )
  count = len(np.unique(setup.groups))
  return (
    f'Intervals are 95 %, over {count} groups of test rows, each row averaged '
    'over seeds: they speak of new test texts, for this training set.'
  )


def _floor(setup: Setup) -> str:
  return (
    f'Floor: the majority class is right on {np.mean(setup.floors):.3f} of the '
    f'test rows. Ceiling: cross-entropy {CLEAN}. Differences are paired.'
  )


def _glance(setup: Setup, found) -> str:
  header = ['method', *(f'{noise} {rate:g}' for noise, rate in setup.settings)]
  lines = []
  for name in [*setup.arms[1:], UNFLIPPED, CLEAN]:
    gaps = [found[where].get(name) for where in setup.settings]
    lines.append([name, *(_mark(gap) for gap in gaps)])
  return tables.table(header, lines) + (
    '\n\n▲ better, ▼ worse: the interval excludes 0; – could not be trained.'
  )


def _mark(gap: Estimate | None) -> str:
  if gap is None:
    return '–'
  sign = {'better': ' ▲', 'worse': ' ▼'}.get(_ruling(gap), '')
  return f'{gap.value:+.3f}{sign}'


def _chance(setup: Setup, rows: Sequence[Row], found) -> str:
  """How many rulings chance alone would give, and which survive the count."""
  gaps = [
    (where, name, gap)
    for where in setup.settings
    for name, gap in _contestants(found[where]).items()
  ]
  if not gaps or gaps[0][2].low is None:
    return 'One seed: no interval, nothing can be ranked.'
  count = len(gaps)
  rulings = [_ruling(gap) for _, _, gap in gaps]
  strict = {
    where: [
      name
      for name in _contestants(found[where])
      if _difference(
        setup, _of(rows, where), name, confidence=1 - 0.05 / count
      ).low
      > 0
    ]
    for where in setup.settings
  }
  kept = '; '.join(
    f'{noise} {rate:g}: {", ".join(names)}'
    for (noise, rate), names in strict.items()
    if names
  )
  return (
    f'Of {count} intervals {rulings.count("better")} lie above 0 and '
    f'{rulings.count("worse")} below; if no method differed from cross-entropy '
    f'about {count * 0.025:.0f} would on either side. Better even with all '
    f'{count} comparisons counted (Bonferroni): {kept or "none"}.'
  )


def _section(setup: Setup, rows: Sequence[Row], where, found) -> list[str]:
  noise, rate = where
  realised = np.mean([row['realised_rate'] for row in rows])
  lines = [
    _line(setup, rows, name, found.get(name)) for name in _names(setup, rows)
  ]
  header = ['method', 'accuracy', 'Δ to cross_entropy', 'recovery']
  header += ['last step', 'wrong labels fitted', 'lr × step chosen']
  gap = found[UNFLIPPED]
  ruling = _ruling(gap)
  text = (
    'there is something to win'
    if ruling == 'better'
    else (
      'one seed, nothing can be ranked'
      if ruling == 'no interval'
      else '**this table cannot rank methods**'
    )
  )
  remarks = [
    f'- {UNFLIPPED} minus cross-entropy: '
    f'{tables.estimate(gap, signed=True)}; {text}.',
    *_cost_of_estimating(setup, rows),
    *_refusals(rows),
  ]
  errors = [row['estimate_error'] for row in rows if 'estimate_error' in row]
  if errors:
    remarks.append(
      f'- Estimated transition ({setup.estimator}): off by '
      f'{np.mean(errors):.3f} per entry, the mean over entries and seeds.'
    )
  return [
    f'## {noise}, {realised:.0%} of the labels wrong',
    tables.table(header, lines),
    '\n'.join(remarks),
  ]


def _cost_of_estimating(setup: Setup, rows: Sequence[Row]) -> list[str]:
  """Accuracy with the true transition minus that with the estimated one."""
  names = _names(setup, rows)
  costs = []
  for name in names:
    method, _, source = name.partition(', ')
    other = f'{method}, estimated T'
    if source == 'true T' and other in names:
      gap = _difference(setup, rows, name, other)
      costs.append(f'{method} {tables.estimate(gap, signed=True)}')
  if not costs:
    return []
  return [
    f'- What estimating T instead of knowing it cost: {"; ".join(costs)}.'
  ]


def _refusals(rows: Sequence[Row]) -> list[str]:
  reasons = {}
  for row in rows:
    for name, reason in row['refused'].items():
      reasons.setdefault((name, reason), []).append(row['seed'])
  return [
    f'- {name}: not trained on seed {", ".join(map(str, seeds))}: {reason}.'
    for (name, reason), seeds in reasons.items()
  ]


def _line(setup, rows, name, gap) -> list[str]:
  arms = [row['arms'][name] for row in rows]
  fitted = [arm['selected']['fitted'] for arm in arms]
  stops = [
    f'{a["selected"]["learning_rate"]:g}×{a["selected"]["step"]}' for a in arms
  ]
  common = max(sorted(set(stops)), key=stops.count)
  return [
    name,
    tables.number(_accuracy(setup, rows, name).value),
    tables.estimate(gap, signed=True),
    tables.recovered(_recovery(setup, rows, name)),
    tables.number(float(np.mean(_values(setup, rows, name, 'last')))),
    tables.number(float(np.mean(fitted)), 2),
    f'{common} ({stops.count(common)} of {len(stops)})',
  ]


def _recovery(setup: Setup, rows: Sequence[Row], name: str) -> Recovery | None:
  if name in (BASELINE, CLEAN) or setup.groups is not None:
    return None
  return recovery(*(_values(setup, rows, n) for n in (name, BASELINE, CLEAN)))


def _last_line(setup: Setup, rows: Sequence[Row], found) -> str:
  """Which methods are never worse and somewhere better."""
  sums = {'better': {}, 'worse': {}}
  for where in setup.settings:
    for name, gap in _contestants(found[where]).items():
      ruling = _ruling(gap)
      if ruling in sums:
        sums[ruling][name] = sums[ruling].get(name, 0) + 1
  total = len(setup.settings)
  safe = [
    f'{name} ({count} of {total})'
    for name, count in sorted(sums['better'].items(), key=lambda x: -x[1])
    if name not in sums['worse']
  ]
  harmful = [f'{name} ({count})' for name, count in sums['worse'].items()]
  return (
    f'**Better than cross-entropy somewhere and worse nowhere: '
    f'{", ".join(safe) or "none"}. Worse somewhere: '
    f'{", ".join(harmful) or "none"}.**'
  )


def _figure(path: pathlib.Path, setup: Setup, rows, found) -> None:
  rate = max(setup.flip_rates)
  names = [*setup.arms[1:], UNFLIPPED]
  colour = figures.colours(setup.noises)

  def gaps(ax):
    height = 0.8 / len(setup.noises)
    for k, noise in enumerate(setup.noises):
      for place, name in enumerate(names):
        gap = found[noise, rate].get(name)
        if gap is None:
          continue
        y = -place - k * height
        label = noise if place == 0 else None
        ax.plot(gap.value, y, 'o', ms=3, color=colour[noise], label=label)
        if gap.low is not None:
          ax.plot([gap.low, gap.high], [y, y], color=colour[noise], lw=1)
    ax.axvline(0, color='k', lw=0.8)
    ax.set_yticks([-p - 0.4 for p in range(len(names))], names, fontsize=7)
    ax.set_xlabel(f'accuracy minus cross-entropy, {rate:g} wrong, 95 %')
    ax.legend(fontsize=7)

  def curves(ax):
    here = _of(rows, (setup.noises[0], rate))
    shown = _leading(setup, here)
    tint = figures.colours(shown)
    for name in shown:
      series = np.mean([row['arms'][name]['curve'] for row in here], axis=0)
      steps = (np.arange(len(series)) + 1) / len(series)
      ax.plot(steps, series, color=tint[name], label=name)
    ax.set_xlabel('share of the updates')
    ax.set_ylabel('accuracy on clean test labels')
    ax.set_title(
      f'{setup.noises[0]}, {rate:g}; rate chosen by seed', fontsize=8
    )
    ax.legend(fontsize=7)

  figures.figure(path, [gaps, curves], title=setup.title)


def _leading(setup: Setup, rows: Sequence[Row]) -> list[str]:
  """The baseline, the four best arms that are told no truth, the controls."""
  free = [
    n
    for n in _names(setup, rows)
    if n not in (BASELINE, UNFLIPPED, CLEAN) and not n.endswith(', true T')
  ]
  best = sorted(free, key=lambda n: -_accuracy(setup, rows, n).value)[:4]
  return [BASELINE, *best, UNFLIPPED, CLEAN]

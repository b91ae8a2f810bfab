"""The report of reward models: what they pick, what they say, the contrasts."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.intervals import (
  Estimate,
  clustered_mean,
  covers,
  mean_interval,
)
from alignment.protocols.records_source import Source
from alignment.protocols.reward.arms import BASELINE
from alignment.protocols.reward.ballot_world import COUNTS, OPTIMISED
from alignment.protocols.standings import Cell, Units, select
from experiments.report import figures, tables
from experiments.report.tables import estimate, number, table

_PICKED = f'gold@{OPTIMISED}'
_PUSHED = f'gold@{COUNTS[-1]}'
_ROLES = ('arm', 'unflipped', 'clean', 'oracle')


@dataclasses.dataclass(frozen=True)
class Setup:
  """What the report says a run was.

  Attributes:
    title: what was measured, on what.
    facts: sentences that a reader of the tables needs.
    flip_rates: injected, in the order of the tables.
    rows: of every seed and rate: estimate, rules, clusters, sizes, dropped.
    source: real preferences; None on the embedded task.
  """

  title: str
  facts: Sequence[str]
  flip_rates: Sequence[float]
  rows: Sequence[Mapping[str, Any]]
  source: Source | None

  @property
  def metric(self) -> str:
    """What decides."""
    return 'agreement' if self.source else _PICKED

  @property
  def units(self) -> Units:
    """Clusters of test pairs on real preferences, else seeds."""
    if not self.source:
      return Units()
    return Units({row['seed']: row['clusters'] for row in self.rows})


def leader(cells: Sequence[Cell]) -> str:
  """The best arm of one seed at one flip rate, beside the baseline."""
  here = [cell for cell in cells if cell['role'] == 'arm']
  summary = here[0]['selected']['summary']
  metric = _PICKED if _PICKED in summary else 'agreement'
  best = max(here, key=lambda c: c['selected']['summary'][metric])
  return (
    f'{metric} {BASELINE} {summary[metric]:.3f}, '
    f'{best["name"]} {best["selected"]["summary"][metric]:.3f}'
  )


def write(
  directory: pathlib.Path, setup: Setup, cells: Sequence[Cell]
) -> dict[str, Any]:
  """Writes `report.md` and the figure, prints the report, returns numbers."""
  parts = [f'# {setup.title}', *setup.facts]
  parts += _real(setup, cells) if setup.source else [_exact()]
  result = {}
  for rate in setup.flip_rates:
    here = [cell for cell in cells if cell['flip_rate'] == rate]
    parts += [f'## Flip rate {rate:g}', *_tables(here, setup)]
    parts += [_estimates(setup, rate), _verdict(here, setup)]
    contrasts = {} if setup.source else contrasts_at(here, rate)
    parts += [
      f'**{what}**: {estimate(found, signed=True)}: {ruling(found, side)}.'
      for what, (found, side) in contrasts.items()
    ]
    result[str(rate)] = {
      'arms': _numbers(here, setup),
      'contrasts': {k: list(found) for k, (found, _) in contrasts.items()},
    }
  _figure(directory / 'figures' / 'reward.png', setup, cells)
  parts.append('![rewards](figures/reward.png)')
  tables.write(directory / 'report.md', parts)
  print('\n\n'.join(part for part in parts[:-1] if part))
  print(f'written to {directory}')
  return result


def contrasts_at(
  cells: Sequence[Cell], rate: float
) -> dict[str, tuple[Estimate, int]]:
  """The contrasts of the card: sentence -> (paired difference, side named)."""
  units, base = Units(), select(cells, name=BASELINE)
  wanted = (
    ('a', f'forward@{rate:g}', _PICKED, 1),
    ('b', f'forward@{rate:g}', 'brier', -1),
    ('c', 'committee worst', 'fallen', -1),
  )
  found = {}
  for letter, name, metric, side in wanted:
    rows = select(cells, name=name)
    if rows:
      what = f'({letter}) {name} minus {BASELINE}, {metric}'
      gap = units.difference(rows, base, 'selected', metric)
      found[what] = gap, side
  return found


def ruling(found: Estimate, side: int) -> str:
  """confirmed, contradicted or undecided; one seed cannot decide."""
  if covers(found, 0):
    return 'undecided'
  return 'confirmed' if found.value * side > 0 else 'contradicted'


def _exact() -> str:
  return (
    'gold@n: exact E[gold] of best-of-n by the reward, over all completions of '
    'held-out prompts; 0 one draw (no reward at all), 1 the best completion. '
    'fallen: the highest gold over n minus gold@'
    f'{COUNTS[-1]}, what optimising too far costs. Accuracy: held-out pairs '
    'ordered as by gold reward. Brier and ECE: of σ(reward difference) against '
    'clean labels; losses that recover no scale (symmetric, gce, sce, holder, '
    'committees that penalise) promise none. Differences are paired by '
    f'seed, minus {BASELINE}, the baseline; intervals are over seeds.'
  )


def _real(setup: Setup, cells: Sequence[Cell]) -> list[str]:
  source, rows = setup.source, _by_seed(setup)
  train, validation, test = np.mean([row['sizes'] for row in rows], axis=0)
  noise = (
    'With one label per pair the noise that is there already is **not '
    'identified**; losses assume the injected rate alone.'
    if source.flip_rate is None
    else 'Labels at hand err at a rate of '
    f'{source.flip_rate:.3f} before any is injected '
    '(a lower bound where votes tell it); losses assume both together.'
  )
  return [
    'Agreement: the share of held-out labels, or votes, that the reward sides '
    'with; they are noisy themselves, so it is no accuracy. Brier and ECE: of '
    'σ(reward difference) against them, which err as the labels at hand do: a '
    'loss that undoes that noise looks overconfident here, and only injected '
    'noise counts against one that does not. Means over seeds, no intervals. '
    f'Differences are minus {BASELINE}, the baseline, by cluster of test '
    f'pairs. {noise} "Clean" means the best labels known.',
    f'Pairs of a seed, on average: {train:.0f} to train on, {validation:.0f} '
    f'to select on, {test:.0f} to test on; the parts share no cluster and no '
    'text.',
    _beside(setup, cells),
    f'What was dropped:\n\n```\n{source.report}\n'
    + '\n'.join(rows[0]['dropped'])
    + '\n```',
  ]


def _beside(setup: Setup, cells: Sequence[Cell]) -> str:
  """Rules that read no words, and whether the baseline says more than they."""
  rows, rate = _by_seed(setup), min(setup.flip_rates)
  clusters = np.concatenate([row['clusters'] for row in rows])
  length, majority = (
    [
      next(v for k, v in row['rules'].items() if k.startswith(rule))
      for row in rows
    ]
    for rule in ('length only', 'majority side')
  )
  base = select(cells, name=BASELINE, flip_rate=rate)
  more = [
    np.subtract(cell['selected']['correct'], rule)
    for cell, rule in zip(base, length, strict=True)
  ]

  def pooled(values: Sequence[np.ndarray], *, signed: bool = False) -> str:
    if len(rows) == 1:
      found = mean_interval(np.array([np.mean(values[0])]))
    else:
      found = clustered_mean(np.concatenate(values), clusters)
    return estimate(found, signed=signed)

  found = [
    ['length only', pooled(length)],
    ['majority side', pooled(majority)],
    [
      f'{BASELINE} at flip rate {rate:g} minus length only',
      pooled(more, signed=True),
    ],
  ]
  return '## Beside the arms\n\n' + table(['rule', 'agreement'], found)


def _by_seed(setup: Setup) -> list[Mapping[str, Any]]:
  """One row per seed: what does not depend on the flip rate."""
  first = setup.flip_rates[0]
  return [row for row in setup.rows if row['flip_rate'] == first]


def _names(cells: Sequence[Cell]) -> list[str]:
  """Arms in their order, then the controls."""
  of_seed: dict[int, list[Cell]] = {}
  for cell in cells:
    of_seed.setdefault(cell['seed'], []).append(cell)
  # Where an estimate was refused an arm is missing: the fullest seed leads.
  fullest = sorted(of_seed.values(), key=len, reverse=True)
  ordered = sorted(
    itertools.chain(*fullest), key=lambda cell: _ROLES.index(cell['role'])
  )
  return list(dict.fromkeys(cell['name'] for cell in ordered))


def _tables(cells: Sequence[Cell], setup: Setup) -> list[str]:
  if setup.source:
    metrics = [('agreement', True), ('brier', False), ('ece', False)]
    return [_table(cells, setup, metrics, with_l2=True)]
  picks = [('gold@4', False), (_PICKED, True), (_PUSHED, False)]
  says = [('accuracy', True), ('brier', True), ('ece', False)]
  return [
    '### What it picks',
    _table(cells, setup, [*picks, ('fallen', True)]),
    '### What it says',
    _table(cells, setup, says, with_l2=True),
  ]


def _table(
  cells: Sequence[Cell],
  setup: Setup,
  metrics: Sequence[tuple[str, bool]],
  *,
  with_l2: bool = False,
) -> str:
  """Means by arm; metrics marked True with their paired difference beside."""
  base = select(cells, name=BASELINE)
  header = ['arm']
  for metric, is_compared in metrics:
    header += [metric, *(['minus baseline'] if is_compared else [])]
  body = []
  for name in _names(cells):
    rows, line = select(cells, name=name), [name]
    if len(rows) < len(base):
      line = [f'{name} ({len(rows)} of {len(base)} seeds)']
    for metric, is_compared in metrics:
      line.append(number(_mean(rows, metric)))
      if is_compared:
        gap = _difference(rows, base, metric, setup.units)
        line.append('–' if name == BASELINE else estimate(gap, signed=True))
    body.append([*line, *([_penalties(rows)] if with_l2 else [])])
  return table([*header, *['median l2'] * with_l2], body)


def _difference(rows, base, metric: str, units: Units) -> Estimate:
  """Over the seeds that both have: an estimate may be refused in some."""
  seeds = {cell['seed'] for cell in rows}
  shared = [cell for cell in base if cell['seed'] in seeds]
  return units.difference(rows, shared, 'selected', metric)


def _mean(rows: Sequence[Cell], metric: str) -> float:
  return float(np.mean([row['selected']['summary'][metric] for row in rows]))


def _penalties(rows: Sequence[Cell]) -> str:
  if 'l2' not in rows[0]['selected']:
    return '–'
  return f'{np.median([row["selected"]["l2"] for row in rows]):g}'


def _estimates(setup: Setup, rate: float) -> str:
  """What the estimator said at this rate, over seeds."""
  found = [r['estimate'] for r in setup.rows if r['flip_rate'] == rate]
  if None in found:
    return ''
  given = [one['rate'] for one in found if one['rate'] is not None]
  refusals = [one['refusal'] for one in found if one['refusal']]
  first = found[0]
  text = f'Flip rate by `{first["estimator"]}`: '
  if given:
    text += (
      f'mean {np.mean(given):.3f}, from {min(given):.3f} to {max(given):.3f}, '
      f'in {len(given)} of {len(found)} seeds. '
    )
  if refusals:
    text += f'Refused in {len(refusals)}: {refusals[0]} '
  return f'{text}Assumes: {first["assumption"]}'


def _verdict(cells: Sequence[Cell], setup: Setup) -> str:
  """Which arms can be told from the baseline."""
  units, base = setup.units, select(cells, name=BASELINE)
  arms = _names([cell for cell in cells if cell['role'] == 'arm'])
  better, worse = [], []
  for name in arms:
    if name == BASELINE:
      continue
    gap = _difference(select(cells, name=name), base, setup.metric, units)
    if not covers(gap, 0):
      (better if gap.value > 0 else worse).append(name)
  room = _difference(select(cells, role='unflipped'), base, setup.metric, units)
  told = 'can' if room.low is not None and room.low > 0 else '**cannot**'
  return (
    f'**{setup.metric}**: better than {BASELINE}: '
    f'{", ".join(better) or "none"}; worse: {", ".join(worse) or "none"}; the '
    f'other {len(arms) - 1 - len(better) - len(worse)} cannot be told from it. '
    'Each interval is for itself: of this many, one in twenty excludes 0 by '
    f'chance. The unflipped pairs alone are worth {estimate(room, signed=True)}'
    f', so that arms {told} be ranked here.'
  )


def _numbers(cells: Sequence[Cell], setup: Setup) -> dict[str, Any]:
  """Arm -> metric -> its mean and, where it has one, the paired difference."""
  units, base = setup.units, select(cells, name=BASELINE)
  found = {}
  for name in _names(cells):
    rows = select(cells, name=name)
    found[name] = {
      metric: _mean(rows, metric) for metric in rows[0]['selected']['summary']
    }
    if name != BASELINE:
      gap = _difference(rows, base, setup.metric, units)
      found[name]['difference'] = list(gap)
  return found


def _figure(path: pathlib.Path, setup: Setup, cells: Sequence[Cell]) -> None:
  rate = max(setup.flip_rates)
  here = [cell for cell in cells if cell['flip_rate'] == rate]
  base = select(here, name=BASELINE)
  names = [n for n in _names(here) if n not in (BASELINE, 'gold reward')]

  def forest(ax):
    for place, name in enumerate(reversed(names)):
      rows = select(here, name=name)
      gap = _difference(rows, base, setup.metric, setup.units)
      if gap.low is not None:
        ax.plot([gap.low, gap.high], [place, place], color='tab:blue')
      ax.plot(gap.value, place, 'o', color='tab:blue', markersize=4)
    ax.axvline(0, color='black', linewidth=0.8)
    ax.set_yticks(range(len(names)), list(reversed(names)), fontsize=7)
    ax.set_xlabel(f'{setup.metric} minus {BASELINE}, 95 %')
    ax.set_title(f'flip rate {rate:g}', fontsize=8)

  def curves(ax):
    shown = [BASELINE, f'forward@{rate:g}', f'backward@{rate:g}', 'gce']
    shown += ['committee worst', 'strength flip', f'{BASELINE} (clean)']
    shown = [n for n in [*shown, 'gold reward'] if select(here, name=n)]
    colour = figures.colours(shown)
    for name in shown:
      of_seeds = [c['selected']['curves'] for c in select(here, name=name)]
      kl, gold = (
        np.mean([curve[key] for curve in of_seeds], axis=0)
        for key in ('kl', 'gold')
      )
      ax.plot(kl, gold, marker='.', color=colour[name], label=name)
    ax.set_xlabel('KL of best-of-n to the policy, nats')
    ax.set_ylabel('E[gold] (0 one draw, 1 the best completion)')
    ax.set_title(f'n = 1 to {COUNTS[-1]}, flip rate {rate:g}', fontsize=8)
    ax.legend(fontsize=7)

  panels = [forest] if setup.source else [curves, forest]
  figures.figure(path, panels, title=setup.title)

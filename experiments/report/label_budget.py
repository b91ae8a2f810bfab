"""The report of label budgets: one section, and one panel, per question."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.intervals import (
  Estimate,
  mean_interval,
  paired_difference,
)
from alignment.protocols.label_budget import mixes, price
from alignment.protocols.label_budget.aggregation import AGGREGATIONS
from alignment.protocols.label_budget.allocation import ALLOCATIONS
from alignment.protocols.label_budget.cells import (
  CEILING,
  FLOOR,
  Point,
  area,
  by_unit,
  select,
)
from alignment.protocols.label_budget.queries import QUERY_POLICIES
from experiments.report import figures
from experiments.report import label_budget_panels as panels
from experiments.report.label_budget_panels import (
  BASELINE,
  CONTRASTS,
  Setup,
  curve,
  mix_name,
  name_of,
  settings_of,
)
from experiments.report.tables import estimate, number, table
from experiments.report.tables import write as write_markdown


def progress() -> Callable[[str, Mapping[str, Any], int, int], None]:
  """One line per finished piece of work, with the time left."""
  begun, before = time.monotonic(), []

  def on_done(key: str, row: Mapping, done: int, total: int) -> None:
    before.append(done)
    left = (time.monotonic() - begun) / len(before) * (total - done)
    print(
      f'[{done:>{len(str(total))}}/{total}] {key:<48} '
      f'{len(row["points"]):>4} fits  ETA {left:.0f}s',
      flush=True,
    )

  return on_done


def write(
  directory: pathlib.Path, setup: Setup, points: Sequence[Point]
) -> dict[str, Any]:
  """Writes `report.md` and the figure, prints the report, returns numbers."""
  parts, result, drawn = [f'# {setup.title}', *setup.facts], {}, []
  for part, (section, panel) in SECTIONS.items():
    here = select(points, part=part)
    if here:
      paragraphs, result[part] = section(here, setup)
      parts += paragraphs
      drawn.append(panel(here, setup))
  figures.figure(
    directory / 'figures' / 'label_budget.png', drawn, title=setup.title
  )
  write_markdown(directory / 'report.md', parts)
  print('\n'.join(['', *('\n' + part for part in parts)]))
  print(f'\nreport and figure: {directory}')
  return result


def _allocations(
  points: Sequence[Point], setup: Setup
) -> tuple[list[str], dict[str, Any]]:
  rows, details, numbers, verdicts = [], [], {}, []
  for setting in sorted(
    settings_of(points, 'noise', 'rate', 'budget'),
    key=lambda s: list(s.values()),
  ):
    here, name = select(points, **setting), name_of(setting)
    arms = _arms(here, setup.metric)
    gaps = _gaps(arms)
    controls = {
      control: mean_interval(by_unit(found, setup.metric))
      for control in (FLOOR, CEILING)
      if (found := select(here, allocation=control))
    }
    numbers[name] = {
      'baseline': _json(mean_interval(arms[BASELINE])),
      'differences': {' · '.join(arm): _json(gap) for arm, gap in gaps.items()},
      'controls': {key: _json(value) for key, value in controls.items()},
    }
    rows.append(
      [name, number(controls[FLOOR].value) if FLOOR in controls else '0.500']
      + [
        estimate(mean_interval(arms[BASELINE])),
        number(controls[CEILING].value),
      ]
      + [estimate(gaps[arm], signed=True) for arm in CONTRASTS]
    )
    if setup.also:
      gold = _gaps(_arms(here, setup.also))
      rows[-1].append(estimate(gold[CONTRASTS[0]], signed=True))
    details += [f'**{name}**', _matrix(here, arms, gaps)]
    verdicts.append([_mark(gap) for gap in gaps.values()])
  header = ['setting', 'floor', 'baseline', 'ceiling']
  header += [f'Δ {allocation}, {how}' for allocation, how in CONTRASTS]
  if setup.also:
    header.append(f'{setup.also}: Δ {", ".join(CONTRASTS[0])}')
  ceiling = (
    'as many clean labels as there are votes'
    if setup.metric
    else 'all votes of all training pairs; floor: length alone'
  )
  return [
    '## Allocation: the same votes, wide or deep',
    f'{setup.what.capitalize()}; baseline: one vote each, as it is. Ceiling: '
    f'{ceiling}. Differences to the baseline are paired.',
    table(header, rows),
    _count(verdicts),
    'All arms; + and − mark those whose paired difference to the baseline '
    'excludes 0.',
    *details,
  ], numbers


def _arms(
  points: Sequence[Point], metric: str | None
) -> dict[tuple[str, str], np.ndarray]:
  """(allocation, aggregation) -> `[U]` scores."""
  return {
    (allocation, how): by_unit(found, metric)
    for allocation in ALLOCATIONS
    for how in AGGREGATIONS
    if (found := select(points, allocation=allocation, aggregation=how))
  }


def _gaps(
  arms: Mapping[tuple[str, str], np.ndarray],
) -> dict[tuple[str, str], Estimate]:
  """Every arm but the baseline -> its paired difference to it."""
  return {
    arm: paired_difference(values, arms[BASELINE])
    for arm, values in arms.items()
    if arm != BASELINE
  }


def _count(verdicts: Sequence[Sequence[str]]) -> str:
  marks = [mark for of_setting in verdicts for mark in of_setting]
  better, worse = (sum(sign in m for m in marks) for sign in '+−')
  return (
    f'**Of {len(marks)} comparisons with one vote each, {better} are better, '
    f'{worse} worse, {len(marks) - better - worse} undecided** (not corrected '
    'for their number).'
  )


def _matrix(
  points: Sequence[Point],
  arms: Mapping[tuple[str, str], np.ndarray],
  gaps: Mapping[tuple[str, str], Estimate],
) -> str:
  rows = []
  for allocation in ALLOCATIONS:
    found = select(points, allocation=allocation)
    row = [allocation]
    row += [
      f'{np.mean([p[what] for p in found]):.0f}' for what in ('votes', 'pairs')
    ]
    for how in AGGREGATIONS:
      arm = allocation, how
      text = number(float(arms[arm].mean())) if arm in arms else '–'
      rows_gap = gaps.get(arm)
      row.append(text + (_mark(rows_gap) if rows_gap else ''))
    rows.append(row)
  return table(['allocation', 'votes', 'pairs', *AGGREGATIONS], rows)


def _json(found: Estimate) -> list[float | None]:
  """value, low, high, count; None where a number is none."""
  return [None if x is None or not np.isfinite(x) else float(x) for x in found]


def _mark(gap: Estimate) -> str:
  if gap.low is None or gap.low <= 0 <= gap.high:
    return ''
  return ' +' if gap.low > 0 else ' −'


def _prices(
  points: Sequence[Point], setup: Setup
) -> tuple[list[str], dict[str, Any]]:
  rows, numbers = [], {}
  rng = np.random.default_rng(0)
  for setting in settings_of(points, 'rate') or [{}]:
    here = select(points, **setting)
    rate = setting.get('rate', setup.rate)
    clean_sizes, clean = curve(here, 'clean', setup)
    theory = {'rule': price.rule_of_thumb(rate)}
    if setup.margin is not None:
      theory['plain'] = price.plain_rate(setup.margin, rate)
      theory['forward'] = price.forward_rate(setup.margin, rate)
    measured = {}
    for loss in ('plain', 'forward'):
      sizes, noisy = curve(here, loss, setup)
      found = price.equivalents_interval(clean_sizes, clean, noisy, rng)
      measured[loss] = {
        n: _per_label(e, n, clean_sizes)
        for n, e in zip(sizes, found, strict=True)
      }
      for n, value in measured[loss].items():
        rows.append(
          [
            f'{rate:.3g}',
            loss,
            str(n),
            value.text,
            number(theory['rule']),
            number(theory.get(loss)),
          ]
        )
    numbers[f'{rate:.3g}'] = {'theory': theory} | {
      loss: {n: _json(v.ratio) for n, v in by_size.items()}
      for loss, by_size in measured.items()
    }
  clean_is = (
    'a clean label'
    if setup.metric
    else 'the majority of all votes of a pair, which errs too'
  )
  note = (
    'Theory for Bradley-Terry labels: the plain loss by the sandwich, forward '
    'by Fisher information, exact for many labels on spherical features; '
    '(1 − 2ε)² holds at margin 0.'
    if setup.margin is not None
    else '(1 − 2ε)² is for labels near even odds; clean labels here are not '
    'Bradley-Terry draws of a known margin, so there is no exact rate; where '
    'they always name the better one, what a noisy label is worth falls with N.'
  )
  return [
    '## Price: clean labels that score what one noisy label does',
    f'Clean is {clean_is}. {note} A sign < or > : beyond the end of the clean '
    'curve.',
    table(
      ['ε', 'loss', 'N', 'clean per noisy label', '(1 − 2ε)²', 'exact'], rows
    ),
  ], numbers


@dataclasses.dataclass(frozen=True)
class _Price:
  ratio: Estimate
  text: str


def _per_label(found: Estimate, n: int, sizes: Sequence[int]) -> _Price:
  """Clean labels per noisy one; open where the clean curve ends."""
  ratio = Estimate(
    found.value / n,
    None if found.low is None else found.low / n,
    None if found.high is None else found.high / n,
    found.count,
  )
  if ratio.low is None:
    return _Price(ratio, number(ratio.value))
  low = f'{ratio.low:.3f}' if found.low > sizes[0] else f'<{ratio.low:.3f}'
  high = f'{ratio.high:.3f}' if found.high < sizes[-1] else f'>{ratio.high:.3f}'
  return _Price(ratio, f'{number(ratio.value)} [{low}, {high}]')


def _queries(
  points: Sequence[Point], setup: Setup
) -> tuple[list[str], dict[str, Any]]:
  rows, numbers = [], {}
  for setting in settings_of(points, 'rate') or [{}]:
    here = select(points, **setting)
    areas = {
      policy: area(select(here, policy=policy), setup.metric)
      for policy in QUERY_POLICIES
    }
    last = max(point['votes'] for point in here)
    for policy, values in areas.items():
      end = by_unit(select(here, policy=policy, votes=last), setup.metric)
      gap = None
      if policy != 'random':
        gap = paired_difference(values, areas['random'])
      rows.append(
        [name_of(setting), policy, estimate(mean_interval(values))]
        + [estimate(gap, signed=True), estimate(mean_interval(end))]
      )
      numbers.setdefault(name_of(setting), {})[policy] = {
        'area': _json(mean_interval(values)),
        'difference': _json(gap) if gap else None,
      }
  said = [
    f'{policy} ({setting}{_mark(Estimate(*found["difference"]))})'
    for setting, policies in numbers.items()
    for policy, found in policies.items()
    if found['difference'] and _mark(Estimate(*found['difference']))
  ]
  return [
    '## Queries: which pair to ask about next',
    f'Mean {setup.what} over the course of the votes (its area), and at the '
    f'end, {last} votes.',
    table(['setting', 'policy', 'area', 'Δ to random', 'at the end'], rows),
    f'**Distinguishable from random: {", ".join(said) or "none"}.**',
  ], numbers


def _money(
  points: Sequence[Point], setup: Setup
) -> tuple[list[str], dict[str, Any]]:
  rows, numbers = [], {}
  cost_clean, cost_vote = setup.costs
  for setting in settings_of(points, 'rate'):
    here = select(points, **setting)
    curves = {}
    for share in mixes.CLEAN_SHARES:
      of_share = select(here, clean_share=share)
      amounts = sorted({point['money'] for point in of_share})
      scores = [
        by_unit(select(of_share, money=m), setup.metric) for m in amounts
      ]
      curves[mix_name(share)] = np.array(amounts), np.column_stack(scores)
    found = mixes.cheapest(setup.target, curves, np.random.default_rng(0))
    for mix, (cost, wins) in found.items():
      least = curves[mix][0][0]
      rows.append([name_of(setting), mix, _cost(cost, least), f'{wins:.2f}'])
    numbers[name_of(setting)] = {
      mix: {'cost': _json(cost), 'cheapest': wins}
      for mix, (cost, wins) in found.items()
    }
  return [
    f'## Money: the cheapest way to {setup.what} {setup.target:g}',
    f'An expert label costs {cost_clean:g}, a vote {cost_vote:g}; the last '
    'column is the share of resampled seeds in which the mix is the cheapest. '
    f'Votes are worth their money alone where one is worth more than '
    f'{cost_vote / cost_clean:.3g} clean labels.',
    table(['setting', 'mix', 'cost', 'cheapest in'], rows),
    '\n'.join(
      f'- **{setting}: cheapest is '
      f'{max(found, key=lambda mix: found[mix]["cheapest"])}.**'
      for setting, found in numbers.items()
    ),
  ], numbers


def _cost(cost: Estimate, least: float) -> str:
  """A cost with its interval; `least` is the smallest amount that was spent."""

  def text(value: float) -> str:
    if not np.isfinite(value):
      return 'not reached'
    return f'{"≤" if value <= least else ""}{value:.0f}'

  if cost.low is None:
    return text(cost.value)
  return f'{text(cost.value)} [{text(cost.low)}, {text(cost.high)}]'


SECTIONS = {
  'allocation': (_allocations, panels.allocation),
  'price': (_prices, panels.price),
  'queries': (_queries, panels.queries),
  'money': (_money, panels.money),
}

"""Times measured side by side, and whether they may be compared.

Contenders take turns within every round, so what disturbs the machine disturbs
all of them; a ratio is taken within a round, then its spread over rounds. No
verdict rests on wall times of a machine on which others were busy meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from experiments.report.tables import table

BUSY = 0.1
"""Share of the cores at work for others above which a machine is busy."""

Clock = Literal['wall', 'cpu']

Spread = tuple[float, float, float]
"""Least, median and greatest over the rounds."""


class Seconds(NamedTuple):
  """What a call took.

  Attributes:
    wall: on the clock.
    cpu: over all threads of the process that did it.
  """

  wall: float
  cpu: float


@dataclasses.dataclass(frozen=True)
class Contender:
  """Something to be timed.

  Attributes:
    call: does the work once; a JAX result is waited for. One that works in
      another process returns the `Seconds` it took there.
    amount, unit: work in a call, such as 4096 tokens; 0 for no rate.
  """

  call: Callable[[], Any]
  amount: float = 0.0
  unit: str = ''


@dataclasses.dataclass(frozen=True)
class Figure:
  """A number that the times give: a ratio, or seconds.

  Attributes:
    of: the contender whose time it is.
    over: the one whose time divides it; '' for seconds.
    times: how many calls of `of` it stands for, where they would be alike.
    least, most: what the median has to keep.
  """

  of: str
  over: str = ''
  times: int = 1
  least: float = 0.0
  most: float = float('inf')

  @property
  def name(self) -> str:
    many = f'{self.times} × ' if self.times > 1 else ''
    return f'{many}{self.of} / {self.over}' if self.over else f'{many}{self.of}'

  @property
  def asked(self) -> str:
    sides = [f'≥ {self.least:g}'] * (self.least > 0)
    sides += [f'≤ {self.most:g}'] * (self.most < float('inf'))
    return ', '.join(sides)


class Case(NamedTuple):
  """What is timed, and which figures are drawn from it.

  Attributes:
    contenders: name -> contender.
    figures: ratios and seconds to report.
    facts: sizes, what is equal and what is not: one sentence each.
  """

  contenders: Mapping[str, Contender]
  figures: Sequence[Figure]
  facts: Sequence[str] = ()


class Measured(NamedTuple):
  """Times of a case over its rounds.

  Attributes:
    wall, cpu: contender -> `[R]` seconds; CPU over all threads of the process.
    others: largest share of the cores at work for others in any second.
  """

  wall: dict[str, np.ndarray]
  cpu: dict[str, np.ndarray]
  others: float

  @property
  def is_busy(self) -> bool:
    return self.others > BUSY


def measure(
  case: Case, rounds: int, on_round: Callable[[], None] = lambda: None
) -> Measured:
  """Runs every contender once untimed, to compile, and then once per round.

  The order turns by one from round to round.

  Args:
    case: what to time.
    rounds: ≥ 1.
    on_round: called after every round, also the untimed one.
  """
  names = list(case.contenders)
  wall = {name: np.zeros(rounds) for name in names}
  cpu = {name: np.zeros(rounds) for name in names}
  others, before, elsewhere = [], _usage(), 0.0
  for turn in range(-1, rounds):
    if turn == 0:
      before, elsewhere = _usage(), 0.0
    for name in names[turn % len(names) :] + names[: turn % len(names)]:
      taken, is_elsewhere = _taken(case.contenders[name].call)
      elsewhere += taken.cpu * is_elsewhere
      if turn >= 0:
        wall[name][turn], cpu[name][turn] = taken
    on_round()
    now = _usage()
    # Ticks are too coarse for less, and one daemon's blink is not a busy core.
    is_whole = now[0] - before[0] >= 1
    if turn >= 0 and (is_whole or turn == rounds - 1 and not others):
      others.append(_others(before, now, elsewhere))
      before, elsewhere = now, 0.0
  return Measured(wall, cpu, max(others))


def figures(
  case: Case, measured: Measured, clock: Clock, *, allow_busy: bool
) -> list[dict[str, Any]]:
  """The case's figures as rows.

  Args:
    case: what was timed.
    measured: its times.
    clock: which times; `cpu` is little disturbed by others, but does not see
      waiting, nor what runs outside of this process.
    allow_busy: whether wall times of a busy machine count all the same.

  Returns:
    Of each: `name`, `asked`, `value` (least, median, greatest over rounds),
    `kept` and `remark`; `value` and `kept` are None on a busy machine, `kept`
    also where nothing is asked.
  """
  is_busy = clock == 'wall' and measured.is_busy
  counts = allow_busy or not is_busy
  remark = f'busy: {measured.others:.0%} of the cores at work for others'
  seconds = getattr(measured, clock)
  found = []
  for figure in case.figures:
    values = figure.times * seconds[figure.of]
    if figure.over:
      values = values / seconds[figure.over]
    row = judged(figure, values if counts else None)
    found.append(row | {'remark': remark * is_busy})
  return found


def judged(figure: Figure, values: np.ndarray | None) -> dict[str, Any]:
  """The row of a figure whose values over the rounds are known, or None."""
  value = None if values is None else spread(values)
  judges = value is not None and figure.asked
  return {
    'name': figure.name,
    'asked': figure.asked,
    'value': value,
    'kept': figure.least <= value[1] <= figure.most if judges else None,
    'remark': '',
  }


def contender_rows(case: Case, measured: Measured) -> list[dict[str, Any]]:
  """Of each contender: `name`, `wall` and `cpu` seconds (least, median,
  greatest), `rate` by the median wall time and its `unit`."""
  return [
    {
      'name': name,
      'wall': spread(measured.wall[name]),
      'cpu': spread(measured.cpu[name]),
      'rate': contender.amount / float(np.median(measured.wall[name])),
      'unit': contender.unit,
    }
    for name, contender in case.contenders.items()
  ]


def show(
  case: Case, measured: Measured, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Two Markdown tables: all times, and the figures."""
  times = [
    (
      row['name'],
      text(row['wall']),
      text(row['cpu']),
      f'{row["rate"]:,.0f} {row["unit"]}/s' if row['rate'] else '',
    )
    for row in contender_rows(case, measured)
  ]
  return [table(('', 'wall s', 'CPU s', 'rate'), times), figure_table(rows)]


def figure_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows of `figures` as a Markdown table."""
  verdict = {True: 'kept', False: 'NOT kept', None: ''}
  return table(
    ('', 'figure', 'asked', '', 'remark'),
    [
      (
        row['name'],
        text(row['value']) if row['value'] else '–',
        row['asked'],
        verdict[row['kept']],
        row['remark'],
      )
      for row in rows
    ],
  )


def spread(values: np.ndarray) -> Spread:
  """Least, median and greatest."""
  return tuple(map(float, np.quantile(values, (0, 0.5, 1))))


def text(spread: Spread) -> str:
  """The three numbers, to three digits; whole ones from a thousand on."""
  return ' - '.join(
    f'{value:,.0f}' if value >= 1000 else f'{value:#.3g}'.rstrip('.')
    for value in spread
  )


def _taken(call: Callable[[], Any]) -> tuple[Seconds, bool]:
  """What a call took, and whether another process did the work."""
  started = time.perf_counter(), time.process_time()
  result = call()
  if isinstance(result, Seconds):
    return result, True
  jax.block_until_ready(result)
  wall = time.perf_counter() - started[0]
  return Seconds(wall, time.process_time() - started[1]), False


def _usage() -> tuple[float, float, float]:
  """Now, seconds of all cores at work so far, and of this process."""
  stat = pathlib.Path('/proc/stat')
  if stat.exists():
    # user nice system idle iowait irq softirq steal
    ticks = list(map(int, stat.read_text().split()[1:9]))
    work = sum(ticks[:3] + ticks[5:]) / os.sysconf('SC_CLK_TCK')
  else:
    work = os.getloadavg()[0] * time.perf_counter()
  return time.perf_counter(), work, time.process_time()


def _others(
  before: tuple[float, float, float],
  after: tuple[float, float, float],
  elsewhere: float = 0.0,
) -> float:
  """Share of the cores that was at work, but not for us.

  Args:
    before, after: of `_usage`.
    elsewhere: CPU seconds of contenders in other processes.
  """
  elapsed, work, own = (b - a for a, b in zip(before, after, strict=True))
  return max(0.0, (work - own - elsewhere) / (elapsed * os.cpu_count()))

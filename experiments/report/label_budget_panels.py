"""What was measured of label budgets, and one panel per question."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from alignment.metrics.intervals import mean_interval
from alignment.protocols.label_budget import mixes
from alignment.protocols.label_budget.cells import Point, by_unit, select
from alignment.protocols.label_budget.queries import QUERY_POLICIES
from experiments.report import figures

Panel = Callable[[plt.Axes], None]
BASELINE = ('1 each', 'votes')
CONTRASTS = (
  ('5 each', 'majority'),
  ('5 each', 'forward'),
  ('3 each', 'forward'),
  ('3rd if 2 disagree', 'forward'),
  ('3 where unsure', 'forward'),
)


@dataclasses.dataclass(frozen=True)
class Setup:
  """What the report says a run was.

  Attributes:
    title: one line: what was measured, on what.
    facts: sentences that a reader of the tables needs.
    metric: the score of a point that is compared; None where scores are by
      title and titles are the units of the intervals.
    what: that score, in a word.
    also: a second score that is reported beside it; '' for none.
    margin: margins of labelled pairs whose clean judgements are Bradley-Terry,
      for the theory; None where they are not, or not known.
    rate: flip rate of recorded votes, if all err alike.
    target: the score to be reached most cheaply.
    costs: of an expert label and of a vote.
  """

  title: str
  facts: Sequence[str]
  metric: str | None
  what: str
  also: str = ''
  margin: np.ndarray | None = None
  rate: float | None = None
  target: float | None = None
  costs: tuple[float, float] | None = None


def settings_of(points: Sequence[Point], *keys: str) -> list[dict[str, Any]]:
  """The distinct values of `keys`, in the order they come."""
  seen = {tuple(p.get(key) for key in keys): None for p in points}
  return [
    {k: x for k, x in zip(keys, values, strict=True) if x is not None}
    for values in seen
  ]


def name_of(setting: Mapping[str, Any]) -> str:
  shown = {'rate': 'ε = {:g}', 'budget': '{} votes', 'noise': '{}'}
  return ', '.join(shown[k].format(x) for k, x in setting.items()) or 'recorded'


def curve(
  points: Sequence[Point], reading: str, setup: Setup
) -> tuple[list[int], np.ndarray]:
  """Sizes `[n]` and scores `[U, n]`."""
  here = select(points, reading=reading)
  sizes = sorted({point['size'] for point in here})
  columns = [by_unit(select(here, size=size), setup.metric) for size in sizes]
  return sizes, np.column_stack(columns)


def mix_name(share: float) -> str:
  return f'{share:.0%} experts, {1 - share:.0%} votes'


def allocation(points: Sequence[Point], setup: Setup):
  settings = settings_of(points, 'noise', 'rate', 'budget')
  arms = [BASELINE, *CONTRASTS]
  colour = figures.colours([' · '.join(arm) for arm in arms])

  def draw(ax):
    for arm in arms:
      name = ' · '.join(arm)
      found = [
        mean_interval(
          by_unit(
            select(points, allocation=arm[0], aggregation=arm[1], **setting),
            setup.metric,
          )
        )
        for setting in settings
      ]
      ax.plot(
        [e.value for e in found],
        range(len(settings)),
        'o',
        color=colour[name],
        label=name,
      )
    ax.set_yticks(
      range(len(settings)), [name_of(s) for s in settings], fontsize=6
    )
    ax.set_xlabel(f'held-out {setup.what}')
    ax.set_title('allocation of a budget', fontsize=9)
    ax.legend(fontsize=6)

  return draw


def price(points: Sequence[Point], setup: Setup):
  settings = settings_of(points, 'rate') or [{}]

  def draw(ax):
    for i, setting in enumerate(settings):
      here = select(points, **setting)
      sizes, scores = curve(here, 'plain', setup)
      name = f'one vote, ε = {setting.get("rate", setup.rate):.2g}'
      ax.plot(sizes, scores.mean(axis=0), 'o-', color=f'C{i}', label=name)
    sizes, scores = curve(here, 'clean', setup)
    ax.plot(sizes, scores.mean(axis=0), 'k--', label='clean')
    ax.set_xscale('log')
    ax.set_xlabel('labelled pairs')
    ax.set_ylabel(f'held-out {setup.what}')
    ax.set_title('price: learning curves, plain loss', fontsize=9)
    ax.legend(fontsize=7)

  return draw


def queries(points: Sequence[Point], setup: Setup):
  setting = (settings_of(points, 'rate') or [{}])[-1]
  here = select(points, **setting)
  colour = figures.colours(list(QUERY_POLICIES))

  def draw(ax):
    for policy in QUERY_POLICIES:
      course = select(here, policy=policy)
      votes = sorted({point['votes'] for point in course})
      means = [
        by_unit(select(course, votes=v), setup.metric).mean() for v in votes
      ]
      ax.plot(votes, means, color=colour[policy], label=policy)
    ax.set_xlabel('votes')
    ax.set_ylabel(f'held-out {setup.what}')
    ax.set_title(f'queries {name_of(setting)}', fontsize=9)
    ax.legend(fontsize=7)

  return draw


def money(points: Sequence[Point], setup: Setup):
  setting = settings_of(points, 'rate')[-1]
  here = select(points, **setting)

  def draw(ax):
    for i, share in enumerate(mixes.CLEAN_SHARES):
      of_share = select(here, clean_share=share)
      amounts = sorted({point['money'] for point in of_share})
      means = [
        by_unit(select(of_share, money=m), setup.metric).mean() for m in amounts
      ]
      ax.plot(amounts, means, 'o-', color=f'C{i}', label=mix_name(share))
    ax.axhline(setup.target, color='k', linestyle=':')
    ax.set_xscale('log')
    ax.set_xlabel('money')
    ax.set_title(f'money, {name_of(setting)}', fontsize=9)
    ax.legend(fontsize=7)

  return draw

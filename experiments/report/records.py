"""What a report says of a run on real preferences, beside its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alignment.metrics.intervals import (
  clustered_mean,
  covers,
  mean_interval,
)
from alignment.protocols.arena import Arena
from alignment.protocols.records_policies import HASHED
from alignment.protocols.records_source import Source
from alignment.protocols.standings import Cell, Units, select
from alignment.protocols.vote_gap import gap
from experiments.report.tables import estimate, number, table

METRIC = 'agreement'


def facts(
  source: Source,
  arenas: Sequence[Arena],
  cells: Sequence[Cell],
  flip_rates: Sequence[float],
  model: str,
  baseline: str,
) -> list[str]:
  """All that stands before the tables.

  Args:
    source: what was read.
    arenas: one per seed.
    cells: of all contestants, of the gap and of the hashed reference.
    flip_rates: injected.
    model: `transformer`, `hashed`, or a model folder.
    baseline: the contestant others are compared with.
  """
  return [
    gap_line(source, arenas, cells, baseline),
    'Agreement with a held-out label: the share of held-out labels that the '
    "loss's own score sides with, the mean over test pairs; a score of 0 "
    'counts ½. The labels are noisy themselves, so it is no accuracy.',
    _split(source, arenas),
    _noise(source, flip_rates),
    _unit(source, arenas),
    _beside(arenas, cells, baseline),
    _what_was_learned(arenas, cells, model, baseline),
    _dropped(source, arenas),
  ]


def units(arenas: Sequence[Arena]) -> Units:
  """Intervals over the clusters that were split."""
  return Units({a.seed: [str(c) for c in a.test.pairs.cluster] for a in arenas})


def gap_line(
  source: Source,
  arenas: Sequence[Arena],
  cells: Sequence[Cell],
  baseline: str,
) -> str:
  """What better labels are worth; empty where no better ones are known."""
  found = gap(cells, units(arenas), METRIC)
  if found is None:
    return ''
  best, at_hand = 'the best labels known', 'the labels at hand'
  if source.ceiling:
    most = max(len(pair.votes) for pair in source.records)
    best, at_hand = f'the majority of {most} votes', 'one vote per pair'
  line = (
    f'**The gap**: {baseline} trained on {best} minus {baseline} trained on '
    f'{at_hand}: agreement {estimate(found, signed=True)}. This is all that a '
    'robust loss can win on these labels as they are.'
  )
  if found.low is None:
    return f'{line} One seed: no interval, so that losses cannot be ranked.'
  if found.low > 0:
    return f'{line} It lies above 0.'
  where = 'covers 0' if covers(found, 0) else 'lies below 0'
  return f'{line} It {where}: **the data cannot rank losses**.'


def _beside(
  arenas: Sequence[Arena], cells: Sequence[Cell], baseline: str
) -> str:
  """A table of what the losses must be seen against."""
  over = units(arenas)
  groups = [c for a in arenas for c in over.clusters[a.seed]]
  rows = []

  def add(name: str, values: Sequence[np.ndarray]) -> None:
    if len(arenas) == 1:
      found = mean_interval(np.array([values[0].mean()]))
    else:
      found = clustered_mean(np.concatenate(values), np.array(groups))
    rows.append([name, estimate(found)])

  names = dict.fromkeys(name for a in arenas for name in a.rules)
  for name in names:
    # A rule may turn round between folds: pooled under its first name only
    # where every seed chose it.
    if all(name in a.rules for a in arenas):
      add(name, [a.rules[name] for a in arenas])
  lengths = [n for n in names if n.startswith('length only')]
  if len(lengths) > 1:
    add(
      'length only (longer or shorter, as training labels favour)',
      [next(a.rules[n] for n in lengths if n in a.rules) for a in arenas],
    )
  start = float(np.mean([a.floor[METRIC] for a in arenas]))
  rows.append(['start (the floor), by its own likelihood', number(start)])
  for cell in _by_rate(cells):
    found = over.mean(cell, 'selected', METRIC)
    rate = cell[0]['flip_rate']
    name = f'{baseline} on {HASHED}, same pairs, flip rate {rate:g}'
    rows.append([name, estimate(found)])
  if any((a.test.pairs.vote_count > 1).any() for a in arenas):
    share = [a.test.pairs.vote_share for a in arenas]
    add('ceiling: the answer most votes gave', [_best(s) for s in share])
  return '## Beside the losses\n\n' + table(['', METRIC], rows)


def _what_was_learned(
  arenas: Sequence[Arena], cells: Sequence[Cell], model: str, baseline: str
) -> str:
  """Whether the policy learned anything at all, and more than the length.

  Judged by the baseline at the lowest flip rate, over clusters of test pairs;
  for one seed this is about the one trained policy only.
  """
  rate = min(c['flip_rate'] for c in cells if c['role'] == 'contestant')
  rows = select(cells, role='contestant', flip_rate=rate, name=baseline)
  correct = np.concatenate([c['selected']['correct'] for c in rows])
  groups = np.concatenate([a.test.pairs.cluster for a in arenas])
  names = {'transformer': 'byte model', 'hashed': 'hashed model'}
  name = names.get(model, f'model of {model}')
  judged = (
    f'{baseline} at flip rate {rate:g}, {len(correct)} held-out pairs in '
    f'{len(set(groups))} clusters'
  )
  if covers(clustered_mean(correct, groups), 0.5):
    remedy = (
      ' A model this small, trained from scratch, cannot read text: '
      '`--model=hashed` compares the losses on a linear reward over hashed '
      'words.'
      if model == 'transformer'
      else ''
    )
    return (
      f'**The {name} learned nothing**: its agreement cannot be told from .5 '
      f'({judged}), so that its rows rank nothing.{remedy}'
    )
  length = np.concatenate(
    [
      next(v for k, v in a.rules.items() if k.startswith('length'))
      for a in arenas
    ]
  )
  more = clustered_mean(correct - length, groups)
  if more.low is not None and more.low > 0:
    beyond = 'and agrees more often than the length of the texts alone does'
  elif more.high is not None and more.high < 0:
    beyond = 'but **less than the length of the texts alone**'
  else:
    beyond = 'but cannot be told from the length of the texts alone'
  return f'The {name} learned something ({judged}) {beyond}.'


def _split(source: Source, arenas: Sequence[Arena]) -> str:
  what = source.cluster
  tested = {str(c) for a in arenas for c in a.test.pairs.cluster}
  everything = {record.group for record in source.records}
  parts = [
    [len(a.train.pairs), len(a.validation.pairs), len(a.test.pairs)]
    for a in arenas
  ]
  low, high = np.min(parts, axis=0), np.max(parts, axis=0)
  train, validation, test = [
    f'{a}' if a == b else f'{a}–{b}' for a, b in zip(low, high, strict=True)
  ]
  return (
    f'Train, validation and test share no {what} and no text; a test set is '
    f'one fold of the {what}s, and seeds rotate through the folds. Pairs of a '
    f'seed: {train} to train on, {validation} to select on, {test} to test on. '
    f'Tested: {len(tested)} of {len(everything)} {what}s.'
  )


def _noise(source: Source, flip_rates: Sequence[float]) -> str:
  if source.flip_rate is None:
    injected = ', '.join(
      f'{rate:g} + {1 - 2 * rate:g} · ε₀' for rate in flip_rates
    )
    return (
      'Noise: injected flips add to what is there. With one label per pair '
      'that natural rate ε₀ is **not identified** (a flip and a matter of '
      f'taste look the same). Effective ε: {injected}. Losses assume ε₀ = 0. '
      '"Clean" means the labels as they came.'
    )
  effective = ', '.join(
    f'{source.effective(rate):.3f} (injected {rate:g})' for rate in flip_rates
  )
  if source.ceiling is None:
    return (
      'Noise: injected flips add to what is there. Labels known to be flipped '
      f'as they came: {source.flip_rate:.3f}. Effective ε: {effective}; losses '
      'assume it. "Clean" means the true labels.'
    )
  return (
    'Noise: one vote per pair is trained on, and injected flips add to the '
    f'noise it has. {_sentence(source.ceiling)}. That flip rate is a lower '
    'bound of the mean, as some pairs are harder than others. Effective ε: '
    f'{effective}; losses assume it. "Clean" means the majority of the votes.'
    "\n\nTies: an 'equal' vote names no winner, so that for training another "
    'vote is drawn, and the test leaves it out; a pair without a vote that '
    'names a winner is dropped; where votes tie, the vote at hand counts as '
    'the majority.'
  )


def _unit(source: Source, arenas: Sequence[Arena]) -> str:
  what = source.cluster
  if len(arenas) == 1:
    return (
      'One seed, so no interval: flips, start and order were drawn once, and '
      f'an interval over {what}s alone would speak of these trained models, '
      f'not of the losses. --seeds=5 tests every {what} once.'
    )
  return (
    f'Intervals are over {what}s, which were split: the paired differences of '
    f'a {what} are pooled over the seeds that test it. They speak of new '
    f'{what}s; the pairs of a seed also share what was trained, which makes '
    'them a little too narrow. Recovery is a point estimate, given where the '
    'interval of the gap excludes 0.'
  )


def _dropped(source: Source, arenas: Sequence[Arena]) -> str:
  first = '\n'.join(str(report) for report in arenas[0].reports)
  more = '' if len(arenas) == 1 else ' (the first seed; others are alike)'
  return f'What was dropped or cut{more}:\n\n```\n{source.report}\n{first}\n```'


def _by_rate(cells: Sequence[Cell]) -> list[list[Cell]]:
  found: Mapping[float, list[Cell]] = {}
  for cell in select(cells, role=HASHED):
    found.setdefault(cell['flip_rate'], []).append(cell)
  return list(found.values())


def _best(share: np.ndarray) -> np.ndarray:
  return np.maximum(share, 1 - share)


def _sentence(text: object) -> str:
  text = str(text)
  return text[0].upper() + text[1:]

"""What is a noisy label worth under a budget?

The price of noise, in four questions. Allocation: are V votes better spent on
V pairs, on V / 3, on V / 5, or where votes or the model are in doubt, and how
are several votes made into a label? Price: how many clean labels score what N
noisy ones do, beside the (1 − 2ε)² of the textbook and the exact rate of
Bradley-Terry labels? Queries: does asking where the reward is unsure, where a
committee disagrees, by BALD, or again about doubtful labels beat asking at
random? Money: what mix of experts and crowd reaches a target most cheaply?
What it adds to the literature on each: one linear reward under one tuning grid,
selected on noisy votes, so that only the labels differ; exact margins; and the
same questions on recorded votes, judged on titles that no vote was bought of.

  Embedded worlds, about three minutes on two cores:
    python -m experiments.label_budget --output_dir=runs/label_budget
  Recorded votes, bought without replacement:
    python -m experiments.label_budget --data=votes/ --output_dir=runs/votes

Contrasts, written before the run (95 % intervals of paired differences over
seeds, over titles on --data; better or worse where they exclude 0, else
undecided): (1) one vote each, as it is, beats five each by majority in
accuracy at every noise, rate and budget. (2) clean-equivalents per vote with
the plain loss: their interval at the largest N covers the exact rate of the
sandwich and lies below (1 − 2ε)² for Bradley-Terry labels. (3) BALD has a
larger area under accuracy over votes than random. (4) where one expert costs
five votes, votes alone are cheapest at ε = .1 and experts alone at ε = .4.

Obtained: (1) in 11 of 12 settings, by .022 to .075; undecided with 300 votes at
symmetric .3, -.016 [-.052, .019]. A loss that reads all votes at its rate makes
up most of it; a model of the annotators needs more votes of each than a budget
has. (2) at N = 3200 .572 [.443, .719], .265 [.215, .340], .108 [.091, .123],
.029 [.025, .036] clean labels per vote at ε = .1, .2, .3, .4: the exact .514,
.250, .101 are covered, .024 is not; below (1 − 2ε)² but at .1. (3) +.044 [.028,
.060] at ε = .1; undecided at .3, +.023 [-.009, .055]. (4) both, in all
resamples; ε = .4 by --part=money --flip_rate=0.4.
With --task=ballot --preference=argmax (8 seeds) the price falls with N: .236
[.165, .311] at 400 and .090 [.074, .100] at 3200 for ε = .1.
On 12 titles of UKPConvArg1 (--data): five by majority against one each -.029
[-.040, -.018] of 300 votes, -.012 [-.022, -.002] of 1200; no query policy beat
random (BALD -.006 [-.018, .007]); asking again lost, -.009 [-.017, -.000].
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from alignment.data.records import DataError, VotedPair
from alignment.data.source import load
from alignment.data.votes import ceiling
from alignment.models.linear import one_blas_thread
from alignment.protocols import ledger
from alignment.protocols.label_budget import embedded, recorded
from alignment.protocols.label_budget.cells import Point
from alignment.training import rundir
from experiments import common
from experiments.common import field
from experiments.report import label_budget as report

EMBEDDED, VOTES = 'the embedded worlds', 'recorded votes'
OWN = {
  EMBEDDED: {
    'part': ('allocation', 'price', 'queries', 'money'),
    'task': 'linear',
    'preference': 'bt',
    'noise': ('symmetric', 'margin_dependent', 'per_annotator'),
    'flip_rate': (0.1, 0.3),
    'price_flip_rate': (0.1, 0.2, 0.3, 0.4),
    'margin_scale': 2.0,
    'num_annotators': 20,
    'num_pairs': 3200,
    'num_features': 20,
    'seeds': 16,
    'cost_clean': 5.0,
    'cost_vote': 1.0,
    'target_accuracy': 0.85,
  },
  VOTES: {
    'part': ('allocation', 'price', 'queries'),
    'num_features': 100,
    'num_folds': 4,
    'seeds': 3,
  },
}
USED_BY = {
  'noise': ('allocation',),
  'num_annotators': ('allocation',),
  'budget': ('allocation',),
  'price_flip_rate': ('price',),
  'flip_rate': ('allocation', 'queries', 'money'),
  'batch': ('queries',),
  'rounds': ('queries',),
  'cost_clean': ('money',),
  'cost_vote': ('money',),
  'target_accuracy': ('money',),
}
"""Flags that only some questions read."""
_own = functools.partial(common.own_help, OWN)


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  data: str = field(
    '', 'A folder of crowd votes, as alignment.data.votes reads it.'
  )
  part: tuple[Literal['allocation', 'price', 'queries', 'money'], ...] = field(
    (), f'Which questions. {_own("part")}'
  )
  task: Literal['linear', 'ballot'] | None = field(
    None,
    'Embedded world: spherical features, or pairs of BALLOT completions. '
    + _own('task'),
  )
  preference: Literal['bt', 'argmax'] | None = field(
    None,
    'A clean judgement: Bradley-Terry, drawn anew each time, or the better '
    f'completion always. {_own("preference")}',
  )
  noise: tuple[
    Literal['symmetric', 'margin_dependent', 'per_annotator'], ...
  ] = field((), f'Noise of votes, for allocation. {_own("noise")}')
  flip_rate: tuple[float, ...] = field(
    (),
    'Mean flip rates of votes, for allocation, queries and money. '
    + _own('flip_rate'),
    within='[0, 0.5)',
  )
  price_flip_rate: tuple[float, ...] = field(
    (),
    f'Flip rates that are priced. {_own("price_flip_rate")}',
    within='(0, 0.5)',
  )
  margin_scale: float | None = field(
    None,
    'Root mean square of the margins, in units of the Bradley-Terry model. '
    + _own('margin_scale'),
    within='(0, inf)',
  )
  num_annotators: int | None = field(
    None, f'Who vote. {_own("num_annotators")}', within='[1, inf)'
  )
  num_pairs: int | None = field(
    None,
    f'Pairs that can be asked about. {_own("num_pairs")}',
    within='[128, inf)',
  )
  num_features: int | None = field(
    None,
    'Features of the linear world, or directions of recorded texts beside '
    f'their length. {_own("num_features")}',
    within='[1, inf)',
  )
  num_validation: int = field(
    300,
    'Noisy votes, on pairs of their own, that every fit is tuned on; the '
    'budget does not pay for them.',
    within='[1, inf)',
  )
  budget: tuple[int, ...] = field(
    (300, 1200), 'Votes to allocate.', within='[10, inf)'
  )
  batch: int = field(20, 'Votes per round of queries.', within='[1, inf)')
  rounds: int = field(14, 'Rounds of queries.', within='[1, inf)')
  cost_clean: float | None = field(
    None, f'Of an expert label. {_own("cost_clean")}', within='(0, inf)'
  )
  cost_vote: float | None = field(
    None, f'Of a vote. {_own("cost_vote")}', within='(0, inf)'
  )
  target_accuracy: float | None = field(
    None,
    f'To be reached most cheaply. {_own("target_accuracy")}',
    within='(0.5, 1)',
  )
  num_folds: int | None = field(
    None,
    f'Parts the titles are held out in. {_own("num_folds")}',
    within='[2, inf)',
  )
  seeds: int | None = field(
    None,
    f'Repetitions: worlds, votes, order. {_own("seeds")}',
    within='[1, inf)',
  )
  threads: int = field(
    0, 'Cells at a time; 0: one per core.', within='[0, inf)', runtime=True
  )


def run(config: Config) -> dict[str, Any]:
  """Buys, fits and judges; writes the report, returns its numbers."""
  where = VOTES if config.data else EMBEDDED
  given, config = config, common.fill(config, OWN, where)
  check(given, config)
  pairs = read_pairs(config.data) if config.data else None
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  work = recorded_work(config, pairs) if pairs else embedded_work(config)
  with one_blas_thread():  # Fits run side by side: one core each.
    rows = ledger.carry_out(
      work,
      opened.directory / 'cells.jsonl',
      threads=config.threads or os.cpu_count(),
      on_done=report.progress(),
    )
  points = [point for row in rows.values() for point in row['points']]
  described = recorded_setup(config, pairs) if pairs else embedded_setup(config)
  result = report.write(opened.directory, described, points)
  rundir.finish(opened, result)
  return result


def check(given: Config, config: Config) -> None:
  """Refuses what cannot be done, or has no effect, before anything is written.

  Args:
    given: the flags as they were given.
    config: with every flag filled in.

  Raises:
    ValueError: names the flag, its value and the remedy.
  """
  if config.data and 'money' in config.part:
    raise ValueError('--part=money: recorded votes have no experts to pay')
  for flag, parts in USED_BY.items():
    value = getattr(given, flag)
    if value != getattr(Config, flag) and not set(parts) & set(config.part):
      raise ValueError(
        f'--{flag}={value}: used by --part={",".join(parts)} only'
      )
  for flag, name, value in (
    ('num_features', 'task', 'ballot'),
    ('margin_scale', 'preference', 'argmax'),
  ):
    if getattr(config, name) == value and getattr(given, flag) is not None:
      raise ValueError(
        f'--{flag}={getattr(given, flag)}: not used by --{name}={value}'
      )
  needed = {
    ('allocation', 'budget'): max(config.budget),
    ('queries', 'batch'): config.batch * (config.rounds + 1),
  }
  for (part, flag), pairs in needed.items():
    if part in config.part and not config.data and pairs > config.num_pairs:
      raise ValueError(
        f'--{flag}: asks for {pairs} pairs; raise --num_pairs='
        f'{config.num_pairs}'
      )


def read_pairs(data: str) -> list[VotedPair]:
  """The pairs of a folder of votes.

  Raises:
    DataError: it holds no votes.
  """
  records, found = load(data)
  print(found)
  if not isinstance(records[0], VotedPair):
    raise DataError('holds no votes', 'Give a folder of votes', data)
  return records


def embedded_work(config: Config) -> dict[str, Callable[[], dict[str, Any]]]:
  """Key -> one question, at one noise and rate, of one seed."""
  work, sizes = {}, _sizes(config, embedded.Sizes)
  for seed in range(config.seeds):
    for part in config.part:
      noises = config.noise if part == 'allocation' else ('symmetric',)
      rates = config.flip_rate
      if part == 'price':
        rates = config.price_flip_rate
      for noise, rate in itertools.product(noises, rates):
        work[f'{part}, {noise} noise {rate:g}, seed {seed}'] = (
          functools.partial(row, embedded.ask, part, sizes, seed, noise, rate)
        )
  return work


def row(ask: Callable[..., list[Point]], *given: Any) -> dict[str, Any]:
  """The points as a row of the ledger."""
  return {'points': ask(*given)}


def recorded_work(
  config: Config, pairs: Sequence[VotedPair]
) -> dict[str, Callable[[], dict[str, Any]]]:
  """Key -> one question of one seed, judged on one fold of titles."""
  sizes = _sizes(config, recorded.Sizes)
  return {
    f'{part}, seed {seed}, fold {fold}': functools.partial(
      row, recorded.ask, part, sizes, pairs, seed, fold
    )
    for seed in range(config.seeds)
    for fold in range(config.num_folds)
    for part in config.part
  }


def embedded_setup(config: Config) -> report.Setup:
  """What the report says of a run in an embedded world."""
  return report.Setup(
    title=f'The price of noise: {config.task} world, {config.preference}',
    facts=[
      f'{config.seeds} seeds, each a world, votes and flips of its own; '
      'intervals over seeds. '
      f'{config.num_pairs} pairs, margins of root mean square '
      f'{config.margin_scale:g}, {config.num_annotators} annotators. Rewards '
      f'are linear, l2 of every fit selected on {config.num_validation} noisy '
      'votes that no budget pays for; losses that correct for flips assume the '
      'true mean rate. Held-out accuracy: floor .5, ceiling 1. Gold is the '
      'reward of the preferred completions, 0 for a coin, 1 for the truth.',
    ],
    metric='accuracy',
    what='accuracy',
    also='gold',
    margin=embedded.build_world(_sizes(config, embedded.Sizes), 0).pool.margin
    if config.preference == 'bt'
    else None,
    target=config.target_accuracy,
    costs=(config.cost_clean, config.cost_vote),
  )


def recorded_setup(config: Config, pairs: Sequence[VotedPair]) -> report.Setup:
  """What the report says of recorded votes."""
  return report.Setup(
    title=f'The price of noise: {config.data}',
    facts=[
      f'{config.seeds} seeds of {config.num_folds} folds of titles; scores are '
      'agreement with a vote on a held-out title, averaged over seeds; '
      "intervals over titles. An 'equal' vote is paid for and names no winner. "
      'Rewards are linear in directions of the words of the training titles '
      f'and in length, l2 of every fit selected on {config.num_validation} '
      'single votes that no budget pays for; losses that correct for flips '
      'assume the rate that explains how often training votes agree.',
      f'{ceiling(pairs)}.',
    ],
    metric=None,
    what='agreement',
    rate=ceiling(pairs).flip_rate,
  )


def _sizes(config: Config, kind: type) -> Any:
  """`kind` with the flags that bear the names of its fields."""
  return kind(
    **{f.name: getattr(config, f.name) for f in dataclasses.fields(kind)}
  )


if __name__ == '__main__':
  common.main(Config, run)

"""Does a robust reward model pick better completions?

A reward model is fitted to pairs of which a share of the labels is flipped, and
judged three ways: by the order of clean held-out pairs, by whether σ(reward
difference) is as sure as it is right, and by what best-of-n with it picks, up
to where optimising a learned reward does harm. Arms are Bradley-Terry with
every label correction at the true, a wrong and an estimated flip rate, losses
that need no rate, committees, and repair of labels by their strength. What it
adds to the papers: one tuning grid for all, selected on noisy validation pairs;
label strength from models that did not see the pair; best-of-n carried out
exactly over all completions; the controls beside them (clean labels, the
unflipped pairs alone, the gold reward itself).

  Embedded task, two to three minutes on two cores:
    python -m experiments.noisy_reward --output_dir=runs/noisy_reward
  Does robustness cost anything without flips, and more flips:
    python -m experiments.noisy_reward --flip_rate=0,0.1,0.2,0.4
  Own pairs, {prompt, chosen, rejected}, or a folder of crowd votes:
    python -m experiments.noisy_reward --data=my.jsonl --seeds=5

The reward is linear: on BALLOT over products of prompt words and completion
traits, on --data over hashed words. It is fitted to convergence in a tenth of a
second, so that thousands of fits compare losses and not learning rates. The
same losses train a transformer with a scalar head (alignment/roles/reward.py),
of which so many fits would take hours.

Contrasts, written before the run, each at 30 % flips as the 95 % interval of a
paired difference over seeds, confirmed if it excludes 0 on the side named:
  (a) forward at the true rate minus Bradley-Terry, gold of best-of-64: above 0;
  (b) the same in Brier score on clean labels: below 0;
  (c) committee `worst` minus Bradley-Terry, gold lost from the best n to the
      largest: below 0 (Coste et al., 2023, arXiv 2310.02743, find that it
      nearly ends over-optimisation).
Sizes and the temperature were chosen on pilot seeds 100-102. The penalty .3
joined the grid after a first run of seeds 0-9 had the baseline at its edge, so
that seeds 10-19 are the test. Obtained there: (a) +.001 [-.021, .023],
undecided; (b) -.021 [-.025, -.016], confirmed; (c) +.046 [-.005, .096],
undecided. By the default run, all twenty: (a) +.016 [-.002, .033], undecided;
(b) -.020 [-.023, -.017], confirmed; (c) +.055 [.013, .097], contradicted. So a
robust reward model said better how sure it was and was not shown to pick
better: leaving out the wrong labels wins .257. How little (a) can be trusted to
ten seeds: 0-9 gave +.008 before that penalty and +.030 [.003, .058] with it.
Flipping or softening labels by their strength and conservative committees
picked worse than the baseline; truncated_gce, which cuts hard, much worse.
On crowd votes about arguments (UKPConvArg1, five folds of titles) nothing can
be ranked: with 20 % flips injected the unflipped pairs alone are worth +.004
[-.003, .011] in agreement, .62, and the length of the texts alone has .66.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from alignment.models.linear import one_blas_thread
from alignment.noise.corruption.catalogue import NOISE, inputs
from alignment.noise.estimation.catalogue import ESTIMATORS
from alignment.protocols import ledger
from alignment.protocols.records_source import Source, read_source
from alignment.protocols.reward.arms import Arm, check, line_up
from alignment.protocols.reward.ballot_world import BallotSizes, ballot_world
from alignment.protocols.reward.cells import cells_of
from alignment.protocols.reward.fitting import Task
from alignment.protocols.reward.records_world import records_world
from alignment.protocols.reward.world import World, noisy_labels
from alignment.protocols.rounds import write_cells
from alignment.training import rundir
from experiments import common
from experiments.common import field
from experiments.report import reward as report

_TASK, _DATA = 'the embedded task', '--data'
_TEMPERATURE = 0.1
OWN: Mapping[str, Mapping[str, Any]] = {
  _TASK: {
    'difficulty': 'default',
    'preference': 'bt',
    'temperature': _TEMPERATURE,
    'flip_rate': (0.3,),
    'l2': (0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
    'seeds': 20,
    'num_pairs': 2000,
    'num_validation': 1000,
    'num_test': 4000,
  },
  _DATA: {
    'flip_rate': (0.0, 0.2),
    'l2': (0.03, 0.003, 0.0003, 0.00003),
    'seeds': 5,
    'num_pairs': 0,
    'num_validation': 0,
    'num_test': 0,
    'max_completion_length': 256,
  },
}
"""Where -> flag -> what it is if it is not given."""
_KNOWN = {
  _TASK: ('index', 'margin', 'lengths'),
  _DATA: ('index', 'lengths', 'annotator_id'),
}
_own = functools.partial(common.own_help, OWN)


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  task: Literal['ballot'] = field(
    'ballot', 'Embedded task; used where --data is empty.'
  )
  difficulty: Literal['default', 'hard'] | None = field(
    None, f'Of the embedded task. {_own("difficulty")}'
  )
  preference: Literal['argmax', 'bt'] | None = field(
    None,
    'Clean labels of the embedded task: the better completion always, or with '
    f'Bradley-Terry probability. {_own("preference")}',
  )
  temperature: float | None = field(
    None,
    'Of Bradley-Terry labels, in units of the gold reward. '
    + _own('temperature'),
    within='(0, inf)',
  )
  data: str = field(
    '',
    'Real preferences: a .jsonl, .jsonl.gz or .parquet file, a folder of crowd '
    'votes, or tfds:name/config:split.',
  )
  loss: tuple[str, ...] = field(
    (
      *('conservative', 'backward', 'forward', 'symmetric', 'gce'),
      *('truncated_gce', 'sce', 'holder'),
    ),
    'Reward losses to compare; bradley_terry is always fitted, as the '
    'baseline.',
  )
  ensemble: tuple[str, ...] = field(
    ('mean', 'worst', 'mean_minus_std', 'mean_minus_variance'),
    'What committees make of the rewards of their members.',
  )
  repair: tuple[str, ...] = field(
    ('flip', 'soften', 'margin'),
    'What is done with the strength of labels: turn the weakest round, learn '
    'its probability, or ask it as a margin.',
  )
  members: int = field(
    8,
    'Of a committee, even: couples of halves of the prompts.',
    within='[2, inf)',
  )
  centring: float = field(
    0.01,
    'Weight of the square of the sum of both rewards; 0 leaves the arm out.',
    within='[0, inf)',
  )
  noise: str = field('exact_count', 'Noise model that flips labels.')
  flip_rate: tuple[float, ...] = field(
    (), f'Shares of labels flipped. {_own("flip_rate")}', within='[0, 0.5)'
  )
  misassumed: float = field(
    0.1,
    'How wrong the assumed flip rate is in the extra rows; 0 adds none.',
    within='[0, 0.5)',
  )
  estimator: str = field(
    'surest_rows',
    'Who estimates the flip rate that @estimate rows assume, from noisy '
    'training pairs alone; empty adds none.',
  )
  l2: tuple[float, ...] = field(
    (),
    f'Ridge penalties of the tuning grid. {_own("l2")}',
    within='(0, inf)',
  )
  seeds: int | None = field(
    None,
    'Independent repetitions: prompts, pairs, flips; on --data, folds. '
    + _own('seeds'),
    within='[1, inf)',
  )
  num_pairs: int | None = field(
    None,
    f'Training pairs; 0 takes all of --data. {_own("num_pairs")}',
    within='[0, inf)',
  )
  num_validation: int | None = field(
    None,
    f'Validation pairs; 0 takes all. {_own("num_validation")}',
    within='[0, inf)',
  )
  num_test: int | None = field(
    None, f'Test pairs; 0 takes all. {_own("num_test")}', within='[0, inf)'
  )
  max_completion_length: int | None = field(
    None,
    'Distinct words and word pairs of a text; the last are dropped. '
    + _own('max_completion_length'),
    within='[1, inf)',
  )
  threads: int = field(
    0, 'Cells at a time; 0: one per core.', within='[0, inf)', runtime=True
  )


def run(config: Config) -> dict[str, Any]:
  """Fits every arm in every cell, writes the report, returns its numbers."""
  where = _DATA if config.data else _TASK
  config = common.fill(config, OWN, where)
  _check(config, where)
  source = read_source(config.data) if config.data else None
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  work = {
    f'seed {seed}, flip rate {rate:g}': functools.partial(
      _fit_all, config, source, seed, rate
    )
    for seed in range(config.seeds)
    for rate in config.flip_rate
  }
  with one_blas_thread():  # They run side by side: one core each.
    done = ledger.carry_out(
      work,
      opened.directory / 'eval' / 'done.jsonl',
      threads=config.threads or os.cpu_count(),
      on_done=_progress(),
    )
  cells = [cell for row in done.values() for cell in row['cells']]
  write_cells(opened.directory, cells)
  setup = report.Setup(
    title=f'Reward models under noise: {config.data or config.task}',
    facts=_facts(config),
    flip_rates=config.flip_rate,
    rows=list(done.values()),
    source=source,
  )
  result = report.write(opened.directory, setup, cells)
  rundir.finish(opened, result)
  return result


def arms_at(config: Config, source: Source | None, rate: float) -> list[Arm]:
  """Who competes where `rate` is injected; losses assume all that is there."""
  return line_up(
    config.loss,
    config.ensemble,
    config.repair,
    rate=round(source.effective(rate), 3) if source else rate,
    misassumed=config.misassumed,
    estimated=bool(config.estimator),
    centring=config.centring,
  )


def _fit_all(
  config: Config, source: Source | None, seed: int, rate: float
) -> dict[str, Any]:
  """All arms of a seed at a flip rate, and what they are seen against."""
  world = _world(config, source, seed)
  task = Task(
    world,
    noisy_labels(world, config.noise, rate),
    config.l2,
    config.members,
    config.centring,
    config.estimator,
  )
  arms = arms_at(config, source, rate)
  return {
    'seed': seed,
    'flip_rate': rate,
    'cells': cells_of(task, rate, arms, with_pairs=bool(source)),
    'estimate': dataclasses.asdict(task.estimate) if config.estimator else None,
    'rules': {name: values.tolist() for name, values in world.rules.items()},
    'clusters': [str(c) for c in world.test.cluster],
    'sizes': [len(p) for p in (world.train, world.validation, world.test)],
    'dropped': [str(r) for r in world.reports],
  }


def _world(config: Config, source: Source | None, seed: int) -> World:
  if source:
    return records_world(
      seed,
      source.records,
      limits={
        'train': config.num_pairs,
        'validation': config.num_validation,
        'test': config.num_test,
      },
      max_completion_length=config.max_completion_length,
    )
  sizes = BallotSizes(
    difficulty=config.difficulty,
    num_pairs=config.num_pairs,
    num_validation=config.num_validation,
    num_test=config.num_test,
    preference=config.preference,
    temperature=config.temperature,
  )
  return ballot_world(seed, sizes)


def _check(config: Config, where: str) -> None:
  """Refuses flags that the data cannot bear, before anything is read.

  Raises:
    ValueError: naming flag, value and range.
  """
  check(config.loss, config.ensemble, config.repair)

  def refuse(flag: str, wanted: str) -> None:
    raise ValueError(f'--{flag}={getattr(config, flag)}: {wanted}')

  if config.members % 2:
    refuse('members', 'must be even: members come in couples')
  if config.estimator and config.estimator not in ESTIMATORS:
    refuse('estimator', f'must be one of {", ".join(ESTIMATORS)}, or empty')
  if config.noise not in NOISE:
    refuse('noise', f'must be one of {", ".join(NOISE)}')
  lacking = [k for k in inputs(config.noise) if k not in _KNOWN[where]]
  if lacking:
    refuse('noise', f'reads the {lacking[0]} of pairs, which {where} lacks')
  if where == _TASK:
    for flag in ('num_pairs', 'num_validation', 'num_test'):
      if not getattr(config, flag):
        refuse(flag, 'must be at least 1 on the embedded task')
    if config.preference == 'argmax' and config.temperature != _TEMPERATURE:
      refuse('temperature', 'has no effect under --preference=argmax')


def _progress() -> Callable[[str, Mapping[str, Any], int, int], None]:
  """One line per seed and flip rate, with the time left."""
  begun, before = time.monotonic(), []

  def on_done(key: str, row: Mapping[str, Any], done: int, total: int) -> None:
    before.append(done)
    left = (time.monotonic() - begun) / len(before) * (total - done)
    best = report.leader(row['cells'])
    print(f'[{done}/{total}] {key}: {best}  ETA {left:.0f}s', flush=True)

  return on_done


def _facts(config: Config) -> list[str]:
  """How it was done, whatever the data."""
  grid = ', '.join(f'{penalty:g}' for penalty in config.l2)
  return [
    f'{config.seeds} seed(s); each redraws pairs and flips, and arms share the '
    f'draws. Every arm has the same grid of ridge penalties ({grid}), selected '
    'on noisy validation pairs by best-temperature negative log-likelihood. '
    f'Noise: {config.noise}. Committees: {config.members} members, each of '
    'half of the clusters; the strength of a label is the mean margin of the '
    'half of the members that saw no pair of its cluster.',
  ]


if __name__ == '__main__':
  common.main(Config, run)

"""Which pointwise method survives noisy labels, fairly compared?

A classifier that can memorise its labels learns C classes of which a known
share is wrong, by noise of several kinds. Cross-entropy, losses corrected by a
transition matrix, robust losses, early-learning regularisation and sample
selection start from the same weights, see the same batches and have the same
tuning grid (learning rate × stop), selected on *noisy* validation labels only.
What needs a transition matrix or a flip rate gets three: the truth, an estimate
from the same noisy labels, and a wrong one. What it adds to the methods' own
papers: no tuning on clean labels, the estimate in place of the truth, floor
(majority class), ceiling (clean labels), the unflipped labels alone, paired
intervals, and a count of what chance would call better.

  Embedded task, about two minutes on two cores:
    python -m experiments.noisy_labels --output_dir=runs/noisy_labels
  Every method, more seeds:
    python -m experiments.noisy_labels --output_dir=runs/noisy_labels_long \\
      --seeds=20 --flip_rate=0.1,0.2,0.3,0.4 --method=conservative,forward,\\
backward,gce,truncated_gce,sce,mae,unhinged,bootstrap_soft,bootstrap_hard,elr,\\
peer,small_loss,co_teaching,divide_mix
  A file of {prompt, completion, label}, or of texts in any classes:
    python -m experiments.noisy_labels --data=labels.jsonl
    python -m experiments.noisy_labels --data=my.jsonl --text=statement \\
      --label=answer

Contrast, written before the run: at a noise and a rate a method is better than
cross-entropy if the 95 % interval of the paired difference (same seed, same
draws) in accuracy on clean test labels lies above 0, worse if below, undecided
otherwise. Methods can be ranked only where cross-entropy on the unflipped
labels beats cross-entropy. Expected: no method is better everywhere; the true
transition helps most where noise is lopsided (pair_flip), and much of that is
lost with an estimated one.

Obtained by the default run: 7 of 8 settings can rank, and all three were
confirmed. Forward with the true transition is better in 6 of 7 and worse in
none, most at pair_flip .4, +.135 [.098, .172]; with the estimated one it is
+.003 [-.032, .039] there, so that not knowing cost .132 [.094, .169]. No other
method gains more than .04; backward with the estimate, peer, conservative lose.
On 4,000 model-written persona statements (symmetric .3, three seeds) nothing
differs from cross-entropy, -.012 to +.007; a grid whose first stop came too
late for cross-entropy had called nearly every method better there, by up to
+.106: hence the report's remark on choices at an end of the grid.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alignment.protocols import ledger
from alignment.protocols.noisy_labels import trial
from alignment.protocols.noisy_labels.methods import (
  ASSUMED,
  METHODS,
  Arm,
  line_up,
)
from alignment.protocols.noisy_labels.noise import NOISE
from alignment.protocols.noisy_labels.plan import Plan
from alignment.protocols.noisy_labels.world import (
  Sizes,
  World,
  file_world,
  graded_ballots,
)
from alignment.training import rundir
from experiments import common
from experiments.common import field
from experiments.report import noisy_labels as report

EMBEDDED, FILE = 'the embedded task', '--data'
OWN: Mapping[str, Mapping[str, Any]] = {
  EMBEDDED: {
    'noise': tuple(NOISE),
    'num_classes': 4,
    'width': 64,
    'num_train': 2400,
    'num_validation': 800,
    'num_test': 2000,
  },
  FILE: {
    'noise': tuple(name for name in NOISE if name != 'instance_dependent'),
    'text': '',
    'label': '',
    'num_buckets': 2048,
    'width': 0,
    'num_train': 0,
    'num_validation': 0,
    'num_test': 0,
  },
}
_own = functools.partial(common.own_help, OWN)
_TOLD = ', '.join(name for name, method in METHODS.items() if method.needs)


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  data: str = field(
    '',
    'A .jsonl, .jsonl.gz or .parquet file of {prompt, completion, label}, or '
    'of any texts and classes with --text and --label. Empty: completions of '
    'an embedded task, graded by their exact reward.',
  )
  text: str | None = field(
    None, 'Column of --data that holds the text; needs --label.'
  )
  label: str | None = field(
    None, 'Column of --data that holds the class; needs --text.'
  )
  method: tuple[str, ...] = field(
    (
      'conservative',
      'forward',
      'backward',
      'gce',
      'sce',
      'bootstrap_hard',
      'elr',
      'peer',
      'co_teaching',
      'divide_mix',
    ),
    'Methods to compare; cross_entropy is always trained, as the baseline. '
    f'Among {", ".join(METHODS)}.',
  )
  assume: tuple[str, ...] = field(
    (),
    f'What {_TOLD} are told: the true transition, the one estimated from the '
    'noisy labels, the wrong one (symmetric, half the rate). Among '
    f'{", ".join(ASSUMED)}. If not given: all of these.',
  )
  estimator: Literal['confident_joint', 'anchors'] = field(
    'confident_joint', 'How the transition is estimated.'
  )
  noise: tuple[str, ...] = field(
    (), f'Kinds of noise, among {", ".join(NOISE)}. {_own("noise")}'
  )
  flip_rate: tuple[float, ...] = field(
    (0.2, 0.4), 'Shares of labels that are wrong.', within='(0, 1)'
  )
  num_classes: int | None = field(
    None, f'Grades. {_own("num_classes")}', within='[2, 10]'
  )
  seeds: int = field(
    5, 'Independent repetitions: data, noise, start, order.', within='[1, inf)'
  )
  steps: int = field(600, 'Updates of every run.', within='[1, inf)')
  num_stops: int = field(
    10, 'Evenly spaced stops at which a run is scored.', within='[1, inf)'
  )
  batch_size: int = field(100, 'Rows per update.', within='[1, inf)')
  learning_rate: tuple[float, ...] = field(
    (3e-3, 1e-2),
    'Rates of the tuning grid; the first is the fixed one.',
    within='(0, inf)',
  )
  width: int | None = field(
    None,
    f'Hidden units; 0 is a linear model. {_own("width")}',
    within='[0, inf)',
  )
  num_buckets: int | None = field(
    None, f'Hashed features. {_own("num_buckets")}', within='[2, inf)'
  )
  num_train: int | None = field(
    None,
    f'Training rows; 0 takes all of --data. {_own("num_train")}',
    within='[0, inf)',
  )
  num_validation: int | None = field(
    None,
    f'Validation rows; 0 takes all. {_own("num_validation")}',
    within='[0, inf)',
  )
  num_test: int | None = field(
    None, f'Test rows; 0 takes all. {_own("num_test")}', within='[0, inf)'
  )
  threads: int = field(
    0, 'Trials at a time; 0: one per core.', within='[0, inf)', runtime=True
  )


def run(config: Config) -> dict[str, Any]:
  """Trains every arm on every draw of noise, writes the report."""
  where = FILE if config.data else EMBEDDED
  config = common.fill(config, OWN, where)
  arms = line_up(config.method, config.assume)
  check(config, arms)
  worlds = build_worlds(config)
  # Nothing is written before every noise is known to be possible.
  for noise in config.noise:
    for rate in config.flip_rate:
      trial.draw_labels(worlds[0], noise, rate, seed=0)
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  rows = ledger.carry_out(
    jobs_of(config, worlds, arms),
    opened.directory / 'trials.jsonl',
    threads=config.threads or os.cpu_count(),
    on_done=report.progress(),
  )
  setup = describe(config, worlds, [str(arm) for arm in arms])
  result = report.write(opened.directory, setup, list(rows.values()))
  rundir.finish(opened, result)
  return result


def check(config: Config, arms: Sequence[Arm]) -> None:
  """Refuses what fits no run, before anything is read.

  Raises:
    ValueError: naming the flag and its value.
  """
  if not config.method:
    raise ValueError('--method=: name one')
  for name in config.noise:
    if name not in NOISE:
      raise ValueError(f'--noise={name}: must be one of {", ".join(NOISE)}')
  if not config.flip_rate or not config.learning_rate:
    empty = 'learning_rate' if config.flip_rate else 'flip_rate'
    raise ValueError(f'--{empty}=: name one')
  if config.data and bool(config.text) != bool(config.label):
    given, other = ('text', 'label') if config.text else ('label', 'text')
    raise ValueError(f'--{given}={getattr(config, given)}: needs --{other}')
  is_estimated = any(arm.assumed == 'estimated' for arm in arms)
  if config.estimator != 'confident_joint' and not is_estimated:
    raise ValueError(
      f'--estimator={config.estimator}: no method is told an estimate'
    )
  if config.steps % config.num_stops:
    raise ValueError(
      f'--num_stops={config.num_stops}: must divide --steps={config.steps}'
    )
  if not config.data:
    for name in ('num_train', 'num_validation', 'num_test'):
      least = config.batch_size if name == 'num_train' else 1
      if getattr(config, name) < least:
        raise ValueError(
          f'--{name}={getattr(config, name)}: must be at least {least}'
        )


def build_worlds(config: Config) -> Sequence[World]:
  """One per seed; a file is the same for all.

  Raises:
    DataError: a file that cannot be used.
    ValueError: fewer training rows than a batch.
  """
  sizes = Sizes(config.num_train, config.num_validation, config.num_test)
  if not config.data:
    return [
      graded_ballots(seed, sizes, config.num_classes)
      for seed in range(config.seeds)
    ]
  world = file_world(
    config.data, config.text, config.label, sizes, config.num_buckets
  )
  if len(world.train) < config.batch_size:
    raise ValueError(
      f'--batch_size={config.batch_size}: must be at most the '
      f'{len(world.train)} training rows of {config.data}'
    )
  return [world] * config.seeds


def jobs_of(
  config: Config, worlds: Sequence[World], arms: Sequence[Arm]
) -> Mapping[str, Any]:
  """Key -> one trial."""
  plan = Plan(
    config.width,
    config.steps,
    config.num_stops,
    config.batch_size,
    config.learning_rate,
    config.estimator,
    keep_rows=bool(config.data),
  )
  return {
    f'{noise}/{rate:g}/{seed}': functools.partial(
      trial.run_trial, worlds[seed], noise, rate, seed, arms, plan
    )
    for noise in config.noise
    for rate in config.flip_rate
    for seed in range(config.seeds)
  }


def describe(
  config: Config, worlds: Sequence[World], arms: Sequence[str]
) -> report.Setup:
  """What the report says of the run."""
  world = worlds[0]
  grid = ', '.join(f'{rate:g}' for rate in config.learning_rate)
  model = f'{config.width} hidden units' if config.width else 'a linear model'
  redrawn = (
    'noise, start and order; the splits stay'
    if config.data
    else 'prompts, completions, noise, start and order'
  )
  facts = [
    f'{world.source}. {len(world.train)} training, {len(world.validation)} '
    f'validation, {len(world.test)} test rows; {model} on '
    f'{world.train.features.shape[1]} features.',
    f'{config.seeds} seed(s); each redraws {redrawn}, and methods share the '
    f'draws. Every method has the same grid (learning rate {grid} × '
    f'{config.num_stops} stops up to step {config.steps}), selected by '
    'agreement with noisy validation labels; the control on clean labels by '
    'clean ones. "Last step" is without selection: the last stop of the first '
    'learning rate. Loss hyperparameters are their defaults.',
    'T is the transition P(noisy | clean), or the flip rate it implies: true '
    '(as it came out, the mean over each class), estimated (from the noisy '
    'labels), wrong (symmetric, at half the rate).',
  ]
  return report.Setup(
    title=f'Pointwise methods under label noise: {config.data or "BALLOT"}',
    facts=facts,
    settings=[(n, rate) for n in config.noise for rate in config.flip_rate],
    arms=arms,
    floors=[report.floor(w) for w in worlds],
    groups=world.test.group if config.data else None,
    grid_ends=(
      (min(config.learning_rate), config.steps // config.num_stops),
      (max(config.learning_rate), config.steps),
    ),
    estimator=config.estimator,
  )


if __name__ == '__main__':
  common.main(Config, run)

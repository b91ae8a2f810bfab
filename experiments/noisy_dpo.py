"""Which preference loss survives flipped labels?

The main job. A small policy is fine-tuned, preference pairs are labelled and
a known share of the labels is flipped; then every loss aligns the same start
on the same pairs in the same order, with the same small tuning grid, selected
on noisy validation pairs only. What it adds to the comparisons of the robust
losses' own papers: a shared tuning budget, selection without clean labels,
floor (start), ceiling (clean labels), the unflipped pairs alone, a leak check,
and intervals on paired differences.

  Embedded task, about three minutes on two cores:
    python -m experiments.noisy_dpo --output_dir=runs/noisy_dpo
  The long version, every loss with a flip rate or a redescending tail:
    python -m experiments.noisy_dpo --output_dir=runs/noisy_dpo_long \\
      --loss=dpo,cdpo,rdpo,ipo,ripo,forward,sympo,gce,sce,holder_dpo,hinge \\
      --flip_rate=0,0.1,0.2,0.3,0.4 --seeds=20 --num_stops=16
  Own pairs, {prompt, chosen, rejected} in JSONL, Parquet or TFDS:
    python -m experiments.noisy_dpo --data=my.jsonl --loss=dpo,rdpo
  Crowd votes, one per pair to train on, by a linear reward that learns:
    python -m experiments.noisy_dpo --data=votes/ --model=hashed

Contrast, written before the run: a loss is called better than DPO at a flip
rate if the 95 % interval of the paired difference (same seed, same pairs) in
exact gold reward lies above 0, worse if below, undecided otherwise; on --data,
in agreement with held-out labels, clustered by title or first turn. Losses can
be ranked at a rate only if DPO on the unflipped pairs beats DPO there.

The embedded task's size, β, rates and demonstrator were chosen on pilot seeds
100-104 by DPO on clean minus DPO on 40 % flipped labels alone (28 settings):
.166 in accuracy there, .147 on fresh seeds 105-108 (.185, .160, .092, .151).
Obtained by the default run at 40 % flips, against DPO: unflipped pairs +.087
[.029, .144] in accuracy and +.334 [.177, .492] in gold; no loss was better than
DPO, the best of them forward, +.047 [-.127, .221] in gold: undecided.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from alignment.data.tokenizers import ByteTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig, plain_config
from alignment.protocols import ledger, rounds, settings
from alignment.protocols.arena import Arena
from alignment.protocols.ballot_arena import BallotSizes, ballot_arena
from alignment.protocols.contestants import BASELINE, Contestant, line_up
from alignment.protocols.records_arena import RecordSizes, records_arenas
from alignment.protocols.records_policies import (
  byte_policy,
  hashed_policy,
  train_reference,
)
from alignment.protocols.records_source import Source, read_source
from alignment.protocols.standings import Units
from alignment.protocols.vote_gap import train_gap
from alignment.tasks.ballot_grammar import VOCABULARY
from alignment.training import rundir, writers
from alignment.training.mesh import make_mesh, row_shards
from alignment.training.preemption import preemption
from experiments import common
from experiments.common import field
from experiments.report import bakeoff as report
from experiments.report import ballot
from experiments.report import records as real

_own = functools.partial(common.own_help, settings.SETTINGS)


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  task: Literal['ballot'] = field(
    'ballot', 'Embedded task; used where --data is empty.'
  )
  difficulty: Literal['default', 'hard'] | None = field(
    None, f'Of the embedded task. {_own("difficulty")}'
  )
  data: str = field(
    '',
    'Real preferences: a .jsonl, .jsonl.gz or .parquet file, a folder of crowd '
    'votes, or tfds:name/config:split.',
  )
  model: Literal['transformer', 'hashed'] = field(
    'transformer',
    'Policy: a small transformer trained from scratch, or (with --data) a '
    'linear Bradley-Terry reward on hashed words.',
  )
  loss: tuple[str, ...] = field(
    ('dpo', 'cdpo', 'rdpo', 'ipo', 'forward', 'gce'),
    'Losses to compare; dpo is always trained, as the baseline.',
  )
  aggregate: str = field('mean', 'How the losses of a batch become one number.')
  noise: str = field('exact_count', 'Noise model that flips labels.')
  flip_rate: tuple[float, ...] = field(
    (0.0, 0.2, 0.4), 'Shares of labels flipped.', within='[0, 0.5)'
  )
  beta: float = field(0.2, 'Strength of the KL anchor.', within='(0, inf)')
  label_smoothing: tuple[float, ...] = field(
    (),
    'Flip rates that losses assume. If not given: the effective rate, and that '
    'rate wrong by --misassumed. Effective is what is injected on top of the '
    'errors that labels have already, where votes or a column is_flipped tell '
    'how many.',
    within='[0, 0.5)',
  )
  misassumed: float | None = field(
    None,
    'How wrong the assumed rate is in the extra rows; 0 adds none. If not '
    'given: 0.1, without --label_smoothing.',
    within='[0, 0.5)',
  )
  hyper: tuple[str, ...] = field(
    (),
    'Further hyperparameters: name=value for every loss, loss.name=value for '
    'one.',
  )
  preference: Literal['argmax', 'bt'] | None = field(
    None,
    'Clean labels of the embedded task: the better completion always, or with '
    f'Bradley-Terry probability. {_own("preference")}',
  )
  seeds: int = field(
    5,
    'Independent repetitions: data, noise, start, order.',
    within='[1, inf)',
  )
  steps: int = field(160, 'Updates of every run.', within='[1, inf)')
  num_stops: int | None = field(
    None,
    f'Evenly spaced stops at which a run is scored. {_own("num_stops")}',
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
  batch_size: int = field(32, 'Pairs per update.', within='[1, inf)')
  learning_rate: tuple[float, ...] = field(
    (),
    'Peak rates of the tuning grid; the first is the fixed one. '
    + _own('learning_rate'),
    within='(0, inf)',
  )
  packing: Literal['shared', 'padded', 'packed'] = field(
    'shared', 'How batches are laid out; results agree to rounding.'
  )
  sft_steps: int | None = field(
    None,
    f'Updates of the supervised start. {_own("sft_steps")}',
    within='[0, inf)',
  )
  sft_learning_rate: float | None = field(
    None, f'Its peak rate. {_own("sft_learning_rate")}', within='(0, inf)'
  )
  width: int | None = field(
    None, f'Features of the transformer. {_own("width")}', within='[1, inf)'
  )
  depth: int | None = field(
    None, f'Its layers. {_own("depth")}', within='[1, inf)'
  )
  num_heads: int | None = field(
    None, f'Its attention heads. {_own("num_heads")}', within='[1, inf)'
  )
  max_prompt_length: int | None = field(
    None,
    f'Tokens of prompts; ends kept. {_own("max_prompt_length")}',
    within='[1, inf)',
  )
  max_completion_length: int | None = field(
    None,
    f'Tokens; starts kept. {_own("max_completion_length")}',
    within='[1, inf)',
  )
  threads: int = field(
    0, 'Cells at a time; 0: one per core.', within='[0, inf)', runtime=True
  )
  save_interval: int = field(
    0,
    'Steps between saves of a cell in progress; 0 saves it only on SIGTERM.',
    within='[0, inf)',
    runtime=True,
  )
  keep_policies: bool = field(False, 'Save selected policies.', runtime=True)
  log_interval: int = field(
    20, 'Steps between metrics; 0 writes none.', within='[0, inf)', runtime=True
  )
  tensorboard: bool = field(False, 'Write TensorBoard too.', runtime=True)


def run(config: Config) -> dict[str, Any]:
  """Trains every cell, writes the report, returns its numbers."""
  where = settings.where(config.data, config.model)
  settings.check(vars(config), where)
  config = common.fill(config, settings.SETTINGS, where)
  source = read_source(config.data) if config.data else None
  competing = contestants(config, source)
  mesh = make_mesh(config.mesh) if config.mesh else None
  build_one = _records(config, source) if source else _ballot(config)
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  # Two programs that use the same devices at once would wait for each other.
  threads = 1 if mesh else config.threads or os.cpu_count()
  writer = _writer(config, opened.directory)
  with preemption() as should_stop:
    build_one = functools.partial(build_one, should_stop=should_stop)
    built = build_arenas(build_one, config.seeds, threads, writer)
    arenas = [of_seed[0] for of_seed in built]
    beside = [arena for of_seed in built for arena in of_seed[1:]]
    report.print_openings(rounds.openings(competing, arenas[0], mesh, threads))
    carrying = rounds.Carrying(
      directory=opened.directory,
      threads=threads,
      mesh=mesh,
      save_interval=config.save_interval,
      writer=writer,
      log_interval=config.log_interval,
      should_stop=should_stop,
      on_done=report.progress(),
      keep_policies=config.keep_policies,
    )
    cells = train_cells(config, source, competing, arenas, beside, carrying)
  writer.close()
  setup = describe(config, source, arenas, cells)
  result = report.write(opened.directory, setup, cells)
  rundir.finish(opened, result)
  return result


def contestants(
  config: Config, source: Source | None
) -> dict[float, list[Contestant]]:
  """Flip rate -> who competes there; see `line_up`."""
  return line_up(
    {
      rate: round(source.effective(rate), 3) if source else rate
      for rate in config.flip_rate
    },
    config.loss,
    config.aggregate,
    config.hyper,
    beta=config.beta,
    assumed=config.label_smoothing,
    misassumed=config.misassumed,
  )


def build_arenas(
  build_one: Callable[..., list[Arena]],
  seeds: int,
  threads: int,
  writer: writers.Writer,
) -> list[list[Arena]]:
  """The arenas of every seed, built side by side.

  The first of a seed is what is compared; beside a transformer on real text
  there is one of hashed words, on the same pairs.
  """

  def build_seed(seed: int) -> list[Arena]:
    tagged = writers.tagged_writer(writer, {'cell': f'sft seed {seed}'})
    return build_one(seed, writer=tagged)

  return ledger.in_threads(build_seed, range(seeds), threads)


def train_cells(
  config: Config,
  source: Source | None,
  competing: Mapping[float, Sequence[Contestant]],
  arenas: Sequence[Arena],
  beside: Sequence[Arena],
  carrying: rounds.Carrying,
) -> list[dict[str, Any]]:
  """The gap, where better labels are known, before any loss; then the rest."""
  baseline = competing[config.flip_rate[0]][0]
  grid = settings.grid_of(config.steps, vars(config))
  cells = train_gap(arenas, baseline, grid, carrying) if source else []
  if cells:
    print(real.gap_line(source, arenas, cells, BASELINE))
  noise = config.noise
  cells += rounds.train_cells(
    arenas, competing, baseline, grid, noise, carrying, with_pairs=bool(source)
  )
  grid = settings.grid_of(config.steps, settings.SETTINGS[settings.WORDS])
  cells += train_reference(
    beside, config.flip_rate, baseline, grid, noise, carrying
  )
  rounds.write_cells(carrying.directory, cells)
  return cells


def describe(
  config: Config,
  source: Source | None,
  arenas: Sequence[Arena],
  cells: Sequence[Mapping[str, Any]],
) -> report.Setup:
  """What the report says of the run."""
  grid = ', '.join(f'{rate:g}' for rate in config.learning_rate)
  facts = [
    f'{config.seeds} seed(s); each redraws pairs, flips, start and order, and '
    'methods share the draws. Every method has the same tuning grid '
    f'({grid} × {config.num_stops} stops up to step {config.steps}), selected '
    'on noisy validation pairs by best-temperature negative log-likelihood. '
    f'β = {config.beta:g}, noise: {config.noise}, '
    f'{len(arenas[0].train.pairs)} pairs.',
  ]
  if source:
    given = source, arenas, cells, config.flip_rate, config.model, BASELINE
    facts = real.facts(*given) + facts
  else:
    facts.append(ballot.facts(config.preference))
  return report.Setup(
    title=f'Preference losses under noise: {config.data or config.task}',
    facts=facts,
    flip_rates=config.flip_rate,
    metrics=(real.METRIC,) if source else ('accuracy', 'gold'),
    units=real.units(arenas) if source else Units(),
    baseline=BASELINE,
    start={
      name: float(np.mean([a.floor[name] for a in arenas]))
      for name in arenas[0].floor
    },
  )


def _ballot(config: Config) -> Callable[..., list[Arena]]:
  transformer = _transformer(config, len(VOCABULARY))
  build_one = functools.partial(
    ballot_arena,
    model=build(transformer),
    sizes=_sizes(config, BallotSizes),
    beta=config.beta,
    base_models=common.base_models(config, repr(transformer)),
  )
  return lambda seed, **carrying: [build_one(seed, **carrying)]


def _records(config: Config, source: Source) -> Callable[..., list[Arena]]:
  if config.model == 'hashed':
    policies = [hashed_policy(config.max_completion_length)]
  else:
    own = byte_policy(
      _transformer(config, ByteTokenizer.vocab_size),
      max_prompt_length=config.max_prompt_length,
      max_completion_length=config.max_completion_length,
      sft_steps=config.sft_steps,
      sft_learning_rate=config.sft_learning_rate,
    )
    policies = [own, hashed_policy()]
  return functools.partial(
    records_arenas,
    policies=policies,
    records=source.records,
    sizes=_sizes(config, RecordSizes),
  )


def _sizes(config: Config, kind: type) -> Any:
  """`kind` with the flags that bear the names of its fields."""
  given = {
    f.name: getattr(config, f.name, None) for f in dataclasses.fields(kind)
  }
  given = {name: value for name, value in given.items() if value is not None}
  return kind(**given, row_multiple=row_shards(make_mesh(config.mesh)))


def _transformer(config: Config, vocab_size: int) -> TransformerConfig:
  sizes = {n: getattr(config, n) for n in ('width', 'depth', 'num_heads')}
  return plain_config(vocab_size, **sizes)


def _writer(config: Config, directory: pathlib.Path) -> writers.Writer:
  sinks = [
    writers.jsonl_writer(directory / 'metrics.jsonl'),
    report.patient(writers.console_writer()),
  ]
  if config.tensorboard:
    sinks.append(writers.tensorboard_writer(directory / 'tensorboard'))
  return writers.combined_writer(sinks)


if __name__ == '__main__':
  common.main(Config, run)

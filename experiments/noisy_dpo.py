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
  A Hugging Face folder, by adapters, and adapters of it as the result:
    python -m experiments.noisy_dpo --data=my.jsonl --model=folder \\
      --lora_rank=8 --keep_policies
  Losses that assume a rate estimated from pairs labelled again:
    python -m experiments.noisy_dpo --estimate_flip_rate=agreement

Contrast, written before the run: a loss is called better than DPO at a flip
rate if the 95 % interval of the paired difference (same seed, same pairs) in
exact gold reward lies above 0, worse if below, undecided otherwise; on --data,
in agreement with held-out labels, clustered by title or first turn. Losses can
be ranked at a rate only if DPO on the unflipped pairs beats DPO there.

The embedded task's size, β, rates and demonstrator were chosen on pilot seeds
100-104 by DPO on clean minus DPO on 40 % flipped labels alone (28 settings):
.166 in accuracy there, .147 on fresh seeds 105-108 (.185, .160, .092, .151).
Obtained by the default run at 40 % flips, against DPO: unflipped pairs +.111
[.061, .160] in accuracy and +.309 [.206, .411] in gold; no loss was better than
DPO, the best of them forward, +.032 [-.045, .109] in gold: undecided.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from alignment.noise.corruption.catalogue import NOISE
from alignment.noise.estimation.catalogue import ESTIMATORS
from alignment.protocols import rounds, settings
from alignment.protocols.arena import Arena, build_arenas
from alignment.protocols.arena_builder import arena_builder
from alignment.protocols.assumed_rate import (
  RELABELLED,
  RELABELS,
  Estimates,
  estimate_rates,
  plan_of,
)
from alignment.protocols.contestants import BASELINE, Contestant, line_up
from alignment.protocols.folder_policies import template_of
from alignment.protocols.labelling import Noise, parse_noise
from alignment.protocols.records_policies import train_reference
from alignment.protocols.records_source import Source, read_source
from alignment.protocols.standings import Units
from alignment.protocols.vote_gap import train_gap
from alignment.training import rundir
from alignment.training.mesh import make_mesh
from alignment.training.preemption import preemption
from experiments import common
from experiments.common import field
from experiments.common.policy import PolicyConfig, command, provenance_of
from experiments.report import bakeoff as report
from experiments.report import ballot, console
from experiments.report import noise as noise_report
from experiments.report import records as real

_own = functools.partial(common.own_help, settings.SETTINGS)


@dataclasses.dataclass(frozen=True)
class Config(PolicyConfig):
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
  model: str = field(
    'transformer',
    '`transformer`, a small one from scratch; with --data also `hashed`, a '
    'linear Bradley-Terry reward on hashed words, or a Hugging Face folder, '
    'whose weights are the start and whose tokenizer and template read.',
  )
  loss: tuple[str, ...] = field(
    ('dpo', 'cdpo', 'rdpo', 'ipo', 'forward', 'gce'),
    'Losses to compare; dpo is always trained, as the baseline.',
  )
  aggregate: str = field('mean', 'How the losses of a batch become one number.')
  noise: str = field(
    'exact_count', f'Noise model that flips labels: {", ".join(NOISE)}.'
  )
  noise_hyper: tuple[str, ...] = field(
    (),
    'Hyperparameters of the noise besides its rate: name=value, several '
    'numbers joined by colons; exact=1 flips an exact count.',
  )
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
    'given: 0.1, without --label_smoothing and --estimate_flip_rate.',
    within='[0, 0.5)',
  )
  estimate_flip_rate: str = field(
    '',
    'Estimator whose number losses assume, beside the effective rate: '
    f'{", ".join(ESTIMATORS)}. It sees training labels only: the votes of '
    '--data, pairs labelled again, checked pairs; the report names the '
    'assumption that identifies it.',
  )
  relabelled: float | None = field(
    None,
    'Share of training pairs labelled again, for the estimate alone. If not '
    f'given: {RELABELLED:g} on the embedded task, 0 with --anchors.',
    within='[0, 1]',
  )
  relabels: int | None = field(
    None, f'How often again. If not given: {RELABELS}.', within='[1, inf)'
  )
  anchors: float | None = field(
    None,
    'Share of training pairs whose truth is checked, for the estimate alone. '
    'If not given: 0.',
    within='[0, 1]',
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
  asked = command(config)
  where = settings.where(config.data, config.model)
  settings.check(vars(config), where)
  config = common.fill(config, settings.SETTINGS, where)
  noise = parse_noise(
    config.noise, config.noise_hyper, num_features=1 if config.data else 2
  )
  template = template_of(config.model) if where == settings.FOLDER else None
  source = read_source(config.data, template) if config.data else None
  competing = contestants(config, source, noise)
  plan = plan_of(vars(config), source)
  mesh = make_mesh(config.mesh) if config.mesh else None
  build_one = arena_builder(
    vars(config), source, functools.partial(common.base_models, config)
  )
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  # Two programs that use the same devices at once would wait for each other.
  threads = 1 if mesh else config.threads or os.cpu_count()
  writer = console.run_writer(opened.directory, tensorboard=config.tensorboard)
  with preemption() as should_stop:
    build_one = functools.partial(build_one, should_stop=should_stop)
    built = build_arenas(build_one, config.seeds, threads, writer)
    arenas = [of_seed[0] for of_seed in built]
    beside = [arena for of_seed in built for arena in of_seed[1:]]
    estimates, estimated = {}, []
    if plan:
      estimates = estimate_rates(arenas, noise, config.flip_rate, plan)
      estimated = [noise_report.estimated(estimates, plan, arenas)]
      print(*estimated)
    console.print_openings(rounds.openings(competing, arenas[0], mesh, threads))
    carrying = rounds.Carrying(
      directory=opened.directory,
      threads=threads,
      mesh=mesh,
      save_interval=config.save_interval,
      writer=writer,
      log_interval=config.log_interval,
      should_stop=should_stop,
      on_done=console.progress(),
      provenance=provenance_of(
        config.data or config.task, config.model, asked, str(noise)
      )
      if config.keep_policies
      else None,
    )
    cells = train_cells(
      config, source, noise, estimates, competing, arenas, beside, carrying
    )
  writer.close()
  setup = describe(config, source, noise, arenas, cells)
  setup.facts.extend(estimated)
  result = report.write(opened.directory, setup, cells)
  rundir.finish(opened, result)
  return result


def contestants(
  config: Config, source: Source | None, noise: Noise
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
    estimator=config.estimate_flip_rate,
    has_ties=noise.has_ties,
  )


def train_cells(
  config: Config,
  source: Source | None,
  noise: Noise,
  estimates: Estimates,
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
  cells += rounds.train_cells(
    arenas,
    competing,
    baseline,
    grid,
    noise,
    carrying,
    with_pairs=bool(source),
    estimates=estimates,
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
  noise: Noise,
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
    f'β = {config.beta:g}, noise: {noise}, '
    f'{len(arenas[0].train.pairs)} pairs.',
  ]
  if source:
    given = source, arenas, cells, config.flip_rate, config.model, BASELINE
    facts = real.facts(*given) + facts
  else:
    facts.append(ballot.facts(config.preference))
  facts.append(noise_report.silent(noise, arenas, max(config.flip_rate)))
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


if __name__ == '__main__':
  common.main(Config, run)

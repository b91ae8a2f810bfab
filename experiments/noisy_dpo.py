"""Which preference loss survives flipped labels?

The main job. A small policy is fine-tuned, preference pairs are labelled and
a known share of the labels is flipped; then every loss aligns the same start
on the same pairs in the same order, with the same small tuning grid, selected
on noisy validation pairs only. What it adds to the comparisons of the robust
losses' own papers: a shared tuning budget, selection without clean labels,
floor (start), ceiling (clean labels), the unflipped pairs alone, a leak check,
and intervals on paired differences.

  Embedded task, about two minutes on two cores:
    python -m experiments.noisy_dpo --output_dir=runs/noisy_dpo
  The long version, every loss with a flip rate or a redescending tail:
    python -m experiments.noisy_dpo --output_dir=runs/noisy_dpo_long \\
      --loss=dpo,cdpo,rdpo,ipo,ripo,forward,sympo,gce,sce,holder_dpo,hinge \\
      --flip_rate=0,0.1,0.2,0.3,0.4 --seeds=20 --num_stops=16
  Own pairs, {prompt, chosen, rejected} in JSONL, Parquet or TFDS:
    python -m experiments.noisy_dpo --data=my.jsonl --loss=dpo,rdpo

Contrast, written before the run: a loss is called better than DPO at a flip
rate if the 95 % interval of the paired difference (same seed, same pairs) in
exact gold reward lies above 0, worse if below, undecided otherwise. The task
can rank losses at a rate only if DPO on the unflipped pairs beats DPO there.

The embedded task's size, β, rates and demonstrator were chosen on pilot seeds
100-104 by the accuracy of DPO on clean minus DPO on 40 % flipped labels alone
(28 settings, no other loss run); the chosen one had .166 there and .147 on the
fresh seeds 105-108 (.185, .160, .092, .151).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from alignment.data.source import load
from alignment.data.tokenizers import ByteTokenizer, HashedTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.hashed import HashedConfig
from alignment.protocols import bakeoff, ledger, rounds
from alignment.protocols.arena import Arena, agreement
from alignment.protocols.ballot_arena import BallotSizes, ballot_arena
from alignment.protocols.contestants import (
  Contestant,
  contestants_at,
  parse_hyper,
  takes_rate,
)
from alignment.protocols.records_arena import RecordSizes, records_arena
from alignment.protocols.standings import Units
from alignment.tasks.ballot_grammar import VOCABULARY
from alignment.training import rundir, writers
from alignment.training.mesh import make_mesh, row_shards
from alignment.training.preemption import preemption
from experiments import common
from experiments.common import field
from experiments.report import bakeoff as report

BASELINE = 'dpo'


@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  task: Literal['ballot'] = field(
    'ballot', 'Embedded task; used where --data is empty.'
  )
  difficulty: Literal['default', 'hard'] = field(
    'default', 'Of the embedded task.'
  )
  data: str = field(
    '',
    'Own preferences: a .jsonl, .jsonl.gz or .parquet file, a folder of crowd '
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
    (0.0, 0.2, 0.4), 'Shares of labels flipped, in [0, 0.5).'
  )
  beta: float = field(0.2, 'Strength of the KL anchor, > 0.')
  label_smoothing: tuple[float, ...] = field(
    (),
    'Flip rates that losses assume, in [0, 0.5). Empty: the rate injected, '
    'and that rate wrong by --misassumed.',
  )
  misassumed: float = field(
    0.1, 'How wrong the assumed rate is in the extra rows; 0 adds none.'
  )
  hyper: tuple[str, ...] = field(
    (),
    'Further hyperparameters: name=value for every loss, loss.name=value for '
    'one.',
  )
  preference: Literal['argmax', 'bt'] = field(
    'argmax',
    'Clean labels of the embedded task: the better completion always, or with '
    'Bradley-Terry probability.',
  )
  seeds: int = field(5, 'Independent repetitions: data, noise, start, order.')
  steps: int = field(160, 'Updates of every run.')
  num_stops: int = field(8, 'Evenly spaced stops at which a run is scored.')
  num_pairs: int = field(1000, 'Training pairs; 0 takes all of --data.')
  num_validation: int = field(1024, 'Validation pairs of the embedded task.')
  batch_size: int = field(32, 'Pairs per update.')
  learning_rate: tuple[float, ...] = field(
    (2e-3, 4e-3), 'Peak rates of the tuning grid; the first is the fixed one.'
  )
  packing: Literal['shared', 'padded', 'packed'] = field(
    'shared', 'How batches are laid out; results agree to rounding.'
  )
  sft_steps: int = field(400, 'Updates of the supervised start.')
  sft_learning_rate: float = field(3e-3, 'Its peak rate.')
  width: int = field(32, 'Features of the transformer.')
  depth: int = field(2, 'Its layers.')
  num_heads: int = field(2, 'Its attention heads.')
  max_prompt_length: int = field(128, 'Tokens of --data prompts; ends kept.')
  max_completion_length: int = field(
    128, 'Tokens of --data completions; starts kept.'
  )
  threads: int = field(
    0, 'Cells trained at a time; 0 is one per core.', runtime=True
  )
  save_interval: int = field(
    0,
    'Steps between saves of a cell in progress; 0 saves it only on SIGTERM.',
    runtime=True,
  )
  log_interval: int = field(
    20, 'Steps between rows of training metrics.', runtime=True
  )
  tensorboard: bool = field(
    False, 'Write TensorBoard files as well.', runtime=True
  )


def run(config: Config) -> dict[str, Any]:
  """Trains every cell, writes the report, returns its numbers."""
  competing = contestants(config)
  opened = common.open_run(config)
  if opened.is_finished:
    print((opened.directory / 'report.md').read_text(encoding='utf-8'))
    print(f'{opened.directory} holds a finished run: nothing was repeated.')
    return opened.result
  # Two programs that use the same devices at once would wait for each other.
  threads = 1 if config.mesh else config.threads or os.cpu_count()
  writer = _writer(config, opened.directory)
  with preemption() as should_stop:
    arenas = build_arenas(config, threads, writer, should_stop)
    one_each = {c.loss: c for row in competing.values() for c in row}
    openings = ledger.in_threads(
      lambda c: bakeoff.opening_loss(c, arenas[0]), one_each.values(), threads
    )
    report.print_openings(dict(zip(one_each, openings, strict=True)))
    cells = rounds.train_cells(
      arenas,
      competing,
      competing[config.flip_rate[0]][0],
      grid_of(config),
      config.noise,
      rounds.Carrying(
        directory=opened.directory,
        threads=threads,
        mesh=make_mesh(config.mesh) if config.mesh else None,
        save_interval=config.save_interval,
        writer=writer,
        log_interval=config.log_interval,
        should_stop=should_stop,
        on_done=report.progress(),
      ),
      with_pairs=bool(config.data),
    )
  writer.close()
  result = report.write(opened.directory, describe(config, arenas), cells)
  rundir.finish(opened, result)
  return result


def contestants(config: Config) -> dict[float, list[Contestant]]:
  """Flip rate -> who competes there; the baseline is always first.

  Raises:
    ValueError: an unknown loss, a rate out of range, or a flag that none of
      the losses uses.
  """
  for name in ('flip_rate', 'label_smoothing'):
    for rate in getattr(config, name):
      if not 0 <= rate < 0.5:
        raise ValueError(f'--{name}={rate}: must be in [0, 0.5)')
  losses = list(dict.fromkeys([BASELINE, *config.loss]))
  hyper = parse_hyper(config.hyper, losses, config.aggregate, config.beta)
  if config.label_smoothing and not any(map(takes_rate, losses)):
    raise ValueError(
      f'--label_smoothing={config.label_smoothing}: none of --loss='
      f'{",".join(config.loss)} assumes a flip rate; cdpo, rdpo, forward do'
    )
  return {
    rate: contestants_at(
      rate,
      losses,
      config.aggregate,
      hyper,
      assumed=config.label_smoothing,
      misassumed=config.misassumed,
    )
    for rate in config.flip_rate
  }


def grid_of(config: Config) -> bakeoff.Grid:
  """Learning rates × evenly spaced stops, the same for every loss."""
  stops = np.linspace(0, config.steps, config.num_stops + 1).round()[1:]
  return bakeoff.Grid(config.learning_rate, tuple(int(s) for s in stops))


def build_arenas(
  config: Config,
  threads: int,
  writer: writers.Writer,
  should_stop: Callable[[int], bool],
) -> list[Arena]:
  """One arena per seed, built side by side."""
  build_one = _records(config) if config.data else _ballot(config)

  def build_seed(seed: int) -> Arena:
    tagged = writers.tagged_writer(writer, {'cell': f'sft seed {seed}'})
    return build_one(seed, writer=tagged, should_stop=should_stop)

  return ledger.in_threads(build_seed, range(config.seeds), threads)


def describe(config: Config, arenas: Sequence[Arena]) -> report.Setup:
  """What the report says of the run."""
  grid = ', '.join(f'{rate:g}' for rate in config.learning_rate)
  facts = [
    f'{config.seeds} seeds; each redraws pairs, flips, start and order, and '
    'methods share the draws. Every method has the same tuning grid '
    f'({grid} × {config.num_stops} stops up to step {config.steps}), selected '
    'on noisy validation pairs by best-temperature negative log-likelihood. '
    f'β = {config.beta:g}, noise: {config.noise}, {config.num_pairs} pairs.',
  ]
  return report.Setup(
    title=f'Preference losses under noise: {config.data or config.task}',
    facts=facts + _facts(config, arenas),
    flip_rates=config.flip_rate,
    metrics=('accuracy',) if config.data else ('accuracy', 'gold'),
    units=Units(_clusters(arenas) if config.data else None),
    baseline=BASELINE,
    start=_start(config, arenas),
  )


def _facts(config: Config, arenas: Sequence[Arena]) -> list[str]:
  if not config.data:
    target = (
      'π*(β) ∝ π_ref · exp(r / β)'
      if config.preference == 'bt'
      else 'the best completion (argmax labels have no finite optimum)'
    )
    return [
      "Accuracy: held-out pairs ordered as by gold reward, in each loss's own "
      'score. Gold: exact E[gold] over all completions of held-out prompts, 0 '
      f'the start, 1 {target}. KL: exact, to the start, nats. Both are '
      "conditioned on the task's completions; mass is the probability that the "
      'policy gives them.'
    ]
  text = [
    'Accuracy is agreement with a held-out label, which is itself noisy; '
    'injected flips add to what is there. Intervals are over clusters, '
    'which were split.'
  ]
  length = [
    agreement(a.test.pairs, -np.diff(a.test.pairs.lengths)[:, 0])
    for a in arenas
  ]
  ceiling = [
    np.maximum(a.test.pairs.vote_share, 1 - a.test.pairs.vote_share)
    for a in arenas
  ]
  return [
    *text,
    f'Length only (longer is better): {np.concatenate(length).mean():.3f}; '
    'either side always: .5, as the order of completions is random; best '
    f'possible on these votes: {np.concatenate(ceiling).mean():.3f}.',
  ]


def _clusters(arenas: Sequence[Arena]) -> dict[int, list[str]]:
  return {a.seed: [str(c) for c in a.test.pairs.cluster] for a in arenas}


def _start(config: Config, arenas: Sequence[Arena]) -> dict[str, float]:
  measured = [a.floor for a in arenas]
  return {
    name: float(np.mean([m[name] for m in measured])) for name in measured[0]
  }


def _ballot(config: Config) -> Callable[..., Arena]:
  if config.model != 'transformer':
    raise ValueError(f'--model={config.model} needs --data')
  transformer = _transformer(config, len(VOCABULARY))
  sizes = BallotSizes(
    difficulty=config.difficulty,
    num_pairs=config.num_pairs,
    num_validation=config.num_validation,
    sft_steps=config.sft_steps,
    sft_learning_rate=config.sft_learning_rate,
    steps=config.steps,
    batch_size=config.batch_size,
    preference=config.preference,
    packing=config.packing,
    row_multiple=row_shards(make_mesh(config.mesh)),
  )
  return functools.partial(
    ballot_arena,
    model=build(transformer),
    sizes=sizes,
    beta=config.beta,
    base_models=common.base_models(config, repr(transformer)),
  )


def _records(config: Config) -> Callable[..., Arena]:
  records, read = load(config.data)
  print(read)
  if config.model == 'hashed':
    tokenizer = HashedTokenizer()
    model = build(HashedConfig(tokenizer.vocab_size))
  else:
    tokenizer = ByteTokenizer()
    model = build(_transformer(config, tokenizer.vocab_size))
  sizes = RecordSizes(
    num_pairs=config.num_pairs,
    max_prompt_length=config.max_prompt_length,
    max_completion_length=config.max_completion_length,
    sft_steps=0 if config.model == 'hashed' else config.sft_steps,
    sft_learning_rate=config.sft_learning_rate,
    steps=config.steps,
    batch_size=config.batch_size,
    packing=config.packing,
    row_multiple=row_shards(make_mesh(config.mesh)),
  )
  return functools.partial(
    records_arena,
    model=model,
    tokenizer=tokenizer,
    records=records,
    sizes=sizes,
  )


def _transformer(config: Config, vocab_size: int) -> TransformerConfig:
  return TransformerConfig(
    vocab_size=vocab_size,
    width=config.width,
    depth=config.depth,
    num_heads=config.num_heads,
    num_kv_heads=config.num_heads,
    head_dim=config.width // config.num_heads,
    mlp_width=2 * config.width,
  )


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

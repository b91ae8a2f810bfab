"""Supervised fine-tuning: how likely does a policy find what it was shown?

The start of every alignment run, as an experiment of its own: on the embedded
task's demonstrations, on the chosen completions of one's own pairs, on
{prompt, completion, label} rows labelled good, or on {messages}. It adds
nothing to the field; it is the floor that preference learning is measured from.

  Embedded task, under a minute on two cores:
    python -m experiments.sft --output_dir=runs/sft
  Own data, JSONL, Parquet or TFDS:
    python -m experiments.sft --data=my.jsonl --output_dir=runs/sft_mine
  A Hugging Face folder goes on, and comes out as another one:
    python -m experiments.sft --model=folder --data=my.jsonl --lora_rank=8

Contrast, written before the run: the policy has learned if the 95 % interval
of the paired difference (same seed) in held-out nats per token, before minus
after, lies above 0. A uniform guess over the vocabulary costs log V.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from alignment.data import pipeline
from alignment.data.encoding import encode
from alignment.data.layout import Group
from alignment.data.records import DataError, Preference, Unpaired
from alignment.data.source import load
from alignment.data.splits import check_leak, split
from alignment.metrics.intervals import mean_interval, paired_difference
from alignment.models.build import build
from alignment.models.huggingface.card import Provenance
from alignment.models.model import Model, count_params
from alignment.protocols import settings
from alignment.protocols.arena_builder import text_policy, transformer_of
from alignment.protocols.ballot_arena import (
  BallotSizes,
  ballot_origin,
  demonstrations,
)
from alignment.protocols.kept_policies import keep_policy, trains
from alignment.protocols.records_arena import Policy
from alignment.protocols.supervised import Tuned, fine_tune
from alignment.roles.scoring import completion_logps
from alignment.tasks.ballot_grammar import VOCABULARY
from alignment.training import rundir, storage, writers
from alignment.training.checkpoints import Checkpoints
from alignment.training.mesh import make_mesh
from alignment.training.preemption import preemption
from alignment.types import PyTree
from experiments import common
from experiments.common import field
from experiments.common.policy import PolicyConfig, command, provenance_of
from experiments.report import tables

_TASK = 'the embedded task'
_SCRATCH = {'learning_rate': 3e-3, 'width': 32, 'depth': 2, 'num_heads': 2}
_LENGTHS = {'max_prompt_length': 128, 'max_completion_length': 128}
OWN = {
  _TASK: {'difficulty': 'default', **_SCRATCH, **settings.TRANSFORMER},
  settings.TEXT: {**_LENGTHS, **_SCRATCH, **settings.TRANSFORMER},
  settings.FOLDER: {
    **_LENGTHS,
    'learning_rate': 1e-4,
    **settings.TRANSFORMER,
  },
}
"""Where -> flag -> what it is if it is not given."""
_own = functools.partial(common.own_help, OWN)


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
    'Own data: a .jsonl, .jsonl.gz or .parquet file, or '
    'tfds:name/config:split, with {prompt, chosen, rejected} or {prompt, '
    'completion, label} or {messages}.',
  )
  model: str = field(
    'transformer',
    '`transformer`, a small one from scratch; or, with --data, a Hugging Face '
    'folder, whose weights are the start, whose tokenizer and template read.',
  )
  seeds: int = field(
    3, 'Independent repetitions: data, start, order.', within='[1, inf)'
  )
  steps: int = field(400, 'Updates.', within='[1, inf)')
  batch_size: int = field(128, 'Completions per update.', within='[1, inf)')
  learning_rate: float | None = field(
    None,
    f'Peak rate; warm-up, then a cosine. {_own("learning_rate")}',
    within='(0, inf)',
  )
  packing: Literal['packed', 'shared', 'padded'] = field(
    'packed', 'How batches are laid out; results agree to rounding.'
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
  keep_policies: bool = field(
    True, 'Save the policy of every seed, in policies/.', runtime=True
  )
  log_interval: int = field(
    50, 'Steps between metrics; 0 writes none.', within='[0, inf)', runtime=True
  )
  save_interval: int = field(
    200,
    'Steps between checkpoints; 0 saves at the end only.',
    within='[0, inf)',
    runtime=True,
  )


def run(config: Config) -> dict[str, Any]:
  """Trains one policy per seed and reports held-out nats per token."""
  asked = command(config)
  where = settings.where(config.data, config.model)
  if where not in OWN:
    raise ValueError(f'--model={config.model}: is no policy that writes text')
  settings.check_lora(vars(config))
  config = common.fill(config, OWN, where)
  mesh = make_mesh(config.mesh) if config.mesh else None
  policy = _policy(config, mesh)
  opened = common.open_run(config)
  if common.is_finished(opened):
    return opened.result
  rows = []
  with preemption() as should_stop:
    for seed in range(config.seeds):
      train, held_out = _groups(config, policy, seed)
      tuned = _one_seed(
        config, policy, seed, train, opened.directory, mesh, should_stop
      )
      rows.append(_scores(policy, seed, tuned.params, train, held_out))
      if config.keep_policies:
        keep_policy(
          opened.directory / 'policies' / f'seed_{seed}',
          policy.origin,
          tuned.params,
          _provenance(config, policy, asked, rows[-1]),
          lora=policy.lora,
          adapters=tuned.trained,
        )
  result = _report(config, policy, rows)
  storage.write_text(opened.directory / 'report.md', result.pop('text'))
  storage.write_text(
    storage.make_directory(opened.directory / 'eval') / 'seeds.jsonl',
    ''.join(json.dumps(row) + '\n' for row in rows),
  )
  rundir.finish(opened, result)
  return result


def _policy(config: Config, mesh: Mesh | None) -> Policy:
  if config.data:
    return text_policy(vars(config), mesh)
  transformer = transformer_of(vars(config), len(VOCABULARY))
  return Policy(
    build(transformer),
    origin=ballot_origin(transformer),
    lora=settings.lora_of(vars(config)),
  )


def _one_seed(
  config, policy, seed, train, directory, mesh, should_stop
) -> Tuned:
  writer = writers.combined_writer(
    [
      writers.jsonl_writer(directory / 'metrics.jsonl'),
      writers.tensorboard_writer(directory / 'tensorboard' / f'seed_{seed}'),
      writers.console_writer(num_steps=config.steps),
    ]
  )
  checkpoints = Checkpoints(directory / 'checkpoints' / f'seed_{seed}')
  tuned = fine_tune(
    policy.model,
    train,
    steps=config.steps,
    batch_size=config.batch_size,
    learning_rate=config.learning_rate,
    seed=seed,
    start=policy.params,
    lora=policy.lora,
    mesh=mesh,
    packing=config.packing,
    writer=writers.tagged_writer(writer, {'cell': f'seed {seed}'}),
    log_interval=config.log_interval,
    checkpoints=checkpoints,
    save_interval=config.save_interval,
    should_stop=should_stop,
  )
  checkpoints.close()
  writer.close()
  return tuned


def _scores(policy, seed, params, train, held_out) -> dict[str, Any]:
  before = policy.params
  if before is None:
    before = policy.model.init(jax.random.key(seed))
  return {
    'seed': seed,
    'before': nats_per_token(policy.model, before, held_out),
    'after': nats_per_token(policy.model, params, held_out),
    'on_training': nats_per_token(policy.model, params, train[: len(held_out)]),
    'held_out': len(held_out),
  }


def _provenance(config, policy, asked, row) -> Provenance:
  known = provenance_of(config.data or config.task, config.model, asked)
  return dataclasses.replace(
    known,
    loss='sft, nats per token of the completions',
    seeds=(row['seed'],),
    results={
      'parameters trained': trains(policy.lora),
      'updates': f'{config.steps} of {config.batch_size} completions',
      'held-out nats per token, before': f'{row["before"]:.4f}',
      'held-out nats per token, after': f'{row["after"]:.4f}',
    },
  )


def nats_per_token(
  model: Model, params: PyTree, groups: Sequence[Group]
) -> float:
  """Σ −log π / Σ tokens over completions, EOS counted."""
  groups = [
    dataclasses.replace(group, index=i) for i, group in enumerate(groups)
  ]
  batches = pipeline.evaluation_batches(groups, batch_size=128)
  tokens = sum(len(group.completions[0]) for group in groups)
  return float(-completion_logps(model, params, batches).sum() / tokens)


def _groups(
  config: Config, policy: Policy, seed: int
) -> tuple[list[Group], list[Group]]:
  """Training and held-out completions; groups are split, not rows."""
  if not config.data:
    sizes = BallotSizes(
      difficulty=config.difficulty,
      num_pairs=0,
      num_validation=0,
      sft_steps=config.steps,
      sft_learning_rate=config.learning_rate,
      steps=0,
      batch_size=config.batch_size,
      preference='argmax',
      packing=config.packing,
    )
    return demonstrations(seed, sizes)
  records, read = load(config.data, template=policy.reading.template)
  if seed == 0:
    print(read)
  parts = split(records, seed=seed, fractions={'train': 0.9, 'held_out': 0.1})
  check_leak(parts)
  return tuple(_encoded(config, policy, part) for part in parts.values())


def _encoded(
  config: Config, policy: Policy, records: Sequence[Any]
) -> list[Group]:
  good = []
  for record in records:
    if isinstance(record, Unpaired) and record.label:
      good.append(record)
    elif isinstance(record, Preference):
      good.append(
        Unpaired(
          prompt=record.prompt,
          completion=record.chosen,
          label=True,
          index=record.index,
          group=record.group,
          weight=record.weight,
          path=record.path,
          line=record.line,
        )
      )
  if not good:
    raise DataError(
      'holds no completion to learn from in one of the splits',
      'Give {prompt, chosen, rejected} rows, or rows with label true',
      config.data,
      field='label',
    )
  return encode(
    good,
    policy.reading.tokenizer,
    max_prompt_length=config.max_prompt_length,
    max_completion_length=config.max_completion_length,
  )[0]


def _report(config, policy, rows) -> dict[str, Any]:
  series = {
    name: np.array([row[name] for row in rows])
    for name in ('before', 'after', 'on_training')
  }
  gain = paired_difference(series['before'], series['after'])
  learned = (
    'one seed, so no interval'
    if gain.low is None
    else 'learned'
    if gain.low > 0
    else 'not shown to have learned'
  )
  shapes = jax.eval_shape(lambda: policy.model.init(jax.random.key(0)))
  vocab_size = policy.origin.config.vocab_size
  lines = [
    [name, tables.estimate(mean_interval(values))]
    for name, values in (
      ('held out, before', series['before']),
      ('held out, after', series['after']),
      ('training rows, after', series['on_training']),
    )
  ]
  lines.append(['uniform guess, log V', f'{math.log(vocab_size):.3f}'])
  text = '\n\n'.join(
    [
      f'# Supervised fine-tuning: {config.data or config.task}',
      f'{count_params(shapes):,} parameters, trained: {trains(policy.lora)}; '
      f'{config.steps} updates of {config.batch_size} '
      f'completions, {config.seeds} seeds; each redraws data, start and order; '
      'intervals are over seeds.',
      tables.table(['completions', 'nats per token'], lines),
      f'Before minus after, paired by seed: {tables.estimate(gain)} nats per '
      f'token: {learned}.',
    ]
  )
  print(text)
  return {
    'text': text + '\n',
    'after': list(mean_interval(series['after'])),
    'gain': list(gain),
  }


if __name__ == '__main__':
  common.main(Config, run)

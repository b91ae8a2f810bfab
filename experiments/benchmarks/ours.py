"""Our side of the benchmark: the step of the experiments, and its model."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from alignment.data.layout import Group, capacity_for, tabulate
from alignment.data.table import lay_out_rows
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.decoding import generate, pad_prompts
from alignment.models.lora import Lora, assembler, init_lora
from alignment.roles.learner import preference_objective, sft_objective
from alignment.roles.policy import completion_numbers
from alignment.training.mesh import jit_step
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step
from alignment.types import Batch, Frozen, Objective, PyTree
from experiments.benchmarks import jax_device
from experiments.benchmarks.workload import SIZES, Side, Texts, Work, load


def start(work: Work) -> Side:
  """Builds the model and its step; nothing of it is measured apart."""
  jax_device.keep_programs(work.cache_dir)
  return Side(
    CASES[work.case](work),
    jax_device.device(),
    ('jax', 'flax', 'optax'),
    jax_device.device_memory,
    jax_device.matmul,
    jax_device.copy,
  )


def config_of(work: Work) -> TransformerConfig:
  return TransformerConfig(
    **SIZES[work.size]._asdict(),
    matmul_dtype=work.dtype,
    attention=work.attention,
    remat=work.remat,
  )


def batches_of(work: Work) -> list[Batch]:
  """All batches, laid out before anything is timed, as a loader would."""
  texts = load(work.texts)
  groups = [
    _group(work.case, pair, logps, index)
    for index, (pair, logps) in enumerate(_pairs(texts))
  ]
  table = tabulate(groups)
  members = np.arange(len(groups)).reshape(texts.lengths.shape[:2])
  capacity = capacity_for(
    table,
    packing=work.packing,
    batch_size=members.shape[1],
    planned=list(members),
  )
  return [lay_out_rows(table, m, capacity, work.packing) for m in members]


def _pairs(texts: Texts):
  for index, logps in enumerate(texts.reference_logps):
    yield from zip(texts.batch(index), logps, strict=True)


def _group(case: str, pair, logps, index: int) -> Group:
  prompt, *completions = pair
  if case == 'sft':
    return Group(prompt, tuple(completions[:1]), index)
  return Group(
    prompt, tuple(completions), index, reference_logps=tuple(map(float, logps))
  )


def _dpo(work: Work) -> Callable[[int], float]:
  model = build(config_of(work))
  params = model.init(jax.random.key(0))
  objective = preference_objective(model, 'dpo', reference=work.reference)
  models = {'reference': params} if work.reference == 'in_step' else {}
  return _training(work, objective, params, models)


def _sft(work: Work) -> Callable[[int], float]:
  model = build(config_of(work))
  params = model.init(jax.random.key(0))
  return _training(work, sft_objective(model), params, {})


def _training(
  work: Work, objective: Objective, params: PyTree, models: dict[str, PyTree]
) -> Callable[[int], float]:
  """The jitted step of an objective; adapters where the work asks for them."""
  optimizer, assemble, key = make_optimizer(), None, jax.random.key(0)
  if work.lora:
    lora = Lora(work.lora_rank, float(work.lora_rank), path=work.lora)
    models, assemble = models | {'base': params}, assembler(lora)
    params = init_lora(params, lora, key)
  step = jit_step(make_step(objective, optimizer, assemble=assemble))
  state, frozen = init_state(params, optimizer), Frozen(models=models)
  batches = batches_of(work)

  def take(index: int) -> float:
    nonlocal state
    batch = batches[index % len(batches)]
    state, metrics = step(state, frozen, batch, key)
    jax.block_until_ready((state, metrics))
    return float(metrics['loss'].total)

  return take


def _forward(work: Work) -> Callable[[int], float]:
  """Log-probabilities of all completions, as scoring does."""
  model = build(config_of(work))
  params = model.init(jax.random.key(0))
  numbers = jax.jit(completion_numbers(model))
  batches, key = batches_of(work), jax.random.key(0)

  def score(index: int) -> float:
    found = numbers(params, batches[index % len(batches)], key)
    return float(jax.block_until_ready(found['logps']).sum())

  return score


def _decode(work: Work) -> Callable[[int], float]:
  """Greedy continuations of the prompts, none of which ends early."""
  config = config_of(work)
  params = build(config).init(jax.random.key(0))
  decode = generate(config)
  texts = load(work.texts)
  padded = [
    pad_prompts([pair[0] for pair in texts.batch(index)])
    for index in range(len(texts.lengths))
  ]
  width = max(prompts.shape[1] for prompts, _ in padded)
  batches = [
    (np.pad(prompts, ((0, 0), (0, width - prompts.shape[1]))), lengths)
    for prompts, lengths in padded
  ]

  def take(index: int) -> float:
    found = decode(
      params,
      *batches[index % len(batches)],
      max_new_tokens=work.new_tokens,
      eos_ids=(),
    )
    return float(jax.block_until_ready(found).tokens[0, -1])

  return take


CASES: dict[str, Callable[[Work], Callable[[int], float]]] = {
  'dpo': _dpo,
  'sft': _sft,
  'forward': _forward,
  'decode': _decode,
}
"""Case -> (work) -> step."""

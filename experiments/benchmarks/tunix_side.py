"""Tunix's side of the benchmark: its DPO trainer on its own Llama.

Runs under an interpreter of its own, so nothing of ours is imported but the
workload. Inputs are prepared and metrics kept as the trainer's loop does, the
reference in the step; checkpoints and logs of the loop are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import jax_device
from experiments.benchmarks.workload import SIZES, Side, Work, load


def start(work: Work) -> Side:
  jax_device.keep_programs(work.cache_dir)
  return Side(
    _dpo(work),
    jax_device.device(),
    ('jax', 'flax', 'google-tunix'),
    jax_device.device_memory,
    jax_device.matmul,
    jax_device.copy,
  )


def _dpo(work: Work) -> Callable[[int], float]:
  dpo = importlib.import_module('tunix.sft.dpo.dpo_trainer')
  optax = importlib.import_module('optax')
  trainer = dpo.DPOTrainer(
    _llama(work),
    _llama(work),
    optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-5)),
    dpo.DPOTrainingConfig(eval_every_n_steps=10**9, beta=0.1),
  )
  update = trainer.jit_train_and_eval_step(cache_nnx_graph=True)[0]
  batches = _batches(work, dpo)

  def take(index: int) -> float:
    inputs = trainer._prepare_inputs(batches[index % len(batches)])
    found = jax.block_until_ready(update(inputs))
    return float(found[0])

  return take


def _llama(work: Work) -> Any:
  module = importlib.import_module('tunix.models.llama3.model')
  nnx = importlib.import_module('flax.nnx')
  size = SIZES[work.size]
  config = module.ModelConfig(
    num_layers=size.depth,
    vocab_size=size.vocab_size,
    embed_dim=size.width,
    hidden_dim=size.mlp_width,
    num_heads=size.num_heads,
    head_dim=size.head_dim,
    num_kv_heads=size.num_kv_heads,
    rope_theta=10_000,
    norm_eps=1e-6,
    weight_tying=size.tied_head,
  )
  return module.Llama3(config, rngs=nnx.Rngs(0))


def _batches(work: Work, dpo: Any) -> list[Any]:
  """Prompts filled up on the left, completions on the right, all to the
  longest of any batch: a new shape would compile again."""
  texts = load(work.texts)
  longest = texts.lengths.max((0, 1))
  completion = int(longest[1:].max())
  batches = []
  for index in range(len(texts.lengths)):
    prompts, chosen, rejected = zip(*texts.batch(index), strict=True)
    prompt_ids, prompt_mask = _filled(prompts, int(longest[0]), left=True)
    chosen_ids, chosen_mask = _filled(chosen, completion, left=False)
    rejected_ids, rejected_mask = _filled(rejected, completion, left=False)
    batches.append(
      dpo.TrainingInput(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        chosen_ids=chosen_ids,
        chosen_mask=chosen_mask,
        rejected_ids=rejected_ids,
        rejected_mask=rejected_mask,
      )
    )
  return batches


def _filled(texts, length: int, *, left: bool) -> tuple[np.ndarray, np.ndarray]:
  tokens = np.zeros((len(texts), length), np.int32)
  mask = np.zeros_like(tokens)
  for row, text in enumerate(texts):
    where = slice(length - len(text), None) if left else slice(len(text))
    tokens[row, where], mask[row, where] = text, 1
  return tokens, mask

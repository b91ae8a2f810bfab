"""TRL's side of the benchmark: its DPO loss on a Llama of transformers.

The loss is `DPOTrainer._compute_loss` itself, with the metrics it logs, on an
object of what it reads: the trainer's loop around it is left out, in TRL's
favour. Collation is TRL's, clipping and AdamW are the trainer's defaults.
"""

from __future__ import annotations

import collections
import copy
import importlib
import types
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import torch_device
from experiments.benchmarks.workload import Side, Work, load

PER_TOKEN = ('log_probs', 'entropy', 'mean_logits', 'is_top1')
"""What the trainer has the policy's head compute."""


def start(work: Work) -> Side:
  torch_device.prepare(work)
  return Side(
    _dpo(work),
    torch_device.device(),
    ('torch', 'transformers', 'trl'),
    torch_device.device_memory,
    torch_device.matmul,
    torch_device.copy,
  )


def _dpo(work: Work) -> Callable[[int], float]:
  add_head = importlib.import_module('trl.trainer.utils').add_fused_lm_head
  trainer_module = importlib.import_module('trl.trainer.dpo_trainer')
  compute_loss = trainer_module.DPOTrainer._compute_loss
  policy = torch_device.llama(work)
  in_step = work.reference == 'in_step'
  reference = None
  if in_step and not work.lora:
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    add_head(reference)
  add_head(policy, outputs=PER_TOKEN)
  if work.lora:
    policy = _with_adapters(policy, work)
  policy.train()
  update = torch_device.updater(policy)
  batches = _batches(work, trainer_module)
  trainer = _trainer(policy, reference, precomputed=not in_step)

  def take(index: int) -> float:
    with torch_device.autocast(work):
      loss = compute_loss(
        trainer, policy, batches[index % len(batches)], return_outputs=False
      )
    loss.backward()
    update()
    value = loss.item()
    torch_device.wait()
    return value

  return take


def _batches(work: Work, trainer_module: Any) -> list[dict[str, Any]]:
  """Collated by TRL before they are timed, as its loader would."""
  texts = load(work.texts)
  collate = trainer_module.DataCollatorForPreference(pad_token_id=0)
  batches = []
  for index, logps in enumerate(texts.reference_logps):
    rows = []
    for pair, both in zip(texts.batch(index), logps, strict=True):
      row = dict(
        zip(
          ('prompt_ids', 'chosen_ids', 'rejected_ids'),
          (ids.tolist() for ids in pair),
          strict=True,
        )
      )
      if work.reference == 'precomputed':
        row['ref_chosen_logps'], row['ref_rejected_logps'] = map(float, both)
      rows.append(row)
    collated = collate(rows)
    batches.append(
      {name: x.to(torch_device.place()) for name, x in collated.items()}
    )
  return batches


def _trainer(policy: Any, reference: Any, *, precomputed: bool) -> Any:
  """What the loss reads of its trainer, on one process."""
  torch = importlib.import_module('torch')

  def same(value: Any) -> Any:
    return value

  return types.SimpleNamespace(
    beta=0.1,
    label_smoothing=0.0,
    ld_alpha=None,
    use_weighting=False,
    f_divergence_type='reverse_kl',
    f_alpha_divergence_coef=0.5,
    loss_types=['sigmoid'],
    loss_weights=[1.0],
    model=policy,
    ref_model=reference,
    precompute_ref_logps=precomputed,
    accelerator=types.SimpleNamespace(
      gather=same,
      gather_for_metrics=same,
      unwrap_model=same,
      device=torch.device(torch_device.place()),
    ),
    args=types.SimpleNamespace(gradient_checkpointing_kwargs=None),
    aux_loss_enabled=False,
    _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
    _total_train_tokens=0,
    _tp_size=1,
  )


def _with_adapters(model: Any, work: Work) -> Any:
  peft = importlib.import_module('peft')
  return peft.get_peft_model(
    model,
    peft.LoraConfig(
      r=work.lora_rank,
      lora_alpha=work.lora_rank,
      target_modules='all-linear',
      task_type='CAUSAL_LM',
    ),
  )

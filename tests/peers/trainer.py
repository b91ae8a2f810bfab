"""The DPO loss of TRL without the trainer that usually surrounds it."""

import collections
import types

from tests.peers.installed import peer

PER_TOKEN = (
  'log_probs',
  'entropy',
  'log_sum_sq_probs',
  'mean_logits',
  'is_top1',
)
"""What the loss reads of a model; the last two only to log them."""


def trl_dpo_loss(
  model,
  inputs,
  *,
  loss_types=('sigmoid',),
  loss_weights=None,
  reference=None,
  tau=0.05,
  **settings,
):
  """TRL's own `DPOTrainer._compute_loss`, on an object of what it reads.

  Args:
    model: called as TRL calls a model with its fused head.
    inputs: a collated batch.
    loss_types: names of TRL.
    loss_weights: one for each; None is 1 for each.
    reference: the reference model; None where the batch brings its logps.
    tau: of DiscoPOP.
    **settings: other attributes of the trainer; beta has no default.

  Returns:
    The scalar loss, and what the trainer would have logged.
  """
  itself = types.SimpleNamespace(gather=lambda x: x)
  itself.gather_for_metrics = itself.gather
  itself.device = peer('torch').device('cpu')
  arguments = types.SimpleNamespace(
    discopop_tau=tau, gradient_checkpointing_kwargs=None
  )
  trainer = types.SimpleNamespace(
    **{
      'label_smoothing': 0.0,
      'ld_alpha': None,
      'use_weighting': False,
      'f_divergence_type': 'reverse_kl',
      'f_alpha_divergence_coef': 0.5,
      **settings,
    },
    loss_types=loss_types,
    loss_weights=loss_weights or [1.0] * len(loss_types),
    model=model,
    ref_model=reference,
    precompute_ref_logps=reference is None,
    accelerator=itself,
    args=arguments,
    aux_loss_enabled=False,
    _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
    _total_train_tokens=0,
    _tp_size=1,
  )
  dpo = peer('trl').DPOTrainer
  loss = dpo._compute_loss(trainer, model, inputs, return_outputs=False)
  (logged,) = trainer._metrics.values()
  return loss, {name: values[0] for name, values in logged.items()}

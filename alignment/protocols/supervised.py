"""Supervised fine-tuning: the start of every alignment run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from alignment.data import pipeline
from alignment.data.layout import Group
from alignment.models.lora import Lora, merge
from alignment.models.model import Model
from alignment.protocols.trainable import trained, trained_step
from alignment.roles.learner import sft_objective
from alignment.training.checkpoints import Checkpoints
from alignment.training.loop import train
from alignment.training.mesh import (
  param_shardings,
  place,
  row_shards,
  state_shardings,
)
from alignment.training.optimizer import make_optimizer, set_learning_rate
from alignment.training.step import init_state
from alignment.training.writers import Writer
from alignment.types import Frozen, PyTree, Step


class Tuned(NamedTuple):
  """What fine-tuning gives.

  Attributes:
    params: of the model, adapters merged.
    trained: params, or adapters.
  """

  params: PyTree
  trained: PyTree


def fine_tune(
  model: Model,
  groups: Sequence[Group],
  *,
  steps: int,
  batch_size: int,
  learning_rate: float,
  seed: int,
  start: PyTree | None = None,
  lora: Lora | None = None,
  mesh: Mesh | None = None,
  packing: str = 'packed',
  writer: Writer | None = None,
  log_interval: int = 50,
  checkpoints: Checkpoints | None = None,
  save_interval: int = 0,
  should_stop: Callable[[int], bool] = lambda step: False,
) -> Tuned:
  """Maximises the likelihood of the groups' completions.

  Args:
    model: the policy.
    groups: one completion each.
    steps: updates.
    batch_size: examples in each.
    learning_rate: the peak; it warms up over a tenth of the steps and falls to
      a tenth along a cosine.
    seed: of the initialisation and the order.
    start: params to continue from, left as they are; None initialises.
    lora: adapters are trained; None: all parameters.
    mesh: of the devices; None is one device.
    packing: key of PACKINGS.
    writer: of the metrics, every `log_interval` steps.
    log_interval: steps.
    checkpoints: where the run is kept and resumed from; None keeps nothing.
    save_interval: steps between saves; 0 saves at the end and when stopped.
    should_stop: asked after every step; True raises `Preempted`.

  Returns:
    The parameters, and what was trained of them.
  """
  optimizer, step = _compiled_step(model, steps, mesh, lora)
  key = jax.random.key(seed)
  base = model.init(key) if start is None else start
  state = init_state(trained(base, lora, seed), optimizer)
  state = state.replace(
    opt_state=set_learning_rate(state.opt_state, learning_rate)
  )
  if mesh is not None:
    state = place(state, state_shardings(state, mesh))
    if lora:
      base = place(base, param_shardings(base, mesh), copy=False)

  def batches(start_step: int):
    return pipeline.batches(
      groups,
      batch_size=batch_size,
      seed=seed,
      packing=packing,
      start_step=start_step,
      row_multiple=row_shards(mesh) if mesh else 1,
    )

  state = train(
    step,
    state,
    Frozen(models={'base': base} if lora else {}),
    batches,
    num_steps=steps,
    key=key,
    writer=writer,
    log_interval=log_interval,
    checkpoints=checkpoints,
    save_interval=save_interval,
    should_stop=should_stop,
  )
  params = merge(base, state.params, lora.scale) if lora else state.params
  return Tuned(params, state.params)


@functools.cache
def _compiled_step(
  model: Model, steps: int, mesh: Mesh | None, lora: Lora | None
) -> tuple[optax.GradientTransformation, Step]:
  optimizer = make_optimizer(
    schedule='cosine',
    warmup_steps=steps // 10,
    num_steps=steps,
    final_fraction=0.1,
  )
  step = trained_step(model, sft_objective(model), optimizer, mesh, lora)
  return optimizer, step

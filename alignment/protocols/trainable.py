"""What is trained of a model, all of it or adapters, and the step that does."""

from __future__ import annotations

import jax
import optax
from jax.sharding import Mesh

from alignment.models.lora import Lora, assembler, init_lora
from alignment.models.model import Model
from alignment.training.mesh import jit_step, state_shardings
from alignment.training.step import init_state, make_step
from alignment.types import Objective, PyTree, Step, TrainState


def trained(start: PyTree, lora: Lora | None, seed: int) -> PyTree:
  """`start` itself, or adapters that do not change it yet."""
  if lora is None:
    return start
  _, key = jax.random.split(jax.random.key(seed))
  return init_lora(start, lora, key)


def trained_step(
  model: Model,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  mesh: Mesh | None = None,
  lora: Lora | None = None,
) -> Step:
  """The compiled step of an objective, for one device or a mesh.

  With `lora`, it trains adapters on `frozen.models['base']`.
  """
  step = make_step(objective, optimizer, assemble=lora and assembler(lora))
  if mesh is None:
    return jit_step(step)

  def fresh() -> TrainState:
    start = model.init(jax.random.key(0))
    return init_state(trained(start, lora, 0), optimizer)

  return jit_step(step, mesh, state_shardings(jax.eval_shape(fresh), mesh))

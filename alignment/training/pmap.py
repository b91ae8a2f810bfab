"""The train step as a pmap: data-parallel, for any loss, in one file."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax
from jax import lax

from alignment.training import step as whole
from alignment.types import Array, Batch, Frozen, Objective, Step, TrainState


def pmap_step(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  assemble: whole.Assemble | None = None,
) -> Step:
  """The step of `make_step` over all devices of one process.

  `prepare` and `loss` see the whole batch, on every device alike, so that they
  may couple rows; each device runs `numbers` on its own rows and pulls back its
  own slice of the cotangent; gradients are summed. A reference computed in
  `prepare` is computed by every device: precompute it. `assemble`: `make_step`.

  Returns:
    (state, frozen, batch, key) -> (state, metrics), the state stacked by
    `replicate` and donated, everything else as for one device.

  Raises:
    ValueError: several processes; when called, rows that do not divide.
  """
  if jax.process_count() > 1:
    raise ValueError('pmap_step serves one process; use jit_step over a mesh')
  count = jax.local_device_count()

  def one_device(state: TrainState, frozen: Frozen, rows: Batch, key: Array):
    keys = whole.stream_keys(key, state.step)
    gather = functools.partial(lax.all_gather, axis_name='devices', tiled=True)
    batch = jax.tree.map(gather, rows)
    over = whole.over_trained(objective, assemble, frozen)
    batch, extra = whole.prepare(over, state, frozen, batch, keys['prepare'])
    values, pull = jax.vjp(
      lambda p: over.numbers(p, _own_rows(batch), keys['numbers']), state.params
    )
    values = jax.tree.map(gather, values)
    loss = functools.partial(whole.total_loss, objective, batch, frozen.hyper)
    cotangent = jax.grad(loss, has_aux=True)(values)[0]
    grads = lax.psum(pull(_own_rows(cotangent))[0], 'devices')
    metrics = whole.report(loss, values, cotangent, batch)
    return whole.update(state, optimizer, grads, extra, metrics)

  mapped = jax.pmap(
    one_device, 'devices', in_axes=(0, None, 0, None), donate_argnums=0
  )

  def step(state: TrainState, frozen: Frozen, batch: Batch, key: Array):
    whole.check_rows(batch, count, 'devices')
    rows = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    state, metrics = mapped(state, frozen, rows, key)
    return state, jax.tree.map(lambda x: x[0], metrics)

  return step


def replicate(state: TrainState) -> TrainState:
  """The state stacked once per local device, as `pmap_step` takes it."""
  # Under the step's axis name, or its second call would compile again.
  spread = jax.pmap(lambda _, tree: tree, 'devices', in_axes=(0, None))
  return spread(np.arange(jax.local_device_count()), state)


def _own_rows(tree: Batch) -> Batch:
  def cut(x: Array) -> Array:
    size = x.shape[0] // lax.axis_size('devices')
    return lax.dynamic_slice_in_dim(x, lax.axis_index('devices') * size, size)

  return jax.tree.map(cut, tree)

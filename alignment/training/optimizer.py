"""AdamW and SGD whose peak learning rate is an array in their state."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from alignment.types import Array, PyTree

SCHEDULES = ('constant', 'linear', 'cosine')


def make_optimizer(
  *,
  name: Literal['adamw', 'sgd'] = 'adamw',
  learning_rate: float = 1e-3,
  schedule: Literal['constant', 'linear', 'cosine'] = 'constant',
  warmup_steps: int = 0,
  num_steps: int | None = None,
  final_fraction: float = 0.0,
  max_grad_norm: float | None = 1.0,
  weight_decay: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  momentum: float = 0.0,
) -> optax.GradientTransformation:
  """clip by global norm, adapt, decay, then − learning_rate · multiplier(step).

  The peak `learning_rate` sits in the state, so that one compiled step serves
  a sweep over rates (`set_learning_rate`). Weight decay is decoupled, scaled by
  the rate in force, and spares norms, biases and other one-dimensional arrays.

  Args:
    name: `adamw` (with b1, b2, eps) or `sgd` (with momentum).
    learning_rate: > 0, the peak.
    schedule: shape after warm-up, see `multiplier`.
    warmup_steps: ≥ 0.
    num_steps: updates of the run; required unless `constant`.
    final_fraction: in [0, 1], the multiplier at `num_steps`.
    max_grad_norm: > 0, or None not to clip.
    weight_decay: ≥ 0, per unit of learning rate.
    b1: in [0, 1).
    b2: in [0, 1).
    eps: > 0.
    momentum: in [0, 1); 0 unless `sgd`.

  Raises:
    ValueError: a value outside its range.

  Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization",
  arXiv:1711.05101.
  """
  _check(
    name, learning_rate, max_grad_norm, weight_decay, b1, b2, eps, momentum
  )
  if name == 'adamw':
    adapt = [optax.scale_by_adam(b1, b2, eps)]
  else:
    adapt = [optax.trace(momentum)] if momentum else []
  if max_grad_norm is not None:
    adapt = [_clip(max_grad_norm), *adapt]
  if weight_decay:
    adapt.append(optax.add_decayed_weights(weight_decay, decays))
  scale = multiplier(schedule, warmup_steps, num_steps, final_fraction)

  def chain(learning_rate: Array) -> optax.GradientTransformation:
    return optax.chain(
      *adapt,
      optax.scale_by_schedule(scale),
      optax.scale_by_learning_rate(learning_rate),
    )

  # A Python float would be weakly typed at first and recompile the step.
  return optax.inject_hyperparams(chain)(
    learning_rate=jnp.asarray(learning_rate, jnp.float32)
  )


def _clip(max_grad_norm: float) -> optax.GradientTransformation:
  """Gradients · min(1, max_grad_norm / their global norm).

  One factor, where `optax.clip_by_global_norm` divides, multiplies and selects:
  XLA then writes no scaled copy of the gradients.
  """

  def clip(grads: PyTree, state: PyTree, params: PyTree = None):
    del params
    norm = optax.tree.norm(grads)
    factor = jnp.where(norm < max_grad_norm, 1.0, max_grad_norm / norm)
    return jax.tree.map(lambda grad: grad * factor, grads), state

  return optax.GradientTransformation(lambda _: optax.EmptyState(), clip)


def set_learning_rate(opt_state: PyTree, learning_rate: float) -> PyTree:
  """The optimiser state with another peak learning rate; nothing recompiles.

  Raises:
    ValueError: `learning_rate` ≤ 0.
  """
  if not learning_rate > 0:
    raise ValueError(f'learning_rate must be > 0, got {learning_rate!r}')
  rate = jnp.asarray(learning_rate, jnp.float32)
  return opt_state._replace(
    hyperparams={**opt_state.hyperparams, 'learning_rate': rate}
  )


def multiplier(
  schedule: str,
  warmup_steps: int,
  num_steps: int | None,
  final_fraction: float = 0.0,
) -> optax.Schedule:
  """What the peak learning rate is multiplied by, as a function of the update.

  warm-up: (update + 1) / warmup_steps for update < warmup_steps; then, with
  t = (update − warmup_steps) / (num_steps − warmup_steps) clipped to [0, 1],

    constant: 1
    linear: 1 − t (1 − final_fraction)
    cosine: final_fraction + (1 − final_fraction) (1 + cos πt) / 2

  Raises:
    ValueError: an unknown schedule, `warmup_steps` < 0, `final_fraction`
      outside [0, 1], or a schedule that ends without `num_steps` > warm-up.
  """
  if schedule not in SCHEDULES:
    raise ValueError(f'schedule must be one of {SCHEDULES}, got {schedule!r}')
  if warmup_steps < 0:
    raise ValueError(f'warmup_steps must be ≥ 0, got {warmup_steps!r}')
  if not 0 <= final_fraction <= 1:
    raise ValueError(f'final_fraction must be in [0, 1], got {final_fraction}')
  decaying = schedule != 'constant'
  if decaying and (num_steps is None or num_steps <= warmup_steps):
    raise ValueError(
      f'num_steps must be > warmup_steps = {warmup_steps} for a {schedule} '
      f'schedule, got {num_steps!r}'
    )

  def scale(update: Array) -> Array:
    update = jnp.asarray(update, jnp.float32)
    rising = jnp.minimum(1.0, (update + 1) / max(warmup_steps, 1))
    if not decaying:
      return rising
    t = jnp.clip((update - warmup_steps) / (num_steps - warmup_steps), 0, 1)
    left = 1 - t if schedule == 'linear' else (1 + jnp.cos(jnp.pi * t)) / 2
    return rising * (final_fraction + (1 - final_fraction) * left)

  return scale


def decays(params: PyTree) -> PyTree:
  """True for every array that weight decay pulls on: matrices and above.

  Layers stacked on a first axis turn a norm's scale into a matrix, so names
  that end in `norm`, `scale` or `bias` are spared as well.
  """

  def decay(path, leaf: Array) -> bool:
    names = [str(getattr(k, 'key', k)).lower() for k in path]
    spared = ('norm', 'scale', 'bias')
    return leaf.ndim > 1 and not any(n.endswith(spared) for n in names)

  return jax.tree_util.tree_map_with_path(decay, params)


def _check(
  name, learning_rate, max_grad_norm, weight_decay, b1, b2, eps, momentum
) -> None:
  if name not in ('adamw', 'sgd'):
    raise ValueError(f"name must be 'adamw' or 'sgd', got {name!r}")
  for what, value in (('learning_rate', learning_rate), ('eps', eps)):
    if not value > 0:
      raise ValueError(f'{what} must be > 0, got {value!r}')
  for what, value in (('b1', b1), ('b2', b2), ('momentum', momentum)):
    if not 0 <= value < 1:
      raise ValueError(f'{what} must be in [0, 1), got {value!r}')
  if momentum and name != 'sgd':
    raise ValueError(f"momentum must be 0 unless 'sgd', got {momentum!r}")
  if weight_decay < 0:
    raise ValueError(f'weight_decay must be ≥ 0, got {weight_decay!r}')
  if max_grad_norm is not None and not max_grad_norm > 0:
    raise ValueError(f'max_grad_norm must be > 0, got {max_grad_norm!r}')

"""Smooth objectives without constraints, minimised for many weights at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from alignment.types import Array


class Minimum(NamedTuple):
  """Where a descent ended; every field with a leading `[S]`.

  Attributes:
    params: as the start.
    value: of the objective.
    iterations: of L-BFGS.
    converged: False where the iterations ran out.
  """

  params: Any
  value: Array
  iterations: Array
  converged: Array


def minimise(
  objective: Callable[..., Array],
  start: Any,
  weights: Array,
  *,
  tolerance: float,
  max_iterations: int,
) -> Minimum:
  """L-BFGS with gradients by autodiff, once per row of weights.

  Stops where no entry of the gradient exceeds `tolerance`. With an objective
  in nats and parameters scaled to a curvature of about 1, that is the distance
  left to go as a share of a standard error.

  Args:
    objective: (params, weights) -> scalar; traced, pure.
    start: pytree of arrays, the same for every row.
    weights: `[S, ...]`, whatever the objective takes one row of.
    tolerance: > 0.
    max_iterations: ≥ 1.
  """
  solver = optax.lbfgs(memory_size=10)

  def one(weights: Array) -> Minimum:
    def loss(params: Any) -> Array:
      return objective(params, weights)

    value_and_grad = optax.value_and_grad_from_state(loss)

    def steepest(state: Any) -> Array:
      gradient = optax.tree.get(state, 'grad')
      return optax.tree.norm(gradient, ord=jnp.inf)

    def goes_on(carry: tuple[Any, Any, Array]) -> Array:
      _, state, count = carry
      unsolved = (count == 0) | (steepest(state) > tolerance)
      return unsolved & (count < max_iterations)

    def step(carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
      params, state, count = carry
      value, gradient = value_and_grad(params, state=state)
      updates, state = solver.update(
        gradient, state, params, value=value, grad=gradient, value_fn=loss
      )
      return optax.apply_updates(params, updates), state, count + 1

    first = start, solver.init(start), jnp.zeros((), jnp.int32)
    params, state, count = jax.lax.while_loop(goes_on, step, first)
    return Minimum(params, loss(params), count, steepest(state) <= tolerance)

  return jax.vmap(one)(weights)

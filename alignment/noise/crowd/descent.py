"""Smooth objectives without constraints, minimised once per set of weights.

SciPy's L-BFGS leaves the device at every step and Optax's compiles for five
seconds; this one is short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from alignment.types import Array

_MEMORY = 10
_HALVINGS = 30
_SUFFICIENT = 1e-4
"""Share of the promised decrease that a step has to bring (Armijo)."""
_ROUNDING = 1e-13
"""Relative rise of the objective that may be rounding."""


class Minimum(NamedTuple):
  """Where a descent ended; every field with a leading `[S]`.

  Attributes:
    params: as the start.
    value: of the objective.
    iterations: steps taken.
    converged: False where the iterations, or the steps that help, ran out.
  """

  params: Any
  value: Array
  iterations: Array
  converged: Array


class _State(NamedTuple):
  """Place, objective and gradient there, and the last M steps, newest first:
  `moves`, `turns` of the gradient, and their products, 0 where unused."""

  place: Array
  value: Array
  gradient: Array
  moves: Array
  turns: Array
  curvatures: Array
  iterations: Array
  is_stuck: Array


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
  left to go as a share of a standard error. Steps are halved until they bring
  a fair share of what they promise; pairs of negative curvature are forgotten.

  Args:
    objective: (params, weights) -> scalar; traced, pure.
    start: pytree of arrays, the same for every row.
    weights: `[S, ...]`, whatever the objective takes one row of.
    tolerance: > 0.
    max_iterations: ≥ 1.

  Source: Nocedal, Updating quasi-Newton matrices with limited storage, 1980.
  """
  first, unravel = ravel_pytree(start)

  def one(weight: Array) -> Minimum:
    look = jax.value_and_grad(lambda place: objective(unravel(place), weight))

    def is_low(state: _State) -> Array:
      return jnp.max(jnp.abs(state.gradient)) <= tolerance

    def goes_on(state: _State) -> Array:
      left = ~state.is_stuck & (state.iterations < max_iterations)
      return (state.iterations < 0) | (left & ~is_low(state))

    memory = jnp.zeros((_MEMORY, len(first)), first.dtype)
    # The first step only looks: from infinity down, with nothing to move.
    state = _State(
      place=first,
      value=jnp.array(jnp.inf, first.dtype),
      gradient=jnp.zeros_like(first),
      moves=memory,
      turns=memory,
      curvatures=jnp.zeros(_MEMORY, first.dtype),
      iterations=jnp.array(-1),
      is_stuck=jnp.array(False),
    )
    state = jax.lax.while_loop(goes_on, lambda s: _step(look, s), state)
    return Minimum(
      unravel(state.place), state.value, state.iterations, is_low(state)
    )

  # Side by side, all would wait for the slowest; only a GPU makes up for it.
  is_cpu = jax.default_backend() == 'cpu'
  return jax.lax.map(one, weights, batch_size=1 if is_cpu else len(weights))


def _step(
  look: Callable[[Array], tuple[Array, Array]], state: _State
) -> _State:
  """One quasi-Newton step; `look` gives value and gradient."""
  direction = _direction(state)
  slope = direction @ state.gradient
  is_first = state.iterations < 0
  slack = jnp.where(is_first, 0, _ROUNDING * jnp.abs(state.value))

  def is_short(carry: tuple) -> Array:
    length, _, value, _, count = carry
    low = value <= state.value + _SUFFICIENT * 2 * length * slope + slack
    return ~low & (count < _HALVINGS)

  def halve(carry: tuple) -> tuple:
    length, _, _, _, count = carry
    place = state.place + length * direction
    return length / 2, place, *look(place), count + 1

  none = jnp.array(jnp.nan, state.value.dtype)
  first = jnp.array(1.0), state.place, none, state.gradient, 0
  _, place, value, gradient, count = jax.lax.while_loop(is_short, halve, first)
  is_stuck = count == _HALVINGS
  move, turn = place - state.place, gradient - state.gradient
  curvature = move @ turn
  is_useful = curvature > 1e-8 * jnp.linalg.norm(move) * jnp.linalg.norm(turn)

  def push(memory: Array, newest: Array) -> Array:
    shifted = jnp.concatenate([newest[None], memory[:-1]])
    return jnp.where(is_useful & ~is_stuck, shifted, memory)

  return _State(
    place=jnp.where(is_stuck, state.place, place),
    value=jnp.where(is_stuck, state.value, value),
    gradient=jnp.where(is_stuck, state.gradient, gradient),
    moves=push(state.moves, move),
    turns=push(state.turns, turn),
    curvatures=push(state.curvatures, curvature),
    iterations=state.iterations + 1,
    is_stuck=is_stuck,
  )


def _direction(state: _State) -> Array:
  """−(approximate inverse Hessian) @ gradient, by the two loops."""
  is_known = state.curvatures > 0
  inverse = jnp.where(is_known, 1 / jnp.where(is_known, state.curvatures, 1), 0)

  def back(index: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    vector, shares = carry
    share = inverse[index] * (state.moves[index] @ vector)
    return vector - share * state.turns[index], shares.at[index].set(share)

  def forth(index: int, vector: Array) -> Array:
    index = _MEMORY - 1 - index
    share = inverse[index] * (state.turns[index] @ vector)
    return vector + (shares[index] - share) * state.moves[index]

  vector, shares = jax.lax.fori_loop(
    0, _MEMORY, back, (state.gradient, jnp.zeros_like(state.curvatures))
  )
  steepness = jnp.sum(state.turns[0] ** 2)
  scale = jnp.where(
    is_known[0],
    state.curvatures[0] / jnp.where(is_known[0], steepness, 1),
    1 / jnp.maximum(jnp.linalg.norm(state.gradient), 1),
  )
  return -jax.lax.fori_loop(0, _MEMORY, forth, scale * vector)

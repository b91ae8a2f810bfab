"""How every arm is trained: the same grid, start and order for all."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Plan(NamedTuple):
  """How every arm is trained.

  Attributes:
    width: hidden units, 0 for a linear model.
    steps: updates.
    num_stops: evenly spaced stops, at which an arm is scored.
    batch_size: rows of an update.
    learning_rates: the grid; the first is the fixed one.
    estimator: of the transition: 'confident_joint' or 'anchors'.
    keep_rows: whether a row says which test rows were right.
  """

  width: int
  steps: int
  num_stops: int
  batch_size: int
  learning_rates: tuple[float, ...]
  estimator: str = 'confident_joint'
  keep_rows: bool = False

  @property
  def steps_per_stop(self) -> int:
    return self.steps // self.num_stops


def orders(seed: int, num_learners: int, size: int, plan: Plan) -> jax.Array:
  """`[L, steps, batch]`: shuffled passes over all rows, per learner."""
  passes_of = []
  for number in range(num_learners):
    rng = np.random.default_rng([seed, number])
    needed = plan.steps * plan.batch_size
    passes = [rng.permutation(size) for _ in range(-(-needed // size))]
    passes_of.append(np.concatenate(passes)[:needed])
  shape = (num_learners, plan.steps, plan.batch_size)
  return jnp.asarray(np.stack(passes_of).reshape(shape))

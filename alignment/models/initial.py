"""How parameters start."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from alignment.types import Array

Initializer = Callable[[Array, tuple[int, ...]], Array]
"""(key, shape) -> float32."""

TABLE_SCALE = 0.02
"""Standard deviation of tables by token or position: logits near 0."""


def normal(scale: float) -> Initializer:
  """Independent normal numbers of standard deviation `scale`."""

  def start(key: Array, shape: tuple[int, ...]) -> Array:
    # Drawn flat: a draw with four axes compiles several times more slowly.
    drawn = jax.random.normal(key, (math.prod(shape),), jnp.float32)
    return scale * drawn.reshape(shape)

  return start


def fan_in(inputs: int) -> Initializer:
  """Normal with variance 1 / `inputs`."""
  return normal(inputs**-0.5)

"""What a model is to everyone above: pure functions over its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from alignment.types import Array, Batch, PyTree


class Model(NamedTuple):
  """A model as pure functions; parameters are an argument of each.

  Attributes:
    init: key -> params, a nested dictionary of float32 arrays.
    statistics: (params, batch, names) -> name -> `[R, L]` float32, 0 on
      padding. Names: `token_logps` log π(target), nats; `token_entropy`
      −Σ π log π, nats; `token_log_sum_squares` log Σ π². Differentiable.
    rewards: (params, batch) -> `[R, N]` float32, one number per completion
      read at its last token, 0 in empty slots. Differentiable.
  """

  init: Callable[[Array], PyTree]
  statistics: Callable[[PyTree, Batch, tuple[str, ...]], dict[str, Array]]
  rewards: Callable[[PyTree, Batch], Array]


def count_params(params: PyTree) -> int:
  """The number of parameters of a tree of arrays (or of their shapes)."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))

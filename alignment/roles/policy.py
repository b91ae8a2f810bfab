"""The policy: from a model's per-token statistics to numbers per completion."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from alignment.models.model import Model
from alignment.types import Array, Batch, Numbers, PyTree


def completion_numbers(
  model: Model, statistics: tuple[str, ...] = ()
) -> Callable[[PyTree, Batch, Array], Numbers]:
  """The numbers of a policy, (params, batch, key) -> Numbers.

    logps[r, n] = Σ over l with slot[r, l] = n, token_logps[r, l]

  Args:
    model: whose `statistics` are read.
    statistics: further names, returned per token as they are.

  Returns:
    A function of (params, batch, key); the key is not used. It returns
    `logps` `[R, N]`, nats, and each of `statistics` `[R, L]`.
  """
  names = tuple(dict.fromkeys(('token_logps', *statistics)))

  def numbers(params: PyTree, batch: Batch, key: Array) -> Numbers:
    del key
    tokens = model.statistics(params, batch, names)
    logps = completion_sums(tokens['token_logps'], batch)
    return {'logps': logps, **{name: tokens[name] for name in statistics}}

  return numbers


def reward_numbers(
  model: Model,
) -> Callable[[PyTree, Batch, Array], Numbers]:
  """The numbers of a reward model: `logps` are its rewards, `[R, N]`.

  A preference loss without a reference then fits the reward by Bradley-Terry.
  """

  def numbers(params: PyTree, batch: Batch, key: Array) -> Numbers:
    del key
    return {'logps': model.rewards(params, batch)}

  return numbers


def completion_sums(values: Array, batch: Batch) -> Array:
  """Σ of `values` over the tokens of each completion.

  Sums under a mask rather than by a matrix product: a NaN stays in its own
  completion, padding never counts, and it costs little for
  the few slots of a row.

  Args:
    values: `[R, L]`.
    batch: whose `slot` says where each token belongs.

  Returns:
    `[R, N]`, 0 in empty slots.
  """
  slots = jnp.arange(batch.completions.length.shape[-1])
  member = batch.slot[:, :, None] == slots
  return jnp.sum(jnp.where(member, values[:, :, None], 0.0), axis=1)

"""The policy: from a model's per-token statistics to numbers per completion."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from alignment.losses.margins import length_desensitised
from alignment.models.model import Model
from alignment.types import Array, Batch, Numbers, PyTree


def completion_numbers(
  model: Model,
  statistics: tuple[str, ...] = (),
  *,
  ld_alpha: float | None = None,
) -> Callable[[PyTree, Batch, Array], Numbers]:
  """The numbers of a policy, (params, batch, key) -> Numbers.

    logps[r, n] = Σ over l with slot[r, l] = n, token_logps[r, l]
    ld_logps = logps of the first shared_lengths tokens
               + ld_alpha · logps of the rest

  Args:
    model: whose `statistics` are read.
    statistics: further names, returned per token as they are.
    ld_alpha: in [0, 1]; asks for `ld_logps`.

  Returns:
    A function of (params, batch, key); the key is not used. It returns
    `logps` `[R, N]`, nats, each of `statistics` `[R, L]`, and `ld_logps`
    `[R, N]` where it was asked for.
  """
  names = tuple(dict.fromkeys(('token_logps', *statistics)))

  def numbers(params: PyTree, batch: Batch, key: Array) -> Numbers:
    del key
    tokens = model.statistics(params, batch, names)
    token_logps = tokens['token_logps']
    logps = completion_sums(token_logps, batch)
    found = {'logps': logps, **{name: tokens[name] for name in statistics}}
    if ld_alpha is not None:
      shared = completion_sums(token_logps, batch, shared_lengths(batch))
      found['ld_logps'] = length_desensitised(shared, logps - shared, ld_alpha)
    return found

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


def completion_sums(
  values: Array, batch: Batch, first: Array | None = None
) -> Array:
  """Σ of `values` over the tokens of each completion.

  Sums under a mask rather than by a matrix product: a NaN stays in its own
  completion, padding never counts, and it costs little for the few slots of a
  row.

  Args:
    values: `[R, L]`.
    batch: whose `slot` says where each token belongs.
    first: `[R, N]`, how many leading tokens of each completion to count; None
      counts all.

  Returns:
    `[R, N]`, 0 in empty slots.
  """
  member = _members(batch)
  if first is not None:
    entry = jnp.arange(batch.slot.shape[1])[:, None]
    start = jnp.min(jnp.where(member, entry, entry.size), axis=1, keepdims=True)
    member &= entry < start + first[:, None, :]
  return jnp.sum(jnp.where(member, values[:, :, None], 0.0), axis=1)


def shared_lengths(batch: Batch) -> Array:
  """Tokens that a completion shares in length with the one it is paired with.

    shared[r, n] = min over examples e with n among chosen[e] and rejected[e] of
                   min(length[chosen[e]], length[rejected[e]])

  Symmetric in chosen and rejected: a flip does not change it.

  Returns:
    `[R, N]` int32; a completion in no example keeps its own length.
  """
  examples, length = batch.examples, batch.completions.length
  slots = jnp.arange(length.shape[-1])
  real = (examples.weight > 0)[:, :, None]
  chosen = (examples.chosen[:, :, None] == slots) & real
  rejected = (examples.rejected[:, :, None] == slots) & real
  shorter = jnp.minimum(
    jnp.sum(jnp.where(chosen, length[:, None, :], 0), axis=-1),
    jnp.sum(jnp.where(rejected, length[:, None, :], 0), axis=-1),
  )
  paired = jnp.where(chosen | rejected, shorter[:, :, None], length[:, None, :])
  return jnp.min(paired, axis=1)


def _members(batch: Batch) -> Array:
  """`[R, L, N]` bool: this token belongs to that completion."""
  slots = jnp.arange(batch.completions.length.shape[-1])
  return batch.slot[:, :, None] == slots

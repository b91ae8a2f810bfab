"""Attention over prompt trees: who sees whom, and the weighted mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax

from alignment.types import Array

HIDDEN = -1e30
"""Score of a pair that may not meet: finite, and exp of it is exactly 0."""


def visibility(group: Array, branch: Array) -> Array:
  """Who sees whom in a row of prompt trees.

  visible[i, j] = j ≤ i ∧ group[j] = group[i] > 0 ∧ branch[j] ∈ {0, branch[i]}

  A padding token (group 0) sees itself and nothing else, which gives its
  softmax something to normalise and leaks nothing.

  Args:
    group: `[R, T]` int32.
    branch: `[R, T]` int32.

  Returns:
    `[R, T, T]` bool, query by key.
  """
  length = group.shape[-1]
  causal = jnp.tril(jnp.ones((length, length), bool))
  query_group, key_group = group[:, :, None], group[:, None, :]
  query_branch, key_branch = branch[:, :, None], branch[:, None, :]
  same_group = (query_group == key_group) & (query_group > 0)
  on_path = (key_branch == 0) | (key_branch == query_branch)
  return (causal & same_group & on_path) | jnp.eye(length, dtype=bool)


@struct.dataclass
class Sight:
  """Who sees whom in a batch, prepared once for all layers of a forward pass.

  Attributes:
    positions: `[R, T]` int32, what windows are measured in.
    visible: `[R, T, T]` bool of `visibility`.
  """

  positions: Array
  visible: Array


def sight(positions: Array, group: Array, branch: Array) -> Sight:
  """What `attend` needs to know of a batch.

  Args:
    positions: `[R, T]` int32, inside the group.
    group: `[R, T]` int32, 0 is padding.
    branch: `[R, T]` int32, 0 is the prompt.
  """
  return Sight(positions, visibility(group, branch))


def attend(
  query: Array,
  key: Array,
  value: Array,
  sight: Sight,
  *,
  scale: float,
  softcap: float | None = None,
  window: Array | int | None = None,
) -> Array:
  """Softmax attention with grouped keys and values, in float32.

  score[i, j] = cap(scale · query[i] · key[j]), cap(x) = softcap tanh(x/softcap)
  out[i] = Σ_j softmax_j(score[i]) value[j] over visible j with
           positions[i] − positions[j] < window

  Args:
    query: `[R, T, H, G, F]`, G query heads for each of H key-value heads.
    key: `[R, T, H, F]`.
    value: `[R, T, H, F]`.
    sight: of the batch.
    scale: > 0.
    softcap: > 0; None leaves the scores as they are.
    window: ≥ 1, a number or an int32 scalar; None sees all that is visible.

  Returns:
    `[R, T, H, G, F]` float32; of padding, anything finite.
  """
  highest = lax.Precision.HIGHEST
  scores = jnp.einsum(
    'rihgf,rjhf->rhgij', query * scale, key, precision=highest
  )
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  visible = sight.visible
  if window is not None:
    at = sight.positions
    visible &= at[:, :, None] - at[:, None, :] < window
  scores = jnp.where(visible[:, None, None], scores, HIDDEN)
  weights = jax.nn.softmax(scores, axis=-1)
  return jnp.einsum('rhgij,rjhf->rihgf', weights, value, precision=highest)

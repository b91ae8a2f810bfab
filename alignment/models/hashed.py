"""A linear reward on hashed features, for text no small model can read."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from alignment.models.model import Model
from alignment.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True)
class HashedConfig:
  """Sizes of the hashed reward.

  Attributes:
    num_buckets: ≥ 1; token ids are bucket numbers below it.

  Raises:
    ValueError: a value outside its range.
  """

  num_buckets: int

  def __post_init__(self):
    if self.num_buckets < 1:
      raise ValueError(f'num_buckets must be ≥ 1, got {self.num_buckets!r}')


def hashed_reward(num_buckets: int) -> Model:
  """The Bradley-Terry reward r(y) = w · φ(y) / ‖φ(y)‖ as a model.

  The tokens of a completion are the ids of its distinct features, so that φ is
  an indicator and ‖φ‖ = √length:

    token_logps[l] = w[target[l]] / √length[slot[l]]

  and the sum over a completion, its "logps", is the reward. Preference losses
  without a reference then fit a linear Bradley-Terry model. w starts at 0;
  prompts are not read.

  Args:
    num_buckets: ≥ 1; ids outside [0, num_buckets) contribute nothing.

  Returns:
    A model with the statistic `token_logps` only.

  Raises:
    ValueError: `num_buckets` < 1, or another statistic asked for.
  """
  config = HashedConfig(num_buckets)

  def init(key: Array) -> PyTree:
    del key
    return {'weight': jnp.zeros(config.num_buckets, jnp.float32)}

  def statistics(
    params: PyTree, batch: Batch, names: tuple[str, ...]
  ) -> dict[str, Array]:
    for name in names:
      if name != 'token_logps':
        raise ValueError(f"names must be ('token_logps',), got {names!r}")
    return {name: token_scores(params, batch) for name in names}

  def token_scores(params: PyTree, batch: Batch) -> Array:
    slots = batch.completions.length.shape[-1]
    slot = jnp.clip(batch.slot, 0, slots - 1)
    length = jnp.take_along_axis(batch.completions.length, slot, axis=1)
    scale = jnp.maximum(length, 1).astype(jnp.float32) ** -0.5
    known = (batch.target >= 0) & (batch.target < config.num_buckets)
    counted = known & (batch.slot >= 0) & (batch.slot < slots)
    weight = params['weight'][jnp.where(counted, batch.target, 0)]
    return jnp.where(counted, weight * scale, 0.0)

  def rewards(params: PyTree, batch: Batch) -> Array:
    slots = np.arange(batch.completions.length.shape[-1])
    member = batch.slot[:, :, None] == slots
    scores = token_scores(params, batch)[:, :, None]
    return jnp.sum(jnp.where(member, scores, 0.0), axis=1)

  return Model(init, statistics, rewards)

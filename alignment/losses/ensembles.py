"""Several reward models in place of one: what a committee says of a text.

`ENSEMBLES[name](rewards, …)` takes `[M, ...]`, M members, and gives `[...]`.
All but `mean` are conservative: they score low what the members disagree on.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from alignment.losses.numerics import as_float, check_range
from alignment.types import Array


def centred(rewards: Array) -> Array:
  """Rewards of one prompt's completions less their mean, per member.

  Comparisons leave every member free to add a constant to each prompt. A
  difference of two completions does not see it, the minimum and the spread
  over members do: without this they partly measure those constants.

  Args:
    rewards: `[M, ..., K]`, the completions of a prompt along the last axis;
      the same ones for every member.
  """
  rewards = as_float(rewards)
  return rewards - jnp.mean(rewards, axis=-1, keepdims=True)


def mean(rewards: Array) -> Array:
  """Mean over members.

    reward = Σ_m rewards[m] / M

  Source: Coste et al., Reward Model Ensembles Help Mitigate Overoptimization,
  2023, arXiv 2310.02743.
  """
  return jnp.mean(as_float(rewards), axis=0)


def worst(rewards: Array) -> Array:
  """Worst case: the member that likes it least.

    reward = min_m rewards[m]

  Source: Coste et al., Reward Model Ensembles Help Mitigate Overoptimization,
  2023, arXiv 2310.02743 (WCO).
  """
  return jnp.min(as_float(rewards), axis=0)


def mean_minus_std(rewards: Array, *, penalty: Array | float = 1.0) -> Array:
  """Lower confidence bound, in the unit of the rewards.

    reward = mean − penalty·√(Σ_m (rewards[m] − mean)² / M)

  Its gradient is 0, not NaN, where all members agree.

  Raises:
    ValueError: penalty, known at trace time, is negative.

  Source: Zhai et al., Uncertainty-Penalized Reinforcement Learning from Human
  Feedback, 2024, arXiv 2401.00243.
  """
  check_range('penalty', penalty, 0.0, jnp.inf, '[)')
  variance = jnp.var(as_float(rewards), axis=0)
  spread = jnp.where(variance > 0, variance, 1.0)
  return mean(rewards) - penalty * jnp.where(
    variance > 0, jnp.sqrt(spread), 0.0
  )


def mean_minus_variance(
  rewards: Array, *, penalty: Array | float = 0.5
) -> Array:
  """Uncertainty-weighted: the mean less the variance over members.

    reward = mean − penalty·Σ_m (rewards[m] − mean)² / M

  Depends on the scale of the rewards, unlike `mean_minus_std`.

  Raises:
    ValueError: penalty, known at trace time, is negative.

  Source: Coste et al., Reward Model Ensembles Help Mitigate Overoptimization,
  2023, arXiv 2310.02743 (UWO).
  """
  check_range('penalty', penalty, 0.0, jnp.inf, '[)')
  return mean(rewards) - penalty * jnp.var(as_float(rewards), axis=0)


ENSEMBLES = {
  'mean': mean,
  'worst': worst,
  'mean_minus_std': mean_minus_std,
  'mean_minus_variance': mean_minus_variance,
}


class Strength(NamedTuple):
  """What reward models that never saw a pair make of its label.

  Attributes:
    mean: `[B]`, μ̂ of the margins chosen − rejected; < 0 contradicts the label.
    std: `[B]`, σ̂ over the models that count.
    count: `[B]`, how many models count.
  """

  mean: np.ndarray
  std: np.ndarray
  count: np.ndarray


def label_strength(margins: np.ndarray, has_seen: np.ndarray) -> Strength:
  """Mean and spread of a pair's margin over the models not trained on it.

    mean_b = Σ_{m: not has_seen[m, b]} margins[m, b] / count_b

  Args:
    margins: `[M, B]`, chosen − rejected as labelled, logits.
    has_seen: `[M, B]` bool, model m was trained on pair b or on another pair
      of its group.

  Raises:
    ValueError: shapes differ, a margin that counts is not finite, or a pair
      that every model was trained on.

  Source: Wang et al., Secrets of RLHF Part II, 2024, arXiv 2401.06080, where
  the models judge the very pairs they were trained on and so have fitted the
  flips they are to find; here they do not.
  """
  margins, has_seen = np.asarray(margins, np.float64), np.asarray(has_seen)
  if margins.ndim != 2 or has_seen.shape != margins.shape:
    raise ValueError(
      f'has_seen has shape {has_seen.shape} and margins {margins.shape}; both '
      'must be [M, B]'
    )
  counted = ~has_seen.astype(bool)
  count = counted.sum(axis=0)
  if not count.all():
    first = int(np.argmin(count))
    raise ValueError(
      f'has_seen[:, {first}] is all True: pair {first} must be left out by a '
      'model that judges it'
    )
  if not np.isfinite(margins[counted]).all():
    raise ValueError('margins must be finite where has_seen is False')
  kept = np.where(counted, margins, 0.0)
  average = kept.sum(axis=0) / count
  squares = np.where(counted, (margins - average) ** 2, 0.0)
  return Strength(average, np.sqrt(squares.sum(axis=0) / count), count)


def weakest(strength: Strength, share: float) -> np.ndarray:
  """Which labels the models contradict most: those to flip.

  Args:
    strength: of B pairs.
    share: in [0, 1], the most that are returned: the floor of share·B pairs of
      the lowest mean, and of those only the ones below 0 (a label that the
      models confirm is not flipped to fill a quota).

  Returns:
    `[B]` bool.

  Raises:
    ValueError: share is outside [0, 1].

  Source: Wang et al., Secrets of RLHF Part II, 2024, arXiv 2401.06080, who
  flip the bottom 10 or 20 % outright.
  """
  check_range('share', share, 0.0, 1.0)
  chosen = np.zeros(len(strength.mean), bool)
  # .29 · 100 is 28.999999999999996 in floating point, and means 29.
  count = int(np.floor(share * chosen.size + 1e-9))
  chosen[np.argsort(strength.mean, kind='stable')[:count]] = True
  return chosen & (strength.mean < 0)

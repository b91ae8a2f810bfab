"""Co-teaching: each of two learners trains on what its peer finds easy."""

from __future__ import annotations

import jax.numpy as jnp

from alignment.losses.numerics import check_range
from alignment.noise.detection.small_loss import smallest
from alignment.types import Array


def keep_share(
  epoch: Array | float,
  *,
  flip_rate: Array | float,
  ramp: float = 10.0,
  exponent: float = 1.0,
) -> Array:
  """How much is kept: 1 − flip_rate·min(epoch^exponent / ramp, 1).

  Args:
    epoch: ≥ 0, how often the data were seen.
    flip_rate: in [0, 1), what is dropped in the end.
    ramp: > 0, where the full rate is reached.
    exponent: > 0.

  Raises:
    ValueError: a range above is violated, where known at trace time.

  Source: Han et al., Co-teaching, 2018, arXiv 1804.06872.
  """
  check_range('epoch', epoch, 0.0, jnp.inf, '[)')
  check_range('flip_rate', flip_rate, 0.0, 1.0, '[)')
  check_range('ramp', ramp, 0.0, jnp.inf, '()')
  check_range('exponent', exponent, 0.0, jnp.inf, '()')
  reached = jnp.minimum(jnp.asarray(epoch) ** exponent / ramp, 1.0)
  return 1.0 - flip_rate * reached


def peer_weights(
  first_losses: Array,
  second_losses: Array,
  weights: Array,
  share: Array | float,
) -> tuple[Array, Array]:
  """What each learner trains on: the peer's smallest losses.

  The two must differ (start, order of the data), or each confirms itself.

  Args:
    first_losses: `[B]` of the first learner on the batch.
    second_losses: `[B]` of the second.
    weights: `[B]` ≥ 0.
    share: in [0, 1], `keep_share`.

  Returns:
    `[B]` weights for the first and for the second learner.

  Source: as `keep_share`. Their code divides the mean loss by the number kept
  once more; here the weights leave the scale alone.
  """
  return (
    smallest(second_losses, weights, share),
    smallest(first_losses, weights, share),
  )

"""From numbers per completion to flat vectors of pairs."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from alignment.types import Array, Batch

NEUTRAL_LOGPS = -1.0
NEUTRAL_SMOOTHING = 0.25
"""What empty example slots hold: values where every loss and its gradient is
finite, as 0 · inf would be NaN."""


@struct.dataclass
class Pairs:
  """Every example slot of a batch, `[B]` with B = R · E.

  Attributes:
    policy_chosen_logps: nats.
    policy_rejected_logps: nats.
    reference_chosen_logps: nats.
    reference_rejected_logps: nats.
    chosen_lengths: tokens.
    rejected_lengths: tokens.
    label_smoothing: in [0, ½).
    label_prob: in [0, 1].
    weight: ≥ 0; 0 in empty slots, whose other values are neutral constants.
    coefficient: multiplies the loss.
  """

  policy_chosen_logps: Array
  policy_rejected_logps: Array
  reference_chosen_logps: Array
  reference_rejected_logps: Array
  chosen_lengths: Array
  rejected_lengths: Array
  label_smoothing: Array
  label_prob: Array
  weight: Array
  coefficient: Array

  @property
  def mask(self) -> Array:
    """`[B]` bool, False in empty slots."""
    return self.weight > 0

  def swapped(self) -> Pairs:
    """Chosen and rejected exchanged, under the same label arguments."""
    return self.replace(
      policy_chosen_logps=self.policy_rejected_logps,
      policy_rejected_logps=self.policy_chosen_logps,
      reference_chosen_logps=self.reference_rejected_logps,
      reference_rejected_logps=self.reference_chosen_logps,
      chosen_lengths=self.rejected_lengths,
      rejected_lengths=self.chosen_lengths,
    )


def gather_pairs(logps: Array, reference_logps: Array, batch: Batch) -> Pairs:
  """Reads chosen and rejected of every example; empty slots become neutral.

  Args:
    logps: `[R, N]`, the policy's.
    reference_logps: `[R, N]`.
    batch: the rest.
  """
  examples = batch.examples
  real = examples.weight > 0

  def neutral(values: Array, instead: float) -> Array:
    return jnp.where(real, values, instead).ravel()

  def both(values: Array, instead: float) -> tuple[Array, Array]:
    chosen = at_slots(values, examples.chosen)
    rejected = at_slots(values, examples.rejected)
    return neutral(chosen, instead), neutral(rejected, instead)

  return Pairs(
    *both(logps, NEUTRAL_LOGPS),
    *both(reference_logps, NEUTRAL_LOGPS),
    *both(batch.completions.length, 1),
    label_smoothing=neutral(examples.label_smoothing, NEUTRAL_SMOOTHING),
    label_prob=neutral(examples.label_prob, 1.0),
    weight=neutral(examples.weight, 0.0),
    coefficient=neutral(examples.coefficient, 1.0),
  )


def at_slots(values: Array, slots: Array) -> Array:
  """values[r, slots[r, e]], `[R, N]` and `[R, E]` to `[R, E]`.

  Selects under a mask: its gradient is another selection, not a scatter, and a
  NaN in a slot that nobody picks stays there.
  """
  picked = slots[:, :, None] == jnp.arange(values.shape[-1])
  return jnp.sum(jnp.where(picked, values[:, None, :], 0), axis=-1)

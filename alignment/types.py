"""The shapes every floor speaks: batches, noisy labels, sums, train state.

Shape letters: `B` examples, `R` rows, `T` tokens of a row, `L` predicted
tokens of a row, `N` completion slots of a row, `E` example slots of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
PyTree = Any
Numbers = Mapping[str, Array]
"""What a model says about a batch: name -> `[R, N]` or `[R, L]`, float32."""


@struct.dataclass
class Weighted:
  """A mean kept as its two sums until it is written.

  Attributes:
    total: scalar, Σ weight · value.
    weight: scalar, Σ weight.
  """

  total: Array
  weight: Array

  @classmethod
  def of(cls, values: Array, weights: Array) -> Weighted:
    """Sums `values` under `weights`; NaN where the weight is 0 is ignored."""
    values = jnp.where(weights > 0, values, 0.0)
    return cls(jnp.sum(weights * values), jnp.sum(weights))

  def __add__(self, other: Weighted) -> Weighted:
    return Weighted(self.total + other.total, self.weight + other.weight)

  def mean(self) -> Array:
    """total / weight, 0 where nothing was counted."""
    empty = self.weight == 0
    return jnp.where(
      empty, 0.0, self.total / jnp.where(empty, 1.0, self.weight)
    )


@struct.dataclass
class Term:
  """One named part of a loss: coefficient · total / normaliser.

  Attributes:
    total: scalar, the sum of the unreduced loss over the global batch.
    normaliser: scalar, what it is divided by (pairs, tokens, Σ weights, …).
    coefficient: scalar multiplier.
  """

  total: Array
  normaliser: Array
  coefficient: Array | float = 1.0

  def value(self) -> Array:
    empty = self.normaliser == 0
    safe = jnp.where(empty, 1.0, self.normaliser)
    return jnp.where(empty, 0.0, self.coefficient * self.total / safe)


@struct.dataclass
class Examples:
  """Per-example arrays of a batch, each `[R, E]`; empty slots: weight 0.

  Attributes:
    chosen: int32, the row's completion slot labelled better (a flip swaps
      `chosen` and `rejected`; tokens and cached reference stay). For data
      without pairs: the one completion.
    rejected: int32, the slot labelled worse; equals `chosen` without pairs.
    weight: float32 ≥ 0, multiplicity; enters the denominator.
    coefficient: float32, multiplies the loss and does not enter the
      denominator.
    label_prob: float32 in [0, 1], P(chosen ≻ rejected) given by the labeller.
    label_smoothing: float32 in [0, ½), the flip rate the loss assumes.
    annotator_id: int32, −1 where unknown.
    index: int32, stable over epochs, layouts and runs; −1 in empty slots.
  """

  chosen: Array
  rejected: Array
  weight: Array
  coefficient: Array
  label_prob: Array
  label_smoothing: Array
  annotator_id: Array
  index: Array


@struct.dataclass
class Completions:
  """Per-completion arrays of a batch, each `[R, N]`; empty slots: length 0.

  Attributes:
    length: int32, predicted tokens of the completion (EOS counted).
    reference_logps: float32, Σ log π_ref, nats.
    reward: float32.
    advantage: float32.
  """

  length: Array
  reference_logps: Array
  reward: Array
  advantage: Array


@struct.dataclass
class Blocks:
  """Which blocks of tokens see which, as lists of static length.

  A row of `T` tokens is `M` blocks of `size` tokens, the last one cut short. A
  list has `n` blocks of queries; each sees at most `W` blocks.

  Attributes:
    queries: of each list `[R, n]` int32, the blocks of queries; `M` where none.
    keys: of each list `[R, n, W]` int32, the blocks they see, in order; `M`
      where none.
    place: `[R, M]` int32, where a block stands in the lists, end to end; their
      length where it is all padding and stands in none.
    size: tokens of a block.
  """

  queries: tuple[Array, ...]
  keys: tuple[Array, ...]
  place: Array
  size: int = struct.field(pytree_node=False)


@struct.dataclass
class Batch:
  """Prompt trees: a row holds groups, a group a prompt and its completions.

  Attributes:
    tokens: `[R, T]` int32.
    positions: `[R, T]` int32, inside the group; every branch restarts right
      after the prompt.
    group: `[R, T]` int32, which group of the row; 0 is padding.
    branch: `[R, T]` int32, 0 the prompt, k ≥ 1 its k-th completion.
    source: `[R, L]` int32, the position in the row whose hidden state predicts
      the target (for the first token of every branch the last prompt token).
    target: `[R, L]` int32, the token id.
    slot: `[R, L]` int32, the completion slot that receives it; padding is `N`.
      The entries of a slot are contiguous and in order.
    examples: `[R, E]` arrays.
    completions: `[R, N]` arrays.
    blocks: for attention that costs what texts cost; None where whole rows
      cost about as much, or nobody has planned it.
  """

  tokens: Array
  positions: Array
  group: Array
  branch: Array
  source: Array
  target: Array
  slot: Array
  examples: Examples
  completions: Completions
  blocks: Blocks | None = None


@struct.dataclass
class NoisyLabels:
  """Labels after noise, and the truth about what happened to them.

  Attributes:
    label: `[B]` bool, True where the first completion of the pair is labelled
      better; of C classes, int32 in [0, C).
    is_flipped: `[B]` bool, label ≠ clean label.
    flip_rate: `[B]` float32, the true probability that this label flips.
    label_prob: `[B]` float32 in [0, 1], how sure the labeller is of `label`: ½
      is a tie. None where every label is as good as certain.
    weight: `[B]` float32 ≥ 0; 0 where the labeller gave none. None where all
      count alike.
  """

  label: Array
  is_flipped: Array
  flip_rate: Array
  label_prob: Array | None = None
  weight: Array | None = None


@struct.dataclass
class TrainState:
  """Arrays only.

  Attributes:
    step: int32 scalar, updates taken (a refused, non-finite one counts).
    params: what is trained.
    opt_state: optax state; the learning rate sits in it.
    extra: the objective's own state (running means, tables by index).
  """

  step: Array
  params: PyTree
  opt_state: PyTree
  extra: PyTree


@struct.dataclass
class Frozen:
  """What a step reads and never changes: an argument, never closed over.

  Attributes:
    models: name -> params of reference, judge, …
    hyper: name -> traced scalar (`beta`, …): a sweep over values compiles once.
  """

  models: Mapping[str, PyTree] = struct.field(default_factory=dict)
  hyper: Mapping[str, Array] = struct.field(default_factory=dict)


Metrics = Mapping[str, Weighted]


class Objective(NamedTuple):
  """What a train step optimises: three pure functions and one promise.

  Attributes:
    prepare: (params, frozen, extra, batch, key, step) -> (batch, extra), no
      gradient: reference logps, advantages, baselines, tables by `index`.
    numbers: (params, batch, key) -> Numbers, the only differentiable use of
      the model, strictly per row.
    loss: (numbers, batch, hyper) -> (name -> Term, Metrics), mathematics over
      the whole global batch.
    separable: True if every term is a sum over rows and its normaliser reads
      the batch only: ∂²loss/∂numbers[r]∂numbers[r'] = 0 for r ≠ r'.
  """

  prepare: Callable[..., tuple[Batch, PyTree]]
  numbers: Callable[..., Numbers]
  loss: Callable[..., tuple[Mapping[str, Term], Metrics]]
  separable: bool = True


Step = Callable[
  [TrainState, Frozen, Batch, Array], tuple[TrainState, Mapping[str, Any]]
]
"""(state, frozen, batch, key) -> (state, metrics)."""

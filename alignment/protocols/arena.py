"""Where losses meet: one seed's data, start and yardstick, shared by all."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from alignment.data import pipeline
from alignment.data.layout import Group, fill_reference
from alignment.data.records import Report, Vote
from alignment.models.lora import PATHS, Lora
from alignment.models.model import Model
from alignment.protocols import ledger
from alignment.protocols.policies import Origin
from alignment.protocols.trainable import trained
from alignment.training.writers import Writer, tagged_writer
from alignment.types import Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
  """Preference pairs with the best labels known about them.

  Attributes:
    groups: n groups of two completions; `index` equals the position, `chosen`
      is the best label known (the clean one where the truth is known).
    observed_flip: `[n]` bool, the label at hand differs from the best known
      (a crowd vote against the majority); noise is injected on top of it.
    cluster: `[n]` int, what was split and is resampled: a debate, a prompt.
    gold_margin: `[n]` float, gold reward of completion 0 minus that of 1;
      NaN where unknown.
    vote_share: `[n]` float in [0, 1], the share of trusted held-out votes for
      completion 0, what a prediction is scored against (0 or 1 for one label).
    vote_count: `[n]` float, how many votes that share is of.
    votes: n tuples of the votes on a pair that name a winner, +1 where it is
      completion 0; the one at hand stands first. Empty without votes.
    known: name -> `[n, …]`, what else a noise model may read; see
      `catalogue.DATA`.
  """

  groups: Sequence[Group]
  observed_flip: np.ndarray
  cluster: np.ndarray
  gold_margin: np.ndarray
  vote_share: np.ndarray
  vote_count: np.ndarray
  votes: Sequence[tuple[Vote, ...]] = ()
  known: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.groups)

  @functools.cached_property
  def first_is_better(self) -> np.ndarray:
    """`[n]` bool, the best label known: completion 0 over completion 1."""
    return np.array([g.chosen == 0 for g in self.groups], bool)

  @functools.cached_property
  def lengths(self) -> np.ndarray:
    """`[n, 2]` predicted tokens of the completions."""
    return np.array([[len(c) for c in g.completions] for g in self.groups])


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
  """What the yardstick says of a policy.

  Attributes:
    summary: name -> number (`accuracy`, and `gold`, `kl`, … where exact).
    correct: `[n_test]` the expected agreement with a held-out label, per pair.
    curves: name -> list of numbers, for figures.
  """

  summary: Mapping[str, float]
  correct: np.ndarray
  curves: Mapping[str, list[float]]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """Pairs, and what is needed to score them.

  Attributes:
    pairs: n pairs.
    batches: all their completions; every pair once, unless there are places.
    reference: `[n, 2]` Σ log π_ref of the completions, nats.
    places: `[n, 2, 2]`, the example of `batches` and the completion of it that
      a completion of a pair is (see `distinct_trees`); None where the examples
      of `batches` are the pairs.
  """

  pairs: Pairs
  batches: Sequence[Batch]
  reference: np.ndarray
  places: np.ndarray | None = None

  def of_pairs(self, table: np.ndarray) -> np.ndarray:
    """From numbers of the completions in `batches` to those of the pairs.

    Args:
      table: `[m, K]`, as `completion_logps` gives them.

    Returns:
      `[n, 2]`.
    """
    if self.places is None:
      return table
    return table[self.places[..., 0], self.places[..., 1]]


@dataclasses.dataclass(frozen=True, eq=False)
class Arena:
  """All that the contestants of one seed share.

  Attributes:
    seed: what was redrawn: data, noise, start, order.
    model: the policy's pure functions.
    start: params every contestant starts from; also the reference.
    train, validation, test: disjoint in `pairs.cluster`.
    order: training batches, one a step, with the best known labels.
    floor: what the yardstick says of the start, ranked by its own logps.
    yardstick: (params, margin) -> Measured, where margin is the contestant's
      own score of the test pairs, `[n_test]`, completion 0 minus 1.
    rules: name -> `[n_test]` agreement of predictors that read no words.
    reports: what was dropped or truncated between the data and the pairs.
    origin: what is saved with a policy; None for one that is a mere reward.
    lora: contestants train adapters of `start`; None: all parameters.
  """

  seed: int
  model: Model
  start: PyTree
  train: Split
  validation: Split
  test: Split
  order: Sequence[Batch]
  floor: Mapping[str, float]
  yardstick: Callable[[PyTree, np.ndarray], Measured]
  rules: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  reports: Sequence[Report] = ()
  origin: Origin | None = None
  lora: Lora | None = None

  def trained(self) -> PyTree:
    """What a contestant trains, as it starts: params, or adapters."""
    return trained(self.start, self.lora, self.seed)

  def policy(self, trained: PyTree) -> PyTree:
    """The model's params, made from what a contestant trained."""
    if self.lora is None:
      return trained
    return PATHS[self.lora.path](self.start, trained, self.lora.scale)


def training_order(
  train: Split,
  *,
  seed: int,
  steps: int,
  batch_size: int,
  packing: str,
  row_multiple: int = 1,
) -> list[Batch]:
  """The batches of a run, reference included, laid out once for everybody.

  Texts and references are put on the device; labels stay numpy, since every
  contestant sees others. `row_multiple` divides the rows of a batch (devices).
  """
  batches = pipeline.batches(
    train.pairs.groups,
    batch_size=batch_size,
    seed=seed,
    packing=packing,
    row_multiple=row_multiple,
  )
  filled = [
    fill_reference(batch, train.reference)
    for batch in itertools.islice(batches, steps)
  ]
  return [
    jax.device_put(batch.replace(examples=None)).replace(
      examples=batch.examples
    )
    for batch in filled
  ]


def build_arenas(
  build_one: Callable[..., list[Arena]],
  seeds: int,
  threads: int,
  writer: Writer,
) -> list[list[Arena]]:
  """The arenas of every seed, built side by side.

  The first of a seed is what is compared; beside a transformer on real text
  there is one of hashed words, on the same pairs.

  Args:
    build_one: (seed, writer=…) -> its arenas.
    seeds: how many.
    threads: seeds at a time.
    writer: of the metrics of supervised starts.
  """

  def build_seed(seed: int) -> list[Arena]:
    return build_one(
      seed, writer=tagged_writer(writer, {'cell': f'sft seed {seed}'})
    )

  return ledger.in_threads(build_seed, range(seeds), threads)


def agreement(pairs: Pairs, margin: np.ndarray) -> np.ndarray:
  """Expected agreement of a margin's sign with a held-out label, `[n]`.

  Args:
    pairs: n pairs with their `vote_share`.
    margin: `[n]` score of completion 0 minus that of completion 1.

  Returns:
    `[n]` in [0, 1]; a margin of exactly 0 counts ½.
  """
  share = np.asarray(pairs.vote_share, float)
  return np.where(
    margin > 0, share, np.where(margin < 0, 1 - share, 0.5)
  ).astype(float)

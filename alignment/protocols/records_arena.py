"""The arena of one's own preferences: real text, labels that are all one has.

There is no gold reward. The yardstick is agreement with a held-out label,
which is itself noisy; clusters (titles, first turns) are split, never rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from alignment.data import pipeline, splits
from alignment.data.encoding import encode
from alignment.data.records import Preference, Record, Report, VotedPair
from alignment.data.tokenizers import Tokenizer
from alignment.data.votes import one_vote
from alignment.models.model import Model
from alignment.protocols.arena import (
  Arena,
  Measured,
  Pairs,
  Split,
  agreement,
  training_order,
)
from alignment.protocols.supervised import fine_tune
from alignment.roles.scoring import completion_logps
from alignment.training.writers import Writer
from alignment.types import PyTree


@dataclasses.dataclass(frozen=True)
class RecordSizes:
  """How much is read of the records, and how they are trained on.

  Attributes:
    num_pairs: training pairs at most; 0 takes all.
    max_prompt_length, max_completion_length: tokens; see `encode`.
    sft_steps: of the supervised start on chosen completions; 0 starts from the
      model's initialisation.
    sft_learning_rate: its peak rate.
    steps, batch_size: preference steps, and pairs in each.
    packing: key of PACKINGS.
    row_multiple: divides the rows of a training batch (devices).
  """

  num_pairs: int
  max_prompt_length: int | None
  max_completion_length: int | None
  sft_steps: int
  sft_learning_rate: float
  steps: int
  batch_size: int
  packing: str
  row_multiple: int = 1


@dataclasses.dataclass(frozen=True)
class _Pair:
  """A record in the order (first, second), with what is known about it."""

  record: Preference
  first_is_better: bool
  observed_flip: bool
  vote_share: float
  vote_count: float


def records_arena(
  seed: int,
  model: Model,
  tokenizer: Tokenizer,
  records: Sequence[Record],
  sizes: RecordSizes,
  *,
  writer: Writer | None = None,
  should_stop: Callable[[int], bool] = lambda step: False,
) -> tuple[Arena, list[Report]]:
  """Redraws from `seed`: the split by cluster, the vote, start and order.

  Args:
    seed: one number, one arena.
    model: over the tokenizer's vocabulary.
    tokenizer: of the text.
    records: preferences, or pairs with votes: then one vote per pair is the
      label at hand and the majority the best known.
    sizes: see above.
    writer: of the supervised start's metrics.
    should_stop: asked by its loop.

  Returns:
    The arena, and what was dropped or truncated in each split.
  """
  divided = splits.split(records, seed=seed)
  splits.check_leak(divided)
  if sizes.num_pairs:
    divided['train'] = divided['train'][: sizes.num_pairs]
  rng = np.random.default_rng([seed, 0x0A1])
  reports, pairs = [], {}
  for name, part in divided.items():
    oriented = _oriented(part, seed, rng)
    pairs[name], report = _pairs(oriented, tokenizer, sizes)
    reports.append(dataclasses.replace(report, source=f'{name} split'))
  params = _start(model, pairs['train'], sizes, seed, writer, should_stop)
  scored = {name: _split(model, params, part) for name, part in pairs.items()}
  yardstick = _yardstick(pairs['test'])
  arena = Arena(
    seed=seed,
    model=model,
    start=params,
    **scored,
    order=training_order(
      scored['train'],
      seed=seed,
      steps=sizes.steps,
      batch_size=sizes.batch_size,
      packing=sizes.packing,
      row_multiple=sizes.row_multiple,
    ),
    floor=yardstick(params, -np.diff(scored['test'].reference)[:, 0]).summary,
    yardstick=yardstick,
  )
  return arena, reports


def _oriented(part: Sequence[Record], seed: int, rng) -> list[_Pair]:
  """Pairs in an order that carries no meaning, with their best known label."""
  if isinstance(part[0], VotedPair):
    return _of_votes(part, seed)
  oriented = []
  for record, swap in zip(part, rng.random(len(part)) < 0.5, strict=True):
    flipped = bool(record.is_flipped)
    better = (not swap) != flipped
    if swap:
      record = dataclasses.replace(
        record, chosen=record.rejected, rejected=record.chosen
      )
    oriented.append(_Pair(record, better, flipped, float(better), 1.0))
  return oriented


def _of_votes(part: Sequence[VotedPair], seed: int) -> list[_Pair]:
  by_index = {pair.index: pair for pair in part}
  oriented = []
  for record in one_vote(part, seed=seed)[0]:
    pair = by_index[record.index]
    named = [vote.value for vote in pair.votes if vote.value]
    observed = record.chosen == pair.first
    lead = sum(named)
    # A tie names no majority; the vote at hand is then all that is known.
    best = lead > 0 if lead else observed
    record = dataclasses.replace(
      record, chosen=pair.first, rejected=pair.second
    )
    share = (1 + lead / len(named)) / 2
    oriented.append(_Pair(record, best, best != observed, share, len(named)))
  return oriented


def _pairs(
  oriented: Sequence[_Pair], tokenizer: Tokenizer, sizes: RecordSizes
) -> tuple[Pairs, Report]:
  groups, report = encode(
    [pair.record for pair in oriented],
    tokenizer,
    max_prompt_length=sizes.max_prompt_length,
    max_completion_length=sizes.max_completion_length,
  )
  known = {pair.record.index: pair for pair in oriented}
  kept = [known[group.index] for group in groups]
  groups = [
    dataclasses.replace(
      group,
      index=position,
      chosen=0 if pair.first_is_better else 1,
      rejected=1 if pair.first_is_better else 0,
    )
    for position, (group, pair) in enumerate(zip(groups, kept, strict=True))
  ]
  return Pairs(
    groups=groups,
    observed_flip=np.array([pair.observed_flip for pair in kept]),
    cluster=np.array([pair.record.group for pair in kept]),
    gold_margin=np.full(len(kept), np.nan),
    vote_share=np.array([pair.vote_share for pair in kept]),
    vote_count=np.array([pair.vote_count for pair in kept]),
  ), report


def _start(model, pairs, sizes, seed, writer, should_stop) -> PyTree:
  if not sizes.sft_steps:
    return model.init(jax.random.key(seed))
  chosen = [
    dataclasses.replace(
      group, completions=(group.completions[label],), chosen=0, rejected=0
    )
    for group, label in zip(
      pairs.groups,
      # The labels at hand: the start must not see better ones.
      np.where(pairs.first_is_better ^ pairs.observed_flip, 0, 1),
      strict=True,
    )
  ]
  return fine_tune(
    model,
    chosen,
    steps=sizes.sft_steps,
    batch_size=sizes.batch_size,
    learning_rate=sizes.sft_learning_rate,
    seed=seed,
    writer=writer,
    should_stop=should_stop,
  )


def _split(model: Model, params: PyTree, pairs: Pairs) -> Split:
  batches = pipeline.evaluation_batches(pairs.groups, batch_size=64)
  return Split(pairs, batches, completion_logps(model, params, batches))


def _yardstick(pairs: Pairs) -> Callable[[PyTree, np.ndarray], Measured]:
  def measure(params: PyTree, margin: np.ndarray) -> Measured:
    del params  # Nothing but the pairs is known about real text.
    correct = agreement(pairs, margin)
    return Measured({'accuracy': float(correct.mean())}, correct, {})

  return measure

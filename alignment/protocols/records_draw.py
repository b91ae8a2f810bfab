"""One seed's draw from real preferences: folds by cluster, votes, orientation.

Clusters (titles, first turns) are divided, never rows, and seeds rotate
through the folds, so that `NUM_FOLDS` seeds test every cluster once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alignment.data import splits
from alignment.data.chat_template import ChatTemplate
from alignment.data.encoding import encode
from alignment.data.layout import Group
from alignment.data.records import (
  DataError,
  Preference,
  Record,
  Report,
  Unpaired,
  Vote,
  VotedPair,
)
from alignment.data.tokenizers import Tokenizer
from alignment.data.votes import one_vote
from alignment.protocols.arena import Pairs, agreement

NUM_FOLDS = 5
"""A test set is one fold of this many."""
VALIDATION_FOLDS = 6
"""A validation set is one fold of this many of the rest."""
MIN_CLUSTERS = 3


class Reading(NamedTuple):
  """How a policy reads text.

  Attributes:
    tokenizer: text to ids.
    max_prompt_length, max_completion_length: tokens; None keeps all.
    template: writes lists of messages as text; None: plain turns.
  """

  tokenizer: Tokenizer
  max_prompt_length: int | None = None
  max_completion_length: int | None = None
  template: ChatTemplate | None = None


@dataclasses.dataclass(frozen=True)
class OrientedPair:
  """A pair as (first, second), with what is known about it.

  Attributes:
    record: `chosen` is the first completion, `rejected` the second.
    first_is_better: by the best label known.
    observed_flip: the label at hand differs from the best known.
    vote_share: of the votes that name a winner, the share for the first.
    vote_count: how many votes name a winner.
    votes: those votes, +1 for the first, the one at hand first; empty where
      the label at hand is the only one.
  """

  record: Preference
  first_is_better: bool
  observed_flip: bool
  vote_share: float
  vote_count: float
  votes: tuple[Vote, ...] = ()


class Drawn(NamedTuple):
  """What a seed trains and tests on.

  Attributes:
    pairs: split -> its pairs, by reading; the same pairs for every reading.
    text_lengths: split -> `[n, 2]` characters of the completions, uncut.
    reports: what was dropped or truncated.
  """

  pairs: dict[str, list[Pairs]]
  text_lengths: dict[str, np.ndarray]
  reports: list[Report]


def check_records(records: Sequence[Record]) -> None:
  """Refuses what preference losses cannot be trained and tested on.

  Raises:
    DataError: completions judged one by one, or too few clusters.
  """
  for record in records:
    if isinstance(record, Unpaired):
      raise DataError(
        'rows are {prompt, completion, label}: completions judged one by one '
        'hold no pairs, and these losses compare two answers to one prompt',
        'Give {prompt, chosen, rejected}, for instance a good and a bad '
        'completion of the same prompt in one row',
        record.path,
        record.line,
        'completion',
      )
  found = splits.count_clusters(records)
  if found < MIN_CLUSTERS:
    raise DataError(
      f'{len(records)} pairs in {found} cluster(s): train, validation and test '
      'share no first turn, title or text, so that each needs at least one',
      'Give data with more prompts, or a column group',
      records[0].path if records else '',
      field='group',
    )


def divide(records: Sequence[Record], *, seed: int) -> dict[str, list[Record]]:
  """Train, validation and test records of a seed, disjoint in clusters.

  Seeds r · NUM_FOLDS … (r + 1) · NUM_FOLDS − 1 are round r: they share one
  division into folds and each tests another fold.

  Args:
    records: of at least `MIN_CLUSTERS` clusters.
    seed: ≥ 0.

  Raises:
    DataError: as `check_records`.
  """
  check_records(records)
  num_folds = min(NUM_FOLDS, splits.count_clusters(records))
  turn, fold = divmod(seed, num_folds)
  rest, test = splits.group_folds(records, seed=turn, num_folds=num_folds)[fold]
  inner = min(VALIDATION_FOLDS, splits.count_clusters(rest))
  train, validation = splits.group_folds(rest, seed=seed, num_folds=inner)[0]
  divided = {'train': train, 'validation': validation, 'test': test}
  splits.check_leak(divided)
  return divided


def draw_pairs(
  records: Sequence[Record],
  readings: Sequence[Reading],
  *,
  seed: int,
  limits: Mapping[str, int],
) -> Drawn:
  """Draws the pairs of a seed, and reads them in every way asked for.

  A pair whose two completions are equal to one of the readings (after
  truncation, say) is left out of all.

  Args:
    records: preferences; or pairs with votes, of which one vote is the label
      at hand and the majority the best known.
    readings: one or more ways to read the texts.
    seed: of the division, of the vote, and of which side comes first.
    limits: split -> pairs at most, a random choice; 0 takes all.

  Raises:
    DataError: as `divide` and `encode`.
  """
  drawn = Drawn({}, {}, [])
  for stream, (name, part) in enumerate(divide(records, seed=seed).items()):
    rng = np.random.default_rng([seed, stream, 0x0A1])
    oriented, dropped = oriented_pairs(part, seed, rng)
    oriented = _sample(oriented, limits.get(name, 0), rng)
    encoded = [_encode(oriented, reading) for reading in readings]
    shared = set.intersection(*({g.index for g in e[0]} for e in encoded))
    if not shared:
      raise DataError(
        f'no pair of the {name} split can be told apart as it is read',
        'Raise --max_completion_length, or give longer completions',
        part[0].path,
      )
    kept = [pair for pair in oriented if pair.record.index in shared]
    drawn.text_lengths[name] = np.array(
      [[len(text) for text in pair.record.completions()] for pair in kept]
    )
    drawn.pairs[name] = [
      _pairs(kept, [g for g in groups if g.index in shared])
      for groups, _ in encoded
    ]
    for report in [*dropped, *(report for _, report in encoded)]:
      source = f'seed {seed}, {name}, {report.source}'
      drawn.reports.append(dataclasses.replace(report, source=source))
  return drawn


def rules(drawn: Drawn) -> dict[str, np.ndarray]:
  """Agreement of two rules fitted on the training labels at hand, by test pair.

  The longer or the shorter text, and the first or the second, whichever those
  labels favour.

  Returns:
    name -> `[n_test]` in [0, 1].
  """
  train, test = drawn.pairs['train'][0], drawn.pairs['test'][0]
  at_hand = np.where(train.first_is_better ^ train.observed_flip, 1, -1)
  excess = {
    name: -np.diff(lengths)[:, 0]
    for name, lengths in drawn.text_lengths.items()
  }
  longer = np.sign(np.sign(excess['train']) @ at_hand)
  side = np.sign(at_hand.sum())
  name = 'longer' if longer >= 0 else 'shorter'
  return {
    f'length only ({name} text)': agreement(test, longer * excess['test']),
    'majority side': agreement(test, np.full(len(test), side)),
  }


def oriented_pairs(
  part: Sequence[Record], seed: int, rng: np.random.Generator
) -> tuple[list[OrientedPair], list[Report]]:
  """Pairs in an order that carries no meaning, with the best label known."""
  if isinstance(part[0], VotedPair):
    records, report = one_vote(part, seed=seed)
    by_index = {pair.index: pair for pair in part}
    return [_of_votes(r, by_index[r.index]) for r in records], [report]
  swaps = rng.random(len(part)) < 0.5
  return [_of_label(*pair) for pair in zip(part, swaps, strict=True)], []


def _of_label(record: Preference, swap: bool) -> OrientedPair:
  flipped = bool(record.is_flipped)
  first_is_better = bool(swap) == flipped
  named = [-vote if swap else vote for vote in record.votes if vote]
  if swap:
    record = dataclasses.replace(
      record, chosen=record.rejected, rejected=record.chosen
    )
  # Without others' votes what is held out is the label itself.
  share = (1 + np.mean(named)) / 2 if named else float(first_is_better)
  at_hand = Vote(record.annotator_id, -1 if swap else 1)
  votes = (at_hand, *(Vote(-1, vote) for vote in named)) if named else ()
  return OrientedPair(
    record, first_is_better, flipped, float(share), max(len(named), 1), votes
  )


def _of_votes(record: Preference, pair: VotedPair) -> OrientedPair:
  named = [vote.value for vote in pair.votes if vote.value]
  at_hand = record.chosen == pair.first
  drawn = Vote(record.annotator_id, 1 if at_hand else -1)
  others = [vote for vote in pair.votes if vote.value]
  others.remove(drawn)
  lead = sum(named)
  # A tie names no majority; the vote at hand is then all that is known.
  best = lead > 0 if lead else at_hand
  record = dataclasses.replace(record, chosen=pair.first, rejected=pair.second)
  share = (1 + lead / len(named)) / 2
  votes = (drawn, *others)
  return OrientedPair(record, best, best != at_hand, share, len(named), votes)


def _sample(oriented: list, limit: int, rng: np.random.Generator) -> list:
  """`limit` of them at random, in their order: rows of a cluster come together
  in a file, so the first rows would be a few clusters."""
  if not limit or len(oriented) <= limit:
    return oriented
  chosen = np.sort(rng.permutation(len(oriented))[:limit])
  return [oriented[i] for i in chosen]


def _encode(
  oriented: Sequence[OrientedPair], reading: Reading
) -> tuple[list[Group], Report]:
  groups, report = encode(
    [pair.record for pair in oriented],
    reading.tokenizer,
    max_prompt_length=reading.max_prompt_length,
    max_completion_length=reading.max_completion_length,
  )
  name = reading.tokenizer.fingerprint
  return groups, dataclasses.replace(report, source=f'read as {name}')


def _pairs(kept: Sequence[OrientedPair], groups: Sequence[Group]) -> Pairs:
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
    votes=tuple(p.votes for p in kept) if any(p.votes for p in kept) else (),
  )

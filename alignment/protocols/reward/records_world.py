"""Real preferences for reward models: a bag of hashed words of each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from alignment.data.records import Record
from alignment.data.tokenizers import HashedTokenizer
from alignment.protocols.arena import Measured, Pairs, agreement
from alignment.protocols.records_draw import Reading, draw_pairs, rules
from alignment.protocols.reward.world import Part, World, calibration


def records_world(
  seed: int,
  records: Sequence[Record],
  *,
  limits: Mapping[str, int],
  max_completion_length: int,
) -> World:
  """Draws the pairs of a seed; folds, votes and orientation as `draw_pairs`.

  A reward is measured by `agreement` with held-out labels or votes and by the
  `brier` and `ece` of σ(reward difference) against them.

  Args:
    seed: seeds rotate through the folds.
    records: preferences, or pairs with votes.
    limits: part -> pairs at most; 0 takes all.
    max_completion_length: distinct words and word pairs of a completion.

  Raises:
    DataError: as `draw_pairs`.
  """
  tokenizer = HashedTokenizer()
  reading = Reading(tokenizer, None, max_completion_length)
  drawn = draw_pairs(records, [reading], seed=seed, limits=limits)
  parts = {
    name: _part(pairs, tokenizer.vocab_size)
    for name, (pairs,) in drawn.pairs.items()
  }
  (test_pairs,) = drawn.pairs['test']

  def measure(rewards: np.ndarray) -> Measured:
    gaps = parts['test'].gaps(rewards)
    correct = agreement(test_pairs, gaps)
    summary = {
      'agreement': float(correct.mean()),
      **calibration(gaps, test_pairs.vote_share),
    }
    return Measured(summary, correct, {})

  return World(
    seed,
    **parts,
    measure=measure,
    rules=rules(drawn),
    reports=drawn.reports,
  )


def _part(pairs: Pairs, num_buckets: int) -> Part:
  bags = [_bags(pairs, side, num_buckets) for side in (0, 1)]
  texts, size = sparse.vstack(bags).tocsr(), len(pairs)
  return Part(
    differences=(bags[0] - bags[1]).tocsr(),
    sums=(bags[0] + bags[1]).tocsr(),
    first_is_better=pairs.first_is_better,
    observed_flip=pairs.observed_flip,
    vote_share=pairs.vote_share,
    cluster=pairs.cluster,
    known={
      'index': np.arange(size),
      'lengths': pairs.lengths,
      'annotator_id': np.array([g.annotator_id for g in pairs.groups]),
    },
    rewards=lambda weights: (texts @ weights.T).T,
    gaps=lambda rewards: rewards[:size] - rewards[size:],
  )


def _bags(pairs: Pairs, side: int, num_buckets: int) -> sparse.csr_array:
  """φ(text) / ‖φ(text)‖ of one side, as `bag_of_words` has it."""
  ids = [group.completions[side] for group in pairs.groups]
  lengths = np.array([len(i) for i in ids])
  return sparse.csr_array(
    (
      np.repeat(lengths**-0.5, lengths),
      np.concatenate(ids),
      np.concatenate([[0], np.cumsum(lengths)]),
    ),
    shape=(len(ids), num_buckets),
  )

"""What contestants share: agreement with labels, the order of training."""

from __future__ import annotations

import numpy as np

from alignment.data.layout import owners
from alignment.protocols.arena import agreement, training_order
from tests.protocols.arenas import STEPS, toy_arena, toy_pairs

ARENA = toy_arena()


def test_agreement_is_expected_over_votes():
  pairs = toy_pairs(np.random.default_rng(0), 4)
  pairs.vote_share[:] = [0.8, 0.8, 0.8, 0.0]
  found = agreement(pairs, np.array([2.0, -0.1, 0.0, 1e-9]))
  np.testing.assert_allclose(found, [0.8, 0.2, 0.5, 0.0])


def test_pairs_know_their_labels_and_lengths():
  pairs = ARENA.train.pairs
  np.testing.assert_array_equal(pairs.first_is_better, pairs.gold_margin > 0)
  assert pairs.lengths.shape == (len(pairs), 2)
  assert pairs.lengths[3].tolist() == [
    len(c) for c in pairs.groups[3].completions
  ]


def test_the_order_is_a_function_of_the_seed():
  def order(seed, **sizes):
    sizes = {'steps': STEPS, 'batch_size': 8, 'packing': 'shared', **sizes}
    batches = training_order(ARENA.train, seed=seed, **sizes)
    return [np.sort(b.examples.index.ravel()) for b in batches]

  base = order(0)
  np.testing.assert_array_equal(base, order(0))
  assert not np.array_equal(base, order(1))
  # An epoch is whole before the next begins, and a prefix of a longer run.
  assert sorted(np.concatenate(base[:5])) == list(range(40))
  np.testing.assert_array_equal(base[:3], order(0, steps=3))


def test_every_packing_carries_the_reference():
  for packing in ('shared', 'padded', 'packed'):
    (batch,) = training_order(
      ARENA.train, seed=0, steps=1, batch_size=8, packing=packing
    )
    index, completion = owners(batch)
    logps = np.asarray(batch.completions.reference_logps)
    filled = index >= 0
    assert filled.sum() == 16
    np.testing.assert_array_equal(
      logps[filled], ARENA.train.reference[index, completion][filled]
    )

"""The gap is best minus at hand, paired by pair and clustered by title."""

import numpy as np
import pytest

from alignment.metrics.intervals import clustered_mean
from alignment.protocols.arena import Pairs
from alignment.protocols.standings import Units
from alignment.protocols.vote_gap import AT_HAND, BEST, gap, train_gap


def cell(seed, role, correct):
  return {
    'seed': seed,
    'role': role,
    'selected': {
      'correct': correct.tolist(),
      'summary': {'agreement': float(correct.mean())},
    },
  }


def drawn(seeds):
  rng = np.random.default_rng(3)
  clusters = {s: [f't{(s + i) % 5}' for i in range(9)] for s in seeds}
  scores = {(s, role): rng.random(9) for s in seeds for role in (AT_HAND, BEST)}
  # In an order of their own: seeds must be matched, not positions.
  cells = [cell(s, r, scores[s, r]) for s, r in reversed(scores)]
  return clusters, scores, cells


def test_pairs_of_a_title_are_pooled_over_seeds():
  clusters, scores, cells = drawn((0, 1, 2))
  found = gap(cells, Units(clusters), 'agreement')
  rows = np.concatenate(
    [scores[s, BEST] - scores[s, AT_HAND] for s in clusters]
  )
  titles = np.concatenate([clusters[s] for s in clusters])
  assert found == pytest.approx(clustered_mean(rows, titles))
  assert found.count == 5


def test_one_seed_has_no_interval():
  clusters, scores, cells = drawn((4,))
  found = gap(cells, Units(clusters), 'agreement')
  assert found.low is None and found.high is None
  assert found.value == pytest.approx(
    (scores[4, BEST] - scores[4, AT_HAND]).mean()
  )


def test_without_better_labels_there_is_no_gap_and_nothing_is_trained():
  class Arena:
    class train:
      pairs = Pairs([], np.zeros(4, bool), *[np.zeros(4)] * 4)

  assert train_gap([Arena], None, None, None) == []
  assert gap([], Units({0: []}), 'agreement') is None

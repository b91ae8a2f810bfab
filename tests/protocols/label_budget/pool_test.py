"""Pools hand out votes from the left, and no more than there are."""

import numpy as np
import pytest

from alignment.protocols.label_budget.pool import Pool
from tests.protocols.label_budget.pools import make_pool


def test_counts_and_table_are_the_votes_bought():
  rng = np.random.default_rng(0)
  pool = make_pool(rng)
  taken = rng.integers(0, pool.num_votes + 1)
  first, second = pool.counts(taken)
  table = pool.vote_table(taken)
  seen = []
  for row in range(len(pool)):
    bought = pool.votes[row, : taken[row]]
    assert first[row] == np.sum(bought == 1)
    assert second[row] == np.sum(bought == -1)
    for slot, vote in enumerate(bought):
      if vote:
        seen.append((row, pool.workers[row, slot], int(vote < 0)))
  assert seen == list(zip(table.task, table.worker, table.label, strict=True))
  assert table.num_workers == pool.workers.max() + 1
  np.testing.assert_array_equal(table.counts, np.column_stack([first, second]))


def test_rows_keep_what_belongs_together():
  pool = make_pool(np.random.default_rng(1))
  part = pool.rows(np.array([7, 3]))
  np.testing.assert_array_equal(part.votes, pool.votes[[7, 3]])
  np.testing.assert_array_equal(part.features, pool.features[[7, 3]])
  assert part.flip_rate == pool.flip_rate


def test_no_vote_is_sold_that_was_not_cast():
  pool = make_pool(np.random.default_rng(2))
  with pytest.raises(ValueError, match='taken'):
    pool.counts(pool.num_votes + 1)


@pytest.mark.parametrize(
  ('name', 'value'),
  [('flip_rate', 0.5), ('num_votes', np.full(4, 3)), ('workers', np.zeros(4))],
)
def test_bad_pools_are_refused(name, value):
  given = {
    'features': np.zeros((4, 2)),
    'votes': np.ones((4, 2), np.int8),
    'workers': np.zeros((4, 2), np.int32),
    'num_votes': np.full(4, 2),
    'flip_rate': 0.1,
  }
  Pool(**given)
  with pytest.raises(ValueError, match=name):
    Pool(**given | {name: value})

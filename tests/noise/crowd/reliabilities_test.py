"""Skills with intervals, and workers who agree too often."""

import numpy as np
import pytest

from alignment.noise.crowd.dependence import dependence
from alignment.noise.crowd.reliabilities import (
  reliabilities,
  resampled_weights,
)
from alignment.noise.crowd.table import VoteTable
from tests.noise.crowd.tables import coins, simulate

SKILL = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6])


@pytest.mark.slow
def test_intervals_cover():
  """40 tables of 8 workers: 320 intervals, nominally 95 %.

  Errors within a table are dependent; at 40 independent ones the share is
  above .88 with probability .97, and Wilson's floor widens on top.
  """
  covered = []
  for seed in range(40):
    rng = np.random.default_rng(seed)
    votes, _ = simulate(rng, coins(SKILL), [0.6, 0.4], 150, 4)
    found = reliabilities(votes, rng, resamples=60)
    assert np.all((found.low <= found.skill) & (found.skill <= found.high))
    covered.append((found.low <= SKILL) & (SKILL <= found.high))
  assert 0.9 < np.mean(covered) < 0.995
  assert np.mean(found.high - found.low) < 0.35


@pytest.mark.slow
def test_groups_widen_intervals():
  """Tasks in pairs of exact copies: half the evidence, √2 the width."""
  rng = np.random.default_rng(1)
  votes, _ = simulate(rng, coins(SKILL), [0.6, 0.4], 400, 4)
  task = np.concatenate([votes.task, votes.task + 400])
  twice = VoteTable(
    task, np.tile(votes.worker, 2), np.tile(votes.label, 2), 800, 8, 2
  )
  group = np.tile(np.arange(400), 2)
  alone = reliabilities(twice, np.random.default_rng(2), resamples=400)
  grouped = reliabilities(
    twice, np.random.default_rng(2), group=group, resamples=400
  )
  ratio = np.mean(grouped.high - grouped.low) / np.mean(alone.high - alone.low)
  assert ratio == pytest.approx(np.sqrt(2), abs=0.12)


def test_weights_draw_whole_groups_with_votes():
  rng = np.random.default_rng(3)
  votes = VoteTable(
    np.array([0, 1, 2, 4]), np.zeros(4, int), np.array([0, 1, 0, 1]), 5, 1, 2
  )
  group = np.array([7, 7, 3, 9, 5])
  weights = resampled_weights(votes, rng, group, 2000)
  np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
  assert not weights[:, 3].any()
  np.testing.assert_array_equal(weights[:, [0, 2, 4]].sum(axis=1), 3)
  # Each of three groups in three draws: mean 1, error .018.
  np.testing.assert_allclose(weights[:, [0, 2, 4]].mean(axis=0), 1, atol=0.07)
  with pytest.raises(ValueError, match='resamples=1'):
    resampled_weights(votes, rng, group, 1)
  with pytest.raises(ValueError, match='group'):
    resampled_weights(votes, rng, group[:3], 10)


def test_flags_of_workers():
  rng = np.random.default_rng(4)
  confusion = coins([0.9, 0.9, 0.85, 0.85, 0.8, 0.8, 0.15, 0.9])
  confusion[5] = [[1, 0], [1, 0]]  # always says 0
  votes, _ = simulate(rng, confusion, [0.7, 0.3], 400, 5)
  rare = np.flatnonzero(votes.worker == 7)[4:]
  keep = np.delete(np.arange(len(votes)), rare)
  arrays = votes.task[keep], votes.worker[keep], votes.label[keep]
  found = reliabilities(VoteTable(*arrays, 400, 9, 2), rng, resamples=60)
  assert found.flags[0] == ()
  assert 'one label only' in found.flags[5]
  assert 'at or below chance' in found.flags[5]
  assert 'at or below chance' in found.flags[6]
  assert 'fewer than 10 votes' in found.flags[7]
  assert found.flags[8] == ('no votes',)
  assert np.isnan([found.skill[8], found.low[8], found.high[8]]).all()
  assert found.num_votes[7] == 4 and found.num_votes[8] == 0
  with pytest.raises(ValueError, match='model='):
    reliabilities(votes, rng, model='oracle')


def test_copied_votes_are_found():
  """Worker 4 repeats worker 3 on half of the tasks; the others do not."""
  rng = np.random.default_rng(5)
  votes, _ = simulate(rng, coins(SKILL), [0.6, 0.4], 500, 8)
  honest = dependence(votes, rng, resamples=100)
  assert not honest.correlated.any()
  # Of 14,000 pairs of votes, in 500 tasks: the error is about .004.
  assert honest.pooled == pytest.approx(0, abs=0.012)
  label = np.zeros((500, 8), int)
  label[votes.task, votes.worker] = votes.label
  copies = rng.random(500) < 0.5
  label[copies, 4] = label[copies, 3]
  task, worker = np.indices(label.shape).reshape(2, -1)
  votes = VoteTable(task, worker, label.ravel(), 500, 8, 2)
  found = dependence(votes, rng, resamples=100)
  caught = zip(
    found.first[found.correlated], found.second[found.correlated], strict=True
  )
  assert list(caught) == [(3, 4)]
  pair = (found.first == 3) & (found.second == 4)
  agrees = np.mean(label[:, 3] == label[:, 4])
  assert found.observed[pair].item() == pytest.approx(agrees)
  assert found.num_shared[pair].item() == 500


def test_pairs_are_counted_on_ragged_tables():
  rng = np.random.default_rng(6)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7, 0.6, 0.6]), [0.6, 0.4], 90, 3)
  keep = rng.random(len(votes)) < 0.8
  arrays = votes.task[keep], votes.worker[keep], votes.label[keep]
  found = dependence(
    VoteTable(*arrays, 90, 5, 2),
    rng,
    model='majority',
    resamples=20,
    min_shared=15,
  )
  label = np.full((90, 5), -1)
  label[arrays[0], arrays[1]] = arrays[2]
  assert len(found.first) >= 8
  for first, second, num, observed in zip(
    found.first, found.second, found.num_shared, found.observed, strict=True
  ):
    both = (label[:, first] >= 0) & (label[:, second] >= 0)
    assert first < second and num == both.sum() >= 15
    agrees = np.mean(label[both, first] == label[both, second])
    assert observed == pytest.approx(agrees)


def test_three_workers_leave_nothing_to_test():
  rng = np.random.default_rng(7)
  votes, _ = simulate(rng, coins([0.9, 0.8, 0.7]), [0.6, 0.4], 90, 3)
  assert (
    'fewer than four'
    in dependence(votes, rng, model='majority', resamples=20).remark
  )
  with pytest.raises(ValueError, match='min_shared=91'):
    dependence(votes, rng, min_shared=91)

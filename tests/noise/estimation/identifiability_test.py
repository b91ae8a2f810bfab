"""What limits a rate is found, and only that."""

import numpy as np
import pytest

from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.identifiability import (
  anchor_transition,
  find_limits,
  is_rank_deficient,
)
from alignment.noise.evidence import Evidence
from tests.noise.estimation import votes


def _names(evidence):
  found = find_limits(evidence)
  assert all(f.detail and f.remedy for f in found)
  return [f.name for f in found]


def _bare(label, **more):
  label = np.asarray(label, np.int32)
  return Evidence(
    label=label, num_classes=2, group=np.arange(len(label)), **more
  )


def test_good_votes_have_no_limits():
  label = votes.draw(np.random.default_rng(0), 400, 0.15, 3)
  assert _names(votes.evidence(label)) == []


def test_single_labels_of_one_class():
  assert _names(_bare(np.zeros(50))) == ['one class', 'single labels']
  assert _names(_bare(np.arange(50) % 2)) == ['single labels']


@pytest.mark.parametrize(
  'known', [{'clean_label': np.zeros(50, int)}, {'clean_margin': np.ones(50)}]
)
def test_anchors_or_a_law_end_the_limits_of_single_labels(known):
  names = _names(_bare(np.arange(50) % 2, **known))
  assert 'single labels' not in names


def test_votes_that_all_agree():
  label = np.repeat(np.random.default_rng(1).random((80, 1)) < 0.5, 3, 1)
  assert _names(votes.evidence(label)) == ['unanimous votes']
  same = votes.evidence(np.zeros((80, 3), bool))
  assert _names(same) == ['one class', 'votes tell nothing']


def test_a_worker_with_one_label_is_named():
  label = votes.draw(np.random.default_rng(2), 300, 0.1, 3, prior=0.5)
  label[:, 2] = True
  found = find_limits(votes.evidence(label))
  single = [f for f in found if f.name == 'workers with one label']
  assert len(single) == 1 and 'worker 2 first' in single[0].detail


def test_agreement_near_chance():
  label = np.random.default_rng(3).random((200, 2)) < 0.5
  assert _names(votes.evidence(label)) == ['agreement near chance']


def test_annotators_who_copy():
  label = votes.draw(np.random.default_rng(4), 4000, 0.2, 4)
  label[:2000, 1] = label[:2000, 0]
  assert _names(votes.evidence(label)) == ['annotators are not independent']


def test_a_worker_who_votes_twice():
  label = votes.draw(np.random.default_rng(5), 40, 0.2, 2)
  table = votes.table(label)
  twice = VoteTable(table.task, 0 * table.worker, table.label, 40, 1, 2)
  found = find_limits(_bare(label[:, 0], votes=twice))
  assert [f.name for f in found] == ['votes tell nothing']
  assert 'voted twice' in found[0].detail


def test_a_transition_that_loses_a_class():
  assert is_rank_deficient(np.array([[0.6, 0.4], [0.58, 0.42]]))
  assert not is_rank_deficient(np.array([[0.8, 0.2], [0.3, 0.7]]))
  mixed = np.array([[0.8, 0.1, 0.1], [0.1, 0.5, 0.4], [0.1, 0.5, 0.4]])
  assert is_rank_deficient(mixed)
  for rate in (0.1, 0.46, 0.49):
    flips = np.array([[1 - rate, rate], [rate, 1 - rate]])
    assert is_rank_deficient(flips) == (1 - 2 * rate < 0.05)
  with pytest.raises(ValueError, match='rows sum to 1'):
    is_rank_deficient(np.array([[0.6, 0.6], [0.4, 0.4]]))


def test_anchors_tell_the_transition_and_that_it_is_lost():
  clean = np.arange(1000) % 2
  label = np.where(np.arange(1000) % 7 == 0, 1 - clean, clean)
  evidence = _bare(label, clean_label=clean.astype(np.int32))
  expected = [[np.mean(label[clean == i] == j) for j in (0, 1)] for i in (0, 1)]
  np.testing.assert_allclose(anchor_transition(evidence), expected)
  assert _names(evidence) == []
  blind = _bare((np.arange(1000) // 2) % 2, clean_label=clean.astype(np.int32))
  assert _names(blind) == ['rank-deficient transition']
  some = np.where(clean == 0, 0, -1).astype(np.int32)
  assert anchor_transition(_bare(label, clean_label=some)) is None

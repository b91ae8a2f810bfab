"""No group and no text on both sides of a split."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.records import DataError, Preference
from alignment.data.splits import check_leak, group_folds, split


def record(index, group, prompt='P', chosen=None):
  return Preference(
    prompt=f'{prompt} {group}',
    chosen=chosen or f'c{index}',
    rejected=f'r{index}',
    index=index,
    group=group,
    path='a.jsonl',
    line=index + 1,
  )


def some(num_rows, num_groups, seed=0):
  rng = random.Random(seed)
  return [record(i, f'g{rng.randrange(num_groups)}') for i in range(num_rows)]


@given(st.integers(0, 99), st.integers(20, 60))
@settings(max_examples=40, deadline=None)
def test_splits_divide_groups_and_lose_nothing(seed, num_groups):
  records = some(200, num_groups, seed)
  parts = split(records, seed=seed)
  assert list(parts) == ['train', 'validation', 'test']
  assert sorted(r.index for p in parts.values() for r in p) == list(range(200))
  check_leak(parts)
  groups = [{r.group for r in part} for part in parts.values()]
  assert sum(map(len, groups)) == len(set.union(*groups))
  # No cluster is larger than a tenth here, so shares are near what was asked.
  assert 130 <= len(parts['train']) <= 185


def test_seed_decides_and_row_order_does_not():
  records = some(300, 40)
  names = {r.index for r in split(records, seed=3)['test']}
  assert {r.index for r in split(records[::-1], seed=3)['test']} == names
  assert {r.index for r in split(records, seed=4)['test']} != names


def test_equal_texts_in_two_groups_stay_together():
  twins = [
    record(1000, 'u', chosen='the same'),
    record(1001, 'v', chosen='The  same '),
  ]
  twins = [dataclasses.replace(r, prompt='one prompt') for r in twins]
  records = some(100, 30) + twins
  for seed in range(12):
    parts = split(records, seed=seed, fractions={'train': 0.5, 'test': 0.5})
    check_leak(parts)
  with pytest.raises(DataError) as caught:
    check_leak({'train': twins[:1], 'test': twins[1:]})
  message = str(caught.value)
  assert message.startswith("a.jsonl, line 1002, field 'prompt': ")
  assert "is in 'train' and in 'test'" in message


def test_a_row_wise_split_is_caught():
  records = some(100, 10)
  with pytest.raises(DataError, match="field 'group'.*Divide by group"):
    check_leak({'train': records[:50], 'test': records[50:]})


def test_folds_test_every_row_once():
  records = some(200, 12)
  folds = group_folds(records, seed=0, num_folds=4)
  tested = sorted(r.index for _, test in folds for r in test)
  assert tested == list(range(200))
  for train, test in folds:
    assert len(train) + len(test) == 200
    assert len(test) >= 20
    check_leak({'train': train, 'test': test})


def test_what_cannot_be_divided_is_refused():
  records = some(50, 2)
  with pytest.raises(DataError, match='2 groups are too few.*group_folds'):
    split(records, seed=0)
  with pytest.raises(DataError, match='2 groups cannot fill 3 folds'):
    group_folds(records, seed=0, num_folds=3)
  with pytest.raises(ValueError, match='num_folds: 1 must be ≥ 2'):
    group_folds(records, seed=0, num_folds=1)
  with pytest.raises(ValueError, match='fractions'):
    split(records, seed=0, fractions={'train': 0.9, 'test': 0.2})

"""Draws from real preferences: folds, orientation, votes, limits, refusals."""

import dataclasses

import numpy as np
import pytest

from alignment.data.records import DataError, Unpaired
from alignment.data.tokenizers import ByteTokenizer, HashedTokenizer
from alignment.protocols.records_draw import (
  NUM_FOLDS,
  Reading,
  check_records,
  divide,
  draw_pairs,
)
from tests.protocols.records import preferences, voted

WORDS = Reading(HashedTokenizer(4096))
BYTES = Reading(ByteTokenizer(), 32, 64)


def draw(records, seed=0, readings=(WORDS,), **limits):
  return draw_pairs(records, readings, seed=seed, limits=limits)


def test_seeds_rotate_so_that_every_group_is_tested_once():
  records = preferences(12, 3)
  tested = []
  for seed in range(NUM_FOLDS):
    parts = divide(records, seed=seed)
    groups = {name: {r.group for r in part} for name, part in parts.items()}
    assert not groups['train'] & groups['test']
    assert not groups['train'] & groups['validation']
    assert not groups['validation'] & groups['test']
    assert sum(map(len, parts.values())) == len(records)
    tested += groups['test']
  assert len(tested) == 12 and len(set(tested)) == 12
  again = {r.group for r in divide(records, seed=NUM_FOLDS)['test']}
  first = {r.group for r in divide(records, seed=0)['test']}
  assert again != first  # the next round divides anew


def test_three_groups_are_enough_and_two_are_refused():
  parts = divide(preferences(3, 4), seed=2)
  assert [len(parts[name]) for name in ('train', 'validation', 'test')] == [
    4,
    4,
    4,
  ]
  with pytest.raises(DataError, match=r'in 2 cluster.*column group'):
    divide(preferences(2, 9), seed=0)


def test_completions_judged_one_by_one_are_refused_with_a_remedy():
  row = Unpaired(
    prompt='p', completion='c', label=True, index=0, group='g', path='u.jsonl'
  )
  with pytest.raises(DataError) as caught:
    check_records([dataclasses.replace(row, line=3)])
  text = str(caught.value)
  assert text.startswith("u.jsonl, line 3, field 'completion'")
  assert 'hold no pairs' in text and 'Give {prompt, chosen, rejected}' in text


def test_the_side_says_nothing_and_the_label_follows_the_text():
  records = preferences(100, 2)
  drawn = draw(records)
  (pairs,) = drawn.pairs['train']
  assert 0.3 < pairs.first_is_better.mean() < 0.7
  good = {tuple(WORDS.tokenizer.encode(r.chosen)): r.group for r in records}
  for group, cluster in zip(pairs.groups, pairs.cluster, strict=True):
    assert good[tuple(group.completions[group.chosen])] == cluster
  assert not pairs.observed_flip.any()
  np.testing.assert_array_equal(pairs.vote_share, pairs.first_is_better)


def test_known_flips_are_turned_back_for_the_best_label():
  records = preferences(40, 2, flip_every=4)
  (pairs,) = draw(records).pairs['train']
  nice = WORDS.tokenizer.encode('nice')[0]
  for group in pairs.groups:
    assert nice in group.completions[group.chosen]
  assert 0.1 < pairs.observed_flip.mean() < 0.4


def test_votes_of_other_labellers_are_what_is_tested():
  records = [
    dataclasses.replace(r, votes=(1, 1, -1, 0)) for r in preferences(10, 2)
  ]
  (pairs,) = draw(records).pairs['test']
  expected = np.where(pairs.first_is_better, 2 / 3, 1 / 3)
  np.testing.assert_allclose(pairs.vote_share, expected)
  np.testing.assert_array_equal(pairs.vote_count, 3)


def test_one_vote_at_hand_the_majority_best_known():
  pairs = [draw(voted(12, 20), seed=s).pairs['train'][0] for s in range(4)]
  flipped = np.concatenate([p.observed_flip for p in pairs])
  # One vote of five is drawn: a fifth of the pairs that are no ties.
  share = np.concatenate([p.vote_share for p in pairs])
  clear = share != 0.5
  assert abs(flipped[clear].mean() - 0.2) < 0.06  # ~470 pairs: 3 sd
  assert not flipped[~clear].any()  # a tie: the vote at hand
  np.testing.assert_allclose(np.abs(share[clear] - 0.5), 0.3)
  best = np.concatenate([p.first_is_better for p in pairs])
  np.testing.assert_array_equal(best[clear], share[clear] > 0.5)


def test_votes_stand_beside_the_pair_the_one_at_hand_first():
  """Whatever way the pair was turned, they add up to what is tested."""
  others = [
    dataclasses.replace(r, votes=(1, -1, 0, 1), annotator_id=9)
    for r in preferences(6, 4)
  ]
  for records, workers in ((voted(6, 5), 5), (others, 4)):
    for pairs in draw(records).pairs.values():
      pairs = pairs[0]
      label = np.where(pairs.first_is_better ^ pairs.observed_flip, 1, -1)
      assert [votes[0].value for votes in pairs.votes] == label.tolist()
      values = [[vote.value for vote in votes] for votes in pairs.votes]
      held_out = values if records is not others else [v[1:] for v in values]
      share = [(1 + np.mean(v)) / 2 for v in held_out]
      np.testing.assert_allclose(share, pairs.vote_share)
      assert max(map(len, values)) == workers
      for votes, group in zip(pairs.votes, pairs.groups, strict=True):
        assert votes[0].worker == group.annotator_id
        known = [vote.worker for vote in votes if vote.worker >= 0]
        assert len(set(known)) == len(known)
  assert draw(preferences(6, 4)).pairs['train'][0].votes == ()


def test_pairs_without_a_winner_are_counted_and_gone():
  records = voted(12, 20)
  drawn = draw(records, seed=3)
  lost = sum(all(v.value == 0 for v in pair.votes) for pair in records)
  counted = sum(
    report.count('dropped, no vote names a winner') for report in drawn.reports
  )
  assert counted == lost > 0
  assert sum(len(p[0]) for p in drawn.pairs.values()) == len(records) - lost


def test_limits_take_a_random_choice_not_the_first_groups():
  records = preferences(20, 10)
  (pairs,) = draw(records, train=30, test=7).pairs['train']
  assert len(pairs) == 30
  assert len(set(pairs.cluster)) > 6  # the first 30 rows are 3 groups
  assert len(draw(records, train=30, test=7).pairs['test'][0]) == 7


def test_every_reading_gets_the_same_pairs():
  records = preferences(10, 3)
  # Equal to a bag of words, not as bytes.
  one = records[0]
  records[0] = dataclasses.replace(one, chosen='a b  a', rejected='a b a')
  words, text = [], []
  for seed in range(NUM_FOLDS):
    drawn = draw(records, seed=seed, readings=(WORDS, BYTES))
    for by_words, by_bytes in drawn.pairs.values():
      words.append(by_words)
      text.append(by_bytes)
      np.testing.assert_array_equal(by_words.cluster, by_bytes.cluster)
      np.testing.assert_array_equal(
        by_words.first_is_better, by_bytes.first_is_better
      )
    lost = [r.count('dropped, equal after tokenisation') for r in drawn.reports]
    assert sum(lost) == 1
  assert sum(map(len, words)) == sum(map(len, text)) == NUM_FOLDS * 29


def test_texts_that_all_look_alike_once_cut_are_refused():
  reading = Reading(ByteTokenizer(), 8, 1)
  records = [
    dataclasses.replace(r, chosen='x' + r.chosen, rejected='x' + r.rejected)
    for r in preferences(6, 2)
  ]
  with pytest.raises(DataError, match='equal after tokenisation'):
    draw(records, readings=(reading,))

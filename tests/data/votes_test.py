"""Votes: labels drawn from them, their ties, and what they allow at most."""

import collections
import gzip
import itertools
import json
import pathlib

import numpy as np
import pytest

from alignment.data import votes
from alignment.data.records import DataError, Vote, VotedPair
from alignment.data.source import load
from alignment.data.splits import check_leak, group_folds

SHARED = pathlib.Path(__file__).resolve().parents[2].parent / 'shared'


def pair(values, index=0, group='T'):
  return VotedPair(
    prompt='T\n',
    first=f'first {index}',
    second=f'second {index}',
    votes=tuple(Vote(10 + i, value) for i, value in enumerate(values)),
    index=index,
    group=group,
  )


def random_pairs(num_pairs, seed=0):
  rng = np.random.default_rng(seed)
  values = rng.choice([1, -1, 0], p=[0.5, 0.3, 0.2], size=(num_pairs, 5))
  return [pair(row.tolist(), index) for index, row in enumerate(values)]


def write_folder(folder, texts, rows):
  for name, lines in ((votes.ARGUMENTS, texts), (votes.PAIRS, rows)):
    data = ''.join(json.dumps(line) + '\n' for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(data))


TEXTS = [
  {'id': 'x', 'text': 'Ban it.', 'stance': 'Yes'},
  {'id': 'y', 'text': 'Keep it.', 'stance': 'Yes'},
]
ROW = {
  'title': 'Bottles',
  'arg1': 'x',
  'arg2': 'y',
  'votes': [{'worker': 3, 'value': 'a2'}, {'worker': 1, 'value': 'equal'}],
}


def test_folder_is_read(tmp_path):
  write_folder(tmp_path, TEXTS, [ROW, {**ROW, 'arg2': 'x'}])
  (read,), report = load(tmp_path)
  assert (read.prompt, read.group) == ('Bottles\nYes\n', 'Bottles')
  assert (read.first, read.second) == ('Ban it.', 'Keep it.')
  assert read.votes == (Vote(3, -1), Vote(1, 0))
  assert report.reasons == {'dropped, both texts are the same': [2]}
  with pytest.raises(DataError, match="line 2, field 'arg2'.*strict=False"):
    load(tmp_path, strict=True)
  with pytest.raises(ValueError, match='fixed columns'):
    load(tmp_path, columns={'prompt': 'title'})


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'arg1': 'z'}, "line 1, field 'arg1': is 'z', which is no id"),
    ({'title': None}, "line 1, field 'title': is None, must be a string"),
    ({'votes': 3}, "line 1, field 'votes': .*must be a list"),
    ({'votes': [{'worker': 1, 'value': 'a3'}]}, "field 'votes': .*a1, a2, eq"),
    ({'votes': [{'worker': 'w', 'value': 'a1'}]}, 'whole number'),
    ({'votes': []}, 'none of its 1 rows'),
  ],
)
def test_broken_folders_are_refused(tmp_path, change, message):
  write_folder(tmp_path, TEXTS, [ROW | change])
  with pytest.raises(DataError, match=message):
    votes.read_votes(tmp_path)


def test_missing_and_doubled_texts(tmp_path):
  with pytest.raises(DataError, match='arguments.*No such file.*folder that'):
    votes.read_votes(tmp_path)
  write_folder(tmp_path, TEXTS + TEXTS[:1], [ROW])
  with pytest.raises(DataError, match="line 3, field 'id': is 'x' a second"):
    votes.read_votes(tmp_path)


def test_one_vote_labels_and_keeps_the_others_aside():
  pairs = random_pairs(400)
  records, report = votes.one_vote(pairs, seed=1)
  assert (
    report.kept
    == len(records)
    == 400 - report.count('dropped, no vote names a winner')
  )
  for record in records:
    source = pairs[record.index]
    side = 1 if record.chosen == source.first else -1
    texts = {source.first, source.second}
    assert {record.chosen, record.rejected} == texts
    drawn = source.votes[record.annotator_id - 10]
    assert drawn.value == side
    mine = collections.Counter(record.votes)
    mine[1] += 1
    everything = collections.Counter(side * v.value for v in source.votes)
    assert mine == everything


def test_draws_depend_on_seed_and_index_only():
  pairs = random_pairs(200)
  labels = {r.index: r for r in votes.one_vote(pairs, seed=1)[0]}
  for record in votes.one_vote(pairs[150:20:-1], seed=1)[0]:
    assert record == labels[record.index]
  other = votes.one_vote(pairs, seed=2)[0]
  assert sum(r != labels[r.index] for r in other) > 50


def test_a_vote_is_uniform_over_those_that_name_a_winner():
  values = (1, 0, -1, 1, 0)
  pairs = [pair(values, index) for index in range(6000)]
  records, report = votes.one_vote(pairs, seed=0)
  share = collections.Counter(r.annotator_id - 10 for r in records)
  # 6 standard errors of a share of 1/3 among 6,000 draws: .037.
  for worker in (0, 2, 3):
    assert abs(share[worker] / 6000 - 1 / 3) < 0.037
  redrawn = report.count("redrawn, the first vote was 'equal'")
  assert abs(redrawn / 6000 - 2 / 5) < 0.038


def test_majority_abstains_on_equal_and_drops_ties():
  pairs = [
    pair((1, 1, -1, 0, 0), 0),
    pair((-1, 0, 0, 0, 0), 1),
    pair((1, -1, 0, 0, 0), 2),
    pair((0, 0, 0, 0, 0), 3),
    pair((-1, -1, -1, -1, 1), 4),
  ]
  records, report = votes.majority(pairs)
  assert [(r.index, r.chosen.split()[0]) for r in records] == [
    (0, 'first'),
    (1, 'second'),
    (4, 'second'),
  ]
  assert [r.label_prob for r in records] == pytest.approx([2 / 3, 1, 0.8])
  assert report.reasons == {'dropped, the votes tie': [2, 3]}


def test_agreement_is_the_chance_to_meet_a_drawn_vote():
  pairs = [pair((1, 1, -1, 0), 0), pair((0, 0), 1), pair((-1, -1), 2)]
  values, weights = votes.agreement(pairs, np.asarray([0.2, 5.0, 3.0]))
  np.testing.assert_allclose(values, [2 / 3, 0, 0])
  np.testing.assert_array_equal(weights, [3, 0, 2])
  values, _ = votes.agreement(pairs, np.zeros(3))
  np.testing.assert_allclose(values, [0.5, 0, 0.5])


def test_ceiling_counts_what_loops_count():
  pairs = random_pairs(60, seed=5)
  found = votes.ceiling(pairs)
  named = [[v.value for v in p.votes if v.value] for p in pairs]
  met = [a == b for vs in named for a, b in itertools.combinations(vs, 2)]
  assert found.two_workers == pytest.approx(np.mean(met))
  all_votes = [[v.value for v in p.votes] for p in pairs]
  met = [a == b for vs in all_votes for a, b in itertools.combinations(vs, 2)]
  assert found.two_workers_three_way == pytest.approx(np.mean(met))
  sided = []
  for values in named:
    for i, value in enumerate(values):
      others = values[:i] + values[i + 1 :]
      if others:
        sided.append((1 + value * np.sign(sum(others))) / 2)
  assert found.majority_of_others == pytest.approx(np.mean(sided))
  assert found.num_votes == sum(map(len, named))
  assert found.equal_share == pytest.approx(1 - found.num_votes / 300)
  # The majority of each pair reaches `best`, and random answers do not pass.
  majority = np.asarray([np.sign(sum(values)) for values in named])
  value, weight = votes.agreement(pairs, majority)
  assert np.average(value, weights=weight) == pytest.approx(found.best)
  rng = np.random.default_rng(0)
  for _ in range(20):
    value, weight = votes.agreement(pairs, rng.normal(size=60))
    assert np.average(value, weights=weight) <= found.best


def test_flip_rate_of_the_ceiling_is_that_of_workers_who_err_alike():
  rng = np.random.default_rng(0)
  truth = rng.choice([1, -1], size=(4000, 1))
  flips = rng.random((4000, 5)) < 0.2
  values = np.where(flips, -truth, truth)
  pairs = [pair(row.tolist(), i) for i, row in enumerate(values)]
  # 4 standard errors of the mean of 40,000 dependent comparisons, by dε/da.
  assert votes.ceiling(pairs).flip_rate == pytest.approx(0.2, abs=0.012)
  with pytest.raises(DataError, match='several votes per pair'):
    votes.ceiling([pair((1, 0))])


@pytest.mark.shared
def test_ukp_convarg1():
  pairs, report = load(SHARED / 'data' / 'ukp_convarg1')
  assert report.read == 13080
  assert report.count('dropped, both texts are the same') == 13
  assert len({p.group for p in pairs}) == 12
  found = votes.ceiling(pairs)
  # Two workers agree on 73.1 % over 16 debates; these are 12 of them.
  assert found.two_workers == pytest.approx(0.731, abs=0.03)
  assert found.two_workers_three_way == pytest.approx(0.524, abs=0.03)
  assert found.flip_rate == pytest.approx(0.16, abs=0.03)
  assert found.majority_of_others < found.best
  single, _ = votes.one_vote(pairs, seed=0)
  most, report = votes.majority(pairs)
  assert report.count('dropped, the votes tie') == len(pairs) - len(most)
  label = {r.index: r.chosen for r in most}
  both = [r for r in single if r.index in label]
  same = np.mean([label[r.index] == r.chosen for r in both])
  # A vote is part of its own majority, so it sides with it more than .73.
  assert 0.75 < same < 0.9
  for train, test in group_folds(pairs, seed=0, num_folds=4):
    check_leak({'train': train, 'test': test})

"""Splits, grades and files of labelled texts."""

import json

import numpy as np
import pytest

from alignment.data.records import DataError
from alignment.protocols.noisy_labels import world
from alignment.protocols.noisy_labels.world import Sizes


@pytest.fixture(scope='module')
def ballots():
  return world.graded_ballots(3, Sizes(600, 150, 200), 4)


def test_grades_are_quantiles_of_the_training_rewards(ballots):
  counts = np.bincount(ballots.train.label, minlength=4)
  # Ties of the reward move whole lumps across an edge.
  assert counts.min() > 0.15 * 600 and counts.sum() == 600
  assert ballots.class_names == ('grade 0', 'grade 1', 'grade 2', 'grade 3')
  for part, size in (
    (ballots.train, 600),
    (ballots.validation, 150),
    (ballots.test, 200),
  ):
    assert len(part) == size and part.features.dtype == np.float32


def test_the_neighbour_is_the_next_grade_across_the_nearest_edge(ballots):
  part = ballots.train
  assert np.all(np.abs(part.neighbour - part.label) == 1)
  assert np.all((part.neighbour >= 0) & (part.neighbour < 4))
  assert np.all(part.distance >= 0)
  assert np.all(part.neighbour[part.label == 0] == 1)
  assert np.all(part.neighbour[part.label == 3] == 2)


def test_equal_features_have_equal_grades(ballots):
  """The grade is a function of the features: the Bayes accuracy is 1."""
  both = np.concatenate([ballots.train.features, ballots.test.features])
  label = np.concatenate([ballots.train.label, ballots.test.label])
  _, row, inverse = np.unique(
    both, axis=0, return_index=True, return_inverse=True
  )
  np.testing.assert_array_equal(label[row][inverse], label)


def test_a_seed_is_a_draw(ballots):
  again = world.graded_ballots(3, Sizes(600, 150, 200), 4)
  other = world.graded_ballots(4, Sizes(600, 150, 200), 4)
  np.testing.assert_array_equal(again.train.features, ballots.train.features)
  assert np.any(other.train.features != ballots.train.features)


def _write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def _texts(number):
  return [
    {
      'text': f'row {i} says {"abc"[i % 3]}',
      'kind': 'xyz'[i % 3],
      'group': i // 2,
    }
    for i in range(number)
  ]


def test_a_file_is_divided_by_group(tmp_path):
  path = _write(tmp_path / 'rows.jsonl', _texts(200))
  found = world.file_world(path, 'text', 'kind', Sizes(0, 0, 0), 64)
  parts = (found.train, found.validation, found.test)
  groups = [set(part.group) for part in parts]
  assert not groups[0] & groups[1] and not groups[1] & groups[2]
  assert not groups[0] & groups[2]
  assert sum(map(len, parts)) == 200
  assert len(found.train) > len(found.test) > 10
  assert found.class_names == ('x', 'y', 'z')
  few = world.file_world(path, 'text', 'kind', Sizes(40, 10, 5), 64)
  assert [len(p) for p in (few.train, few.validation, few.test)] == [40, 10, 5]


def test_a_file_of_completions(tmp_path):
  rows = [
    {'prompt': f'p{i}', 'completion': 'yes' * (1 + i % 2), 'label': i % 2 == 0}
    for i in range(60)
  ]
  path = _write(tmp_path / 'rows.jsonl', rows)
  found = world.file_world(path, '', '', Sizes(0, 0, 0), 32)
  assert found.class_names == ('bad', 'good') and len(found.train) > 20


BAD = {
  'a missing column': ([{'text': 'a', 'kind': 'x'}, {'text': 'b'}], 'line 2'),
  'a number for a text': ([{'text': 3, 'kind': 'x'}], 'no str'),
  'one class': (
    [{'text': str(i), 'kind': 'x'} for i in range(9)],
    '1 different',
  ),
  'too many': (
    [{'text': str(i), 'kind': f'k{i}'} for i in range(60)],
    '60 different labels',
  ),
  'one group': (
    [{'text': str(i), 'kind': 'xy'[i % 2], 'group': 1} for i in range(9)],
    'too few for three splits',
  ),
  'nothing': ([], 'has no rows'),
}


@pytest.mark.parametrize('name', BAD)
def test_files_that_cannot_be_used(tmp_path, name):
  rows, complaint = BAD[name]
  path = _write(tmp_path / 'rows.jsonl', rows)
  with pytest.raises(DataError) as refused:
    world.file_world(path, 'text', 'kind', Sizes(0, 0, 0), 32)
  assert complaint in str(refused.value)


def test_a_file_of_pairs_is_named_as_such(tmp_path):
  rows = [{'prompt': 'p', 'chosen': 'a', 'rejected': 'b'}]
  path = _write(tmp_path / 'rows.jsonl', rows)
  with pytest.raises(DataError, match='holds pairs'):
    world.file_world(path, '', '', Sizes(0, 0, 0), 32)

"""Cleaned files: what is written, that readers load it, how it is undone."""

import dataclasses
import json

import numpy as np
import pytest

from alignment.data.cleaned import dropped_path, write_cleaned
from alignment.data.readers import json_rows, read_file
from alignment.data.records import DataError, Preference, Unpaired
from alignment.noise.detection.repair import Repair

ACTIONS = ['keep', 'flip', 'drop', 'soften', 'reweight', 'ask']
PLAN = Repair(
  action=np.array(ACTIONS),
  label=np.array([0, 1, 0, 0, 0, 0], np.int32),
  label_prob=np.array([1, 1, 1, 0.7, 1, 1.0]),
  weight=np.array([1, 1, 0, 1, 0.4, 1.0]),
  flip_posterior=np.array([np.nan, 0.9, 0.8, 0.3, 0.6, 0.5]),
  ask_rank=np.array([-1, -1, -1, -1, -1, 0]),
  policy='mixed',
  settings={},
)


def pairs():
  return [
    Preference(
      prompt=f'p{i}',
      chosen=f'better {i}',
      rejected=f'worse {i}',
      index=10 + i,
      group=f'g{i}',
      label_prob=0.9,
      weight=2.0,
      annotator_id=i,
      clean_label=i != 1,
      is_flipped=i == 1,
      votes=(1, -1, -1),
    )
    for i in range(6)
  ]


def lines(path):
  return [row for _, row in json_rows(str(path))]


@pytest.mark.parametrize('name', ['clean.jsonl', 'clean.jsonl.gz'])
def test_our_reader_loads_what_is_to_be_trained_on(tmp_path, name):
  path = tmp_path / name
  report = write_cleaned(path, pairs(), PLAN)
  read, _ = read_file(path)
  keep, flip, soften, reweight, ask = read
  for record, index in ((keep, 0), (ask, 5)):
    assert record == pairs()[index]
  assert flip == dataclasses.replace(
    pairs()[1],
    chosen='worse 1',
    rejected='better 1',
    label_prob=1.0,
    clean_label=True,
    is_flipped=False,
    votes=(-1, 1, 1),
  )
  assert soften == dataclasses.replace(pairs()[3], label_prob=0.7)
  assert reweight == dataclasses.replace(pairs()[4], weight=0.8)
  assert (report.read, report.kept) == (6, 5)
  assert report.reasons == {a: [10 + i] for i, a in enumerate(ACTIONS) if i}


def test_any_other_reader_loads_strings(tmp_path):
  """Three columns of text, read without this library."""
  path = tmp_path / 'clean.jsonl'
  write_cleaned(path, pairs(), PLAN)
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  texts = [(r['prompt'], r['chosen'], r['rejected']) for r in rows]
  assert texts[:2] == [
    ('p0', 'better 0', 'worse 0'),
    ('p1', 'worse 1', 'better 1'),
  ]


def test_nothing_is_lost(tmp_path):
  """The original rows follow from the two files alone."""
  path = tmp_path / 'clean.jsonl'
  write_cleaned(path, pairs(), PLAN)
  rows = lines(path) + lines(dropped_path(str(path)))
  assert sorted(row['index'] for row in rows) == list(range(10, 16))
  for row in rows:
    before = pairs()[row['index'] - 10]
    texts = [row['chosen'], row['rejected']][:: -1 if row['is_swapped'] else 1]
    assert texts == [before.chosen, before.rejected]
    assert row.get('original_label_prob', row['label_prob']) == 0.9
    assert row.get('original_weight', row['weight']) == 2.0
    assert row['action'] == ACTIONS[row['index'] - 10]


def test_extra_columns(tmp_path):
  path = tmp_path / 'clean.jsonl'
  write_cleaned(path, pairs(), PLAN)
  keep, flip, _, _, ask = lines(path)
  assert 'flip_posterior' not in keep and 'ask_rank' not in flip
  assert (flip['flip_posterior'], ask['ask_rank']) == (0.9, 0)
  assert 'original_weight' not in flip and flip['original_label_prob'] == 0.9
  (dropped,) = lines(dropped_path(str(path)))
  assert (dropped['index'], dropped['weight'], dropped['chosen']) == (
    12,
    2.0,
    'better 2',
  )


def unpaired():
  return [
    Unpaired(
      prompt='p',
      completion=f'c{i}',
      label=True,
      index=i,
      group='g',
      clean_label=i != 1,
      is_flipped=i == 1,
    )
    for i in range(6)
  ]


def test_unpaired_labels_flip_and_are_refused_softening(tmp_path):
  path = tmp_path / 'clean.jsonl'
  with pytest.raises(DataError, match='softened'):
    write_cleaned(path, unpaired(), PLAN)
  assert not path.exists()
  hard = dataclasses.replace(
    PLAN, action=np.where(PLAN.action == 'soften', 'keep', PLAN.action)
  )
  write_cleaned(path, unpaired(), hard)
  read, _ = read_file(path)
  assert read[1] == dataclasses.replace(
    unpaired()[1], label=False, is_flipped=False
  )
  assert read[0] == unpaired()[0]


def test_refusals(tmp_path):
  with pytest.raises(ValueError, match='as many'):
    write_cleaned(tmp_path / 'a.jsonl', pairs()[:-1], PLAN)
  with pytest.raises(ValueError, match='must end'):
    write_cleaned(tmp_path / 'a.csv', pairs(), PLAN)
  nothing = dataclasses.replace(PLAN, action=np.full(6, 'drop'))
  with pytest.raises(DataError, match='every row'):
    write_cleaned(tmp_path / 'a.jsonl', pairs(), nothing)
  assert not list(tmp_path.iterdir())

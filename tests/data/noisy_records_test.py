"""Noise on records: the truth is in the columns, and it survives the file."""

import dataclasses

import numpy as np
import pytest

from alignment.data.noisy_records import corrupt_records
from alignment.data.readers import read_file, write_jsonl
from alignment.data.records import DataError, Unpaired
from tests.protocols.records import preferences, voted

_RECORDS = [
  dataclasses.replace(
    record,
    annotator_id=record.index % 4,
    votes=(1, 0, -1, 1)[: record.index % 5],
  )
  for record in preferences(40, 5)
]


def _unpaired(size: int) -> list[Unpaired]:
  rng = np.random.default_rng(0)
  return [
    Unpaired(
      prompt=f'p{i}',
      completion=f'c{i}',
      label=bool(rng.random() < 0.3),
      index=i,
      group=f'p{i}',
    )
    for i in range(size)
  ]


def test_a_flip_swaps_the_pair_and_says_so():
  noisy, report = corrupt_records(
    'exact_count', _RECORDS, seed=5, flip_rate=0.3
  )
  assert sum(r.is_flipped for r in noisy) == 60 == report.count('flipped')
  for before, after in zip(_RECORDS, noisy, strict=True):
    kept = (before.chosen, before.rejected, before.votes)
    turned = (before.rejected, before.chosen, tuple(-v for v in before.votes))
    assert (after.chosen, after.rejected, after.votes) == (
      turned if after.is_flipped else kept
    )
    assert after.clean_label == (not after.is_flipped)
    assert after.flip_rate == pytest.approx(0.3)
    for name in ('prompt', 'index', 'group', 'weight', 'annotator_id'):
      assert getattr(after, name) == getattr(before, name)
  assert 'seed=5, flip_rate=0.3' in report.notes
  assert 'flip rate 0.3 realised, 0.3 expected, of 200 labels' in str(report)


def test_order_and_company_do_not_matter():
  noisy, _ = corrupt_records('symmetric', _RECORDS, seed=5, flip_rate=0.3)
  part, _ = corrupt_records('symmetric', _RECORDS[::-3], seed=5, flip_rate=0.3)
  assert part == noisy[::-3]
  other, _ = corrupt_records('symmetric', _RECORDS, seed=6, flip_rate=0.3)
  assert other != noisy


def test_what_is_written_is_read_again(tmp_path):
  path = tmp_path / 'noisy.jsonl'
  rng = np.random.default_rng(1)
  noisy, _ = corrupt_records(
    'teacher',
    _RECORDS,
    seed=5,
    data={'step_rewards': rng.normal(size=(200, 2, 3))},
    mistake=0.2,
    tie=0.4,
    skip=0.2,
  )
  assert {r.label_prob for r in noisy} == {0.5, 1.0}
  assert {r.weight for r in noisy} == {0.0, 1.0}
  assert len({r.flip_rate for r in noisy}) >= 2
  write_jsonl(path, noisy)
  found, report = read_file(path)
  assert found == noisy and not report.notes
  single, _ = corrupt_records(
    'class_conditional', _unpaired(100), seed=2, rates=(0.5, 0.1)
  )
  write_jsonl(path, single)
  assert read_file(path)[0] == single


@pytest.mark.parametrize('value', [1.5, -0.1, 'high'])
def test_a_rate_that_is_none_is_refused(tmp_path, value):
  path = tmp_path / 'bad.jsonl'
  write_jsonl(path, _RECORDS[:1])
  text = path.read_text().strip()[:-1]
  value = f'"{value}"' if isinstance(value, str) else value
  path.write_text(f'{text}, "flip_rate": {value}}}\n')
  with pytest.raises(DataError, match="line 1, field 'flip_rate'"):
    read_file(path)


def test_known_truth_composes():
  """Noise on noise: what flips twice is clean again."""
  once, _ = corrupt_records('symmetric', _RECORDS, seed=1, flip_rate=0.4)
  twice, _ = corrupt_records('symmetric', once, seed=2, flip_rate=0.3)
  for first, middle, last in zip(_RECORDS, once, twice, strict=True):
    assert last.is_flipped == (last.chosen != first.chosen)
    assert last.flip_rate == pytest.approx(0.4 * 0.7 + 0.6 * 0.3)
    assert (last.chosen != middle.chosen) == (
      last.is_flipped != middle.is_flipped
    )
  assert any(
    b.is_flipped and not a.is_flipped for a, b in zip(twice, once, strict=True)
  )


def test_places_are_drawn_so_that_a_bias_of_position_can_be():
  """Half of the chosen stand first; only they flip at the first rate."""
  noisy, _ = corrupt_records(
    'class_conditional', _RECORDS, seed=3, rates=(1.0, 0.0)
  )
  flipped = np.mean([r.is_flipped for r in noisy])
  assert flipped == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(200))


def test_data_are_of_chosen_and_rejected():
  """Whichever comes first, a large margin for `chosen` protects the pair."""
  rng = np.random.default_rng(4)
  margin = rng.normal(size=200)
  data = {'margin': margin, 'judge_margin': margin}
  for name in ('bt_temperature', 'ai_judge'):
    noisy, _ = corrupt_records(
      name, _RECORDS, seed=3, data=data, temperature=1e-6
    )
    np.testing.assert_array_equal([r.is_flipped for r in noisy], margin < 0)
  rewards = rng.normal(size=(200, 2, 2))
  noisy, _ = corrupt_records(
    'teacher', _RECORDS, seed=3, data={'step_rewards': rewards}, mistake=0.0
  )
  better = rewards.sum(axis=2)[:, 0] > rewards.sum(axis=2)[:, 1]
  np.testing.assert_array_equal([r.is_flipped for r in noisy], ~better)
  noisy, _ = corrupt_records(
    'length_biased', _RECORDS, seed=3, length_preference=1.0
  )
  shorter = [len(r.chosen) < len(r.rejected) for r in _RECORDS]
  np.testing.assert_array_equal([r.is_flipped for r in noisy], shorter)


def test_annotators_are_those_of_the_records():
  noisy, _ = corrupt_records(
    'per_annotator', _RECORDS, seed=3, reliabilities=[1.0, 0.0, 1.0, 1.0]
  )
  assert {r.annotator_id for r in noisy if r.is_flipped} == {1}
  assert sum(r.is_flipped for r in noisy) == 50


def test_single_completions_flip_by_their_label():
  records = _unpaired(400)
  noisy, report = corrupt_records(
    'class_conditional', records, seed=2, rates=(1.0, 0.0), exact=True
  )
  good = sum(r.label for r in records)
  assert report.count('flipped') == good
  assert not any(r.label for r in noisy)
  assert [r.clean_label for r in noisy] == [r.label for r in records]


@pytest.mark.parametrize(
  ('records', 'arguments', 'message'),
  [
    (voted(3, 2), {'name': 'symmetric', 'flip_rate': 0.1}, 'holds VotedPair'),
    (
      [*_RECORDS[:2], *_unpaired(2)],
      {'name': 'symmetric', 'flip_rate': 0.1},
      'holds Preference, Unpaired',
    ),
    (
      preferences(3, 2),
      {'name': 'per_annotator', 'flip_rate': 0.1},
      'needs annotator_id',
    ),
    (_RECORDS, {'name': 'gaussian', 'flip_rate': 0.1}, 'needs margin'),
    (
      _RECORDS,
      {'name': 'symmetric', 'flip_rate': 0.1, 'tau': 1.0},
      'tau=1.0 is not used',
    ),
    (
      _RECORDS,
      {'name': 'gaussian', 'flip_rate': 0.1, 'data': {'margin': np.ones(3)}},
      'has 3 rows, there are 200',
    ),
    (
      _RECORDS,
      {
        'name': 'symmetric',
        'flip_rate': 0.1,
        'data': {'index': np.arange(200)},
      },
      "'index' is what the records say",
    ),
    (
      _unpaired(30),
      {
        'name': 'teacher',
        'mistake': 0.1,
        'tie': 0.4,
        'data': {
          'step_rewards': np.random.default_rng(0).normal(size=(30, 2, 1))
        },
      },
      'ties',
    ),
  ],
)
def test_refusals(records, arguments, message):
  with pytest.raises(ValueError, match=message):
    corrupt_records(arguments.pop('name'), records, seed=0, **arguments)

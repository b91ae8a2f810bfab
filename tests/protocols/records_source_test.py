"""What labels say about themselves: votes, known flips, single labels."""

import pytest

from alignment.data.records import DataError
from alignment.protocols.records_source import read_source
from tests.protocols.records import (
  preferences,
  voted,
  write_jsonl,
  write_votes,
)


def test_single_labels_do_not_identify_a_rate(tmp_path):
  source = read_source(
    str(write_jsonl(tmp_path / 'a.jsonl', preferences(6, 2)))
  )
  assert source.flip_rate is None and source.ceiling is None
  assert source.effective(0.2) == pytest.approx(0.2)


def test_votes_give_a_rate_and_noise_adds_to_it(tmp_path):
  source = read_source(str(write_votes(tmp_path / 'votes', voted(6, 5))))
  rate = source.flip_rate
  assert rate == source.ceiling.flip_rate and 0.1 < rate < 0.5
  assert source.effective(0.2) == pytest.approx(0.2 + rate - 2 * 0.2 * rate)


def test_known_flips_are_counted(tmp_path):
  path = tmp_path / 'a.jsonl'
  rows = [
    f'{{"prompt": "p{i}", "chosen": "a{i}", "rejected": "b{i}", '
    f'"is_flipped": {"true" if i < 3 else "false"}}}\n'
    for i in range(12)
  ]
  path.write_text(''.join(rows))
  assert read_source(str(path)).flip_rate == pytest.approx(0.25)


def test_too_few_prompts(tmp_path):
  path = write_jsonl(tmp_path / 'a.jsonl', preferences(2, 5))
  with pytest.raises(DataError, match=r'a\.jsonl.*2 cluster'):
    read_source(str(path))

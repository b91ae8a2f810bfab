"""Work done once: rows on disk, kills, errors, threads."""

from __future__ import annotations

import json
import threading

import pytest

from alignment.protocols import ledger
from alignment.training import storage


def counted(names, calls, fail=()):
  def one(name):
    def work():
      calls.append(name)
      if name in fail:
        raise ValueError(f'{name} failed')
      return {'name': name, 'value': 0.1 * len(name), 'pair': (1, 2)}

    return work

  return {name: one(name) for name in names}


def test_rows_come_back_in_order_as_json_gives_them(tmp_path):
  calls, seen = [], []
  path = tmp_path / 'eval' / 'ledger.jsonl'
  names = ['bb', 'a', 'ccc']
  rows = ledger.carry_out(
    counted(names, calls),
    path,
    threads=2,
    on_done=lambda key, row, done, total: seen.append((key, done, total)),
  )
  assert list(rows) == names and sorted(calls) == sorted(names)
  assert rows['a'] == {'name': 'a', 'value': 0.1, 'pair': [1, 2]}
  assert [(done, total) for _, done, total in seen] == [(1, 3), (2, 3), (3, 3)]
  again = ledger.carry_out(counted(names[::-1], calls), path, threads=1)
  assert again == rows and list(again) == names[::-1]
  assert len(calls) == 3


def test_only_what_is_missing_is_done(tmp_path):
  calls = []
  path = tmp_path / 'ledger.jsonl'
  ledger.carry_out(counted(['a', 'b'], calls), path, threads=1)
  rows = ledger.carry_out(counted(['b', 'c'], calls), path, threads=1)
  assert calls == ['a', 'b', 'c'] and list(rows) == ['b', 'c']


@pytest.mark.parametrize('cut', [1, 9, 40])
def test_a_line_cut_short_by_a_kill_is_done_again(tmp_path, cut):
  calls = []
  path = tmp_path / 'ledger.jsonl'
  whole = ledger.carry_out(counted(['a', 'b', 'c'], calls), path, threads=1)
  path.write_bytes(path.read_bytes()[:-cut])
  # One byte less is the newline alone: the row is whole.
  again = ledger.carry_out(counted(['a', 'b', 'c'], calls), path, threads=1)
  assert again == whole
  assert calls == ['a', 'b', 'c', 'c'][: len(calls)]
  assert len(calls) == (3 if cut == 1 else 4)
  keys = [json.loads(line)['key'] for line in path.read_text().splitlines()]
  assert keys == ['a', 'b', 'c']


def test_an_error_is_raised_and_what_is_done_stays(tmp_path):
  calls = []
  path = tmp_path / 'ledger.jsonl'
  names = ['a', 'b', 'c']
  with pytest.raises(ValueError, match='b failed'):
    ledger.carry_out(counted(names, calls, fail={'b'}), path, threads=1)
  assert calls[:2] == ['a', 'b']
  calls.clear()
  rows = ledger.carry_out(counted(names, calls), path, threads=1)
  assert 'a' not in calls and set(rows) == set(names)


def test_what_another_thread_still_finishes_is_kept(tmp_path):
  path = tmp_path / 'ledger.jsonl'
  failed = threading.Event()

  def fails():
    failed.set()
    raise SystemExit(0)

  def goes_on():
    assert failed.wait(10)
    threading.Event().wait(0.2)
    return {'late': True}

  never = []
  work = {'late': goes_on, 'fails': fails, 'never': lambda: never.append(1)}
  with pytest.raises(SystemExit):
    ledger.carry_out(work, path, threads=2)
  keys = [json.loads(line)['key'] for line in path.read_text().splitlines()]
  assert 'late' in keys


def test_a_ledger_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(storage.StorageError, match='file'):
    ledger.carry_out(
      counted(['a'], []), tmp_path / 'file' / 'ledger.jsonl', threads=1
    )


def test_in_threads_keeps_the_order_and_raises():
  assert ledger.in_threads(lambda x: x * x, [3, 1, 2], 2) == [9, 1, 4]
  with pytest.raises(ZeroDivisionError):
    ledger.in_threads(lambda x: 1 / x, [1, 0], 2)

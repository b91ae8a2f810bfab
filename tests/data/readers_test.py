"""Files: what is read, what is dropped and counted, what is refused and how."""

import dataclasses
import gzip
import json
import pathlib
import pickle

import pyarrow
import pyarrow.parquet
import pytest

from alignment.data import readers
from alignment.data.records import DataError, Preference, Unpaired
from alignment.data.source import load

SHARED = pathlib.Path(__file__).resolve().parents[2].parent / 'shared'
ROWS = [
  {'prompt': 'Q1', 'chosen': ' a', 'rejected': ' b', 'label_prob': 0.7},
  {'prompt': 'Q2', 'chosen': ' ç', 'rejected': ' 𝄞', 'label_prob': 1.0},
]


def jsonl(path, rows):
  text = ''.join(json.dumps(row) + '\n' for row in rows).encode()
  path.write_bytes(gzip.compress(text) if path.suffix == '.gz' else text)
  return path


def refused(path, **options):
  with pytest.raises(DataError) as caught:
    readers.read_file(path, **options)
  message = str(caught.value)
  assert str(path) in message
  return message


@pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz', 'a.parquet'])
def test_every_format_gives_the_same_records(tmp_path, name):
  path = tmp_path / name
  if path.suffix == '.parquet':
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
  else:
    jsonl(path, ROWS)
  records, report = load(path)
  assert [r.chosen for r in records] == [' a', ' ç']
  assert [r.label_prob for r in records] == [0.7, 1.0]
  assert [r.index for r in records] == [0, 1]
  assert (report.read, report.kept, report.reasons) == (2, 2, {})


def test_blank_lines_and_byte_order_mark_are_no_rows(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = [json.dumps(row).encode() for row in ROWS]
  path.write_bytes(b'\xef\xbb\xbf' + b'\r\n\n'.join(lines))
  records, _ = readers.read_file(path)
  assert [r.line for r in records] == [1, 3]


def test_columns_of_other_names_are_mapped_and_others_reported(tmp_path):
  path = jsonl(
    tmp_path / 'a.jsonl',
    [{'q': 'Q', 'good': 'a', 'bad': 'b', 'score': 3, 'prompt': 'not this'}],
  )
  names = {'prompt': 'q', 'chosen': 'good', 'rejected': 'bad'}
  (record,), report = readers.read_file(path, columns=names)
  assert (record.prompt, record.chosen, record.rejected) == ('Q', 'a', 'b')
  assert 'columns not used: score' in str(report)
  with pytest.raises(DataError, match="field 'better'.*missing"):
    readers.read_file(path, columns={'chosen': 'better'})
  with pytest.raises(ValueError, match="'winner' is not one of"):
    readers.read_file(path, columns={'winner': 'good'})


def test_rows_that_teach_nothing_are_dropped_and_counted(tmp_path):
  bad = [
    {'prompt': 'Q', 'chosen': 'same', 'rejected': 'same'},
    {'prompt': 'Q', 'chosen': 'x', 'rejected': ' \n'},
  ]
  path = jsonl(tmp_path / 'a.jsonl', [ROWS[0], *bad, ROWS[1]])
  records, report = readers.read_file(path)
  assert [r.index for r in records] == [0, 3]
  assert report.reasons == {
    'dropped, chosen == rejected': [2],
    'dropped, empty completion': [3],
  }
  assert len(report.lines()) == 3
  assert report.lines()[0].endswith('2 kept of 4 read')
  message = refused(path, strict=True)
  assert "line 2, field 'rejected': chosen == rejected. Remove" in message
  message = refused(jsonl(path, [bad[1]]), strict=True)
  assert "line 1, field 'rejected': empty completion. Remove" in message


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path):
  row = {'prompt': 'Q', 'chosen': 'same', 'rejected': 'same'}
  message = refused(jsonl(tmp_path / 'a.jsonl', [row, row]))
  assert 'none of its 2 rows' in message
  assert 'chosen == rejected: 2 (at 1, 2)' in message


def test_missing_column_and_wrong_type(tmp_path):
  path = tmp_path / 'a.jsonl'
  message = refused(jsonl(path, [*ROWS, {'prompt': 'Q', 'chosen': 'a'}]))
  assert "line 3, field 'rejected': column is missing" in message
  assert "['chosen', 'prompt']" in message and 'columns=' in message
  message = refused(jsonl(path, [{**ROWS[0], 'chosen': 4}]))
  assert "line 1, field 'chosen': is 4 (int), must be a string" in message
  message = refused(jsonl(path, [{'conversation': []}]))
  assert "field 'chosen': column is missing" in message


def test_nan_in_a_numeric_column(tmp_path):
  path = tmp_path / 'a.jsonl'
  message = refused(jsonl(path, [ROWS[0], {**ROWS[1], 'weight': float('nan')}]))
  assert "line 2, field 'weight': is nan, must be finite and ≥ 0" in message
  path = tmp_path / 'a.parquet'
  rows = [ROWS[0], {**ROWS[1], 'label_prob': float('nan')}]
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  assert "row 2, field 'label_prob': is nan" in refused(path)


def test_broken_json_names_its_line_and_field(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text(json.dumps(ROWS[0]) + '\n{"prompt": "Q", "chosen": "a}\n')
  message = refused(path)
  assert "line 2, field 'chosen': broken JSON" in message
  assert 'one JSON object per line' in message
  path.write_text(json.dumps(ROWS))
  assert 'line 1: holds a JSON list' in refused(path)


def test_broken_utf8_names_its_line_and_field(tmp_path):
  path = tmp_path / 'a.jsonl'
  good = json.dumps(ROWS[0]).encode()
  path.write_bytes(good + b'\n' + good.replace(b' b', b' \xff'))
  message = refused(path)
  assert "line 2, field 'rejected': not UTF-8" in message
  assert 'Re-encode' in message
  path = tmp_path / 'a.parquet'
  # Arrow does not look into a column that is declared to be text.
  raw = pyarrow.array([b'fine', b'not \xff'], pyarrow.binary())
  text = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())
  names = {'prompt': ['Q', 'Q'], 'chosen': text, 'rejected': ['a', 'b']}
  pyarrow.parquet.write_table(pyarrow.table(names), path)
  assert "row 2, field 'chosen': not UTF-8" in refused(path)


def test_truncated_and_false_gzip(tmp_path):
  path = jsonl(tmp_path / 'a.jsonl.gz', ROWS * 3)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  message = refused(path)
  assert 'line 1: the gzip is truncated or broken' in message
  assert 'again' in message
  path.write_text('{}')
  assert 'line 1: the gzip is truncated or broken' in refused(path)


def test_truncated_parquet(tmp_path):
  path = tmp_path / 'a.parquet'
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
  path.write_bytes(path.read_bytes()[:-20])
  assert 'no readable Parquet' in refused(path)


def test_empty_missing_and_unknown_files(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('\n')
  assert 'is empty. Give' in refused(path)
  assert 'No such file' in refused(tmp_path / 'b.jsonl.gz')
  assert 'No such file' in refused(tmp_path / 'b.parquet')
  assert '.parquet' in refused(tmp_path / 'b.csv')
  with pytest.raises(DataError, match='folder that holds no votes'):
    load(tmp_path)
  with pytest.raises(ValueError, match='data_dir'):
    load(path, data_dir=tmp_path)
  with pytest.raises(DataError, match='names no split'):
    load('tfds:some_set')


def test_an_index_is_used_once(tmp_path):
  path = tmp_path / 'a.jsonl'
  rows = [{**ROWS[0], 'index': 5}, {**ROWS[1], 'index': 5}]
  message = refused(jsonl(path, rows))
  assert "line 2, field 'index': is 5, which line 1 also has" in message


@pytest.mark.parametrize('name', ['a.jsonl', 'a.jsonl.gz'])
def test_records_survive_writing(tmp_path, name):
  pairs = [
    Preference(
      prompt='P\n\u2028',
      chosen='ç𝄞',
      rejected=' "b"',
      index=9,
      group='g',
      label_prob=0.1 + 0.2,
      weight=3.0,
      annotator_id=2,
      clean_label=False,
      is_flipped=True,
      votes=(1, 0, -1),
    ),
    Preference(prompt='', chosen='a', rejected='b', index=2, group='row 2'),
  ]
  single = [
    Unpaired(prompt='P', completion='c', label=False, index=0, group='g'),
  ]
  for records in (pairs, single):
    path = tmp_path / name
    readers.write_jsonl(path, records)
    again, report = readers.read_file(path)
    assert again == records
    assert report.notes == []
    first = path.read_bytes()
    readers.write_jsonl(path, again)
    assert path.read_bytes() == first
  assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
  path = jsonl(tmp_path / 'a.jsonl', ROWS)
  before = path.read_bytes()
  records, _ = readers.read_file(path)
  bad = dataclasses.replace(records[0], weight=float('nan'))
  with pytest.raises(ValueError, match='JSON compliant'):
    readers.write_jsonl(path, [records[1], bad])
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['a.jsonl']
  with pytest.raises(ValueError, match='must end in'):
    readers.write_jsonl(tmp_path / 'a.json', records)


def test_data_error_survives_a_process_boundary():
  error = DataError('is bad', 'Mend it', 'a.parquet', 3, 'chosen')
  again = pickle.loads(pickle.dumps(error))
  assert str(again) == str(error)
  assert str(error) == "a.parquet, row 3, field 'chosen': is bad. Mend it."


@pytest.mark.shared
@pytest.mark.parametrize(
  ('name', 'read', 'identical', 'empty'),
  [('harmless-base', 2312, 0, 4), ('helpful-base', 2354, 2, 4)],
)
def test_hh_transcripts(name, read, identical, empty):
  path = SHARED / 'data' / 'hh_rlhf' / f'{name}.test.jsonl.gz'
  records, report = load(path)
  assert report.read == read
  assert report.count('dropped, chosen == rejected') == identical
  assert report.count('dropped, empty completion') == empty
  assert len(records) == report.kept == read - identical - empty
  raw = [json.loads(line) for line in gzip.open(path)]
  for record in records:
    assert record.prompt.endswith('\n\nAssistant:')
    assert record.prompt + record.chosen == raw[record.index]['chosen']
    assert record.prompt + record.rejected == raw[record.index]['rejected']
    assert '\n\nHuman:' not in record.chosen + record.rejected
  longer = sum(len(r.chosen) > len(r.rejected) for r in records) / len(records)
  # The stated shares are of one decimal more than the drops can move.
  assert abs(longer - {'harmless-base': 0.442, 'helpful-base': 0.596}[name]) < (
    0.005
  )

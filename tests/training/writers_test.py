"""Writers: whole rows, resumed files, null for NaN, lines for people."""

import concurrent.futures
import io
import json
import math

import pytest
from tensorboardX.proto import event_pb2

from alignment.training import storage, writers


def _rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_jsonl_appends_one_object_per_row_at_once(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.jsonl_writer(path)
  writer.write(1, {'loss': 0.5})
  assert _rows(path) == [{'step': 1, 'loss': 0.5}]  # before any close
  writer.write(2, {'loss': 0.25, 'method': 'rdpo'})
  writer.close()
  assert _rows(path)[1] == {'step': 2, 'loss': 0.25, 'method': 'rdpo'}


def test_jsonl_says_nan_and_infinity_in_a_note(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.jsonl_writer(path)
  writer.write(3, {'loss': math.nan, 'grad_norm': -math.inf, 'kl': 1.0})
  assert _rows(path) == [
    {
      'step': 3,
      'loss': None,
      'grad_norm': None,
      'kl': 1.0,
      'notes': {'loss': 'nan', 'grad_norm': '-inf'},
    }
  ]


def test_jsonl_resumes_after_the_restored_step_and_a_torn_line(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = writers.jsonl_writer(path)
  for step in range(1, 7):
    writer.write(step, {'loss': step / 8})
  writer.close()
  with open(path, 'a') as file:
    file.write('{"step": 7, "lo')
  writer = writers.jsonl_writer(path)
  assert len(_rows(path)) == 6
  writer.rewind(4, {})
  writer.write(5, {'loss': 9.0})
  rows = _rows(path)
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5]
  assert rows[-1]['loss'] == 9.0


def test_rewinding_one_cell_leaves_the_rows_of_others(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  shared = writers.jsonl_writer(path)
  cells = {name: writers.tagged_writer(shared, {'cell': name}) for name in 'ab'}
  for step in (1, 2, 3):
    shared.write(step, {'loss': 0.0})
    for writer in cells.values():
      writer.write(step, {'loss': 1.0})
  cells['a'].rewind(1, {})
  cells['a'].write(2, {'loss': 2.0})
  found = [(row.get('cell'), row['step']) for row in _rows(path)]
  assert [s for c, s in found if c == 'a'] == [1, 2]
  assert [s for c, s in found if c == 'b'] == [1, 2, 3]
  assert [s for c, s in found if c is None] == [1, 2, 3]
  shared.rewind(0, {})
  assert len(_rows(path)) == 5


def test_jsonl_rows_of_many_threads_stay_whole(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  shared = writers.jsonl_writer(path)

  def cell(name):
    writer = writers.tagged_writer(shared, {'cell': name * 50})
    for step in range(200):
      writer.write(step, {'loss': 0.1})
    writer.close()  # leaves the shared file open

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(cell, 'abcd'))
  shared.close()
  rows = _rows(path)
  assert len(rows) == 800
  for name in 'abcd':
    steps = [row['step'] for row in rows if row['cell'] == name * 50]
    assert steps == list(range(200))


def test_jsonl_names_path_and_remedy(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(storage.StorageError, match=r'file/m\.jsonl.*choose'):
    writers.jsonl_writer(tmp_path / 'file' / 'm.jsonl')
  writer = writers.jsonl_writer('/dev/full')
  with pytest.raises(storage.StorageError, match='/dev/full: the disk is full'):
    writer.write(1, {'loss': 1.0})


def _scalars(directory):
  """(step, tag, value) and purged steps of TensorBoard's event files."""
  found, purges = [], []
  for path in sorted(directory.glob('events*')):
    data = path.read_bytes()
    while data:  # length (8 bytes), its checksum (4), event, checksum (4)
      length = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + length])
      data = data[16 + length :]
      if event.session_log.status == event_pb2.SessionLog.START:
        purges.append(event.step)
      for value in event.summary.value:
        found.append((event.step, value.tag, value.simple_value))
  return found, purges


def test_tensorboard_skips_nan_and_keeps_cells_apart(tmp_path):
  writer = writers.tensorboard_writer(tmp_path)
  writer.write(4, {'loss': 0.75, 'kl': math.nan})
  writer.write(5, {'loss': 0.5, 'cell': 'rdpo@0.4 / seed 3'})
  writer.close()
  assert _scalars(tmp_path)[0] == [(4, 'loss', 0.75)]
  cell = tmp_path / 'rdpo@0.4_seed_3'
  assert _scalars(cell)[0] == [(5, 'loss', 0.5)]


def test_tensorboard_purges_what_was_written_after_the_restored_step(tmp_path):
  writer = writers.tensorboard_writer(tmp_path)
  writer.write(9, {'loss': 1.0})
  writer.rewind(7, {})
  writer.write(8, {'loss': 0.5})
  writer.close()
  assert sorted(_scalars(tmp_path)[0]) == [(8, 'loss', 0.5), (9, 'loss', 1.0)]
  assert 8 in _scalars(tmp_path)[1]


ROW = {
  'loss': 0.69314,
  'rewards/accuracies': 0.53125,
  'rewards/margins': -0.01234,
  'logps/chosen': -12.345,
  'perf/tokens_per_second': 12345.6,
  'perf/eta_seconds': 3725.4,
}


def test_console_prints_one_plain_line_into_a_pipe():
  out = io.StringIO()
  writer = writers.console_writer(num_steps=160, label='dpo', file=out)
  writer.write(8, {**ROW, 'cell': 'seed 3'})
  writer.write(16, {'loss': 0.5})
  first, second = out.getvalue().splitlines()
  assert first == (
    'dpo seed 3 step   8/160  loss 0.6931  rewards/accuracies 0.531  '
    'rewards/margins -0.0123  logps/chosen -12.35  tokens/s 12,346  '
    'ETA 1:02:05'
  )
  assert second == 'dpo step  16/160  loss 0.5000'


def test_console_prints_nan_and_the_count_of_refused_steps():
  out = io.StringIO()
  writer = writers.console_writer(file=out)
  writer.write(8, {'loss': math.nan, 'nonfinite': 2.0})
  assert 'loss nan' in out.getvalue()
  assert 'non-finite steps 2' in out.getvalue()


def test_combined_writes_and_closes_everything():
  calls = []
  make = lambda name: writers.Writer(  # noqa: E731
    lambda step, row: calls.append((name, step, dict(row))),
    lambda step, tags: calls.append((name, 'rewind', step)),
    lambda: calls.append((name, 'close')),
  )
  writer = writers.combined_writer([make('a'), make('b')])
  writer.write(2, {'loss': 1.0})
  writer.rewind(1, {})
  writer.close()
  assert calls == [
    ('a', 2, {'loss': 1.0}),
    ('b', 2, {'loss': 1.0}),
    ('a', 'rewind', 1),
    ('b', 'rewind', 1),
    ('a', 'close'),
    ('b', 'close'),
  ]


def test_rewinding_nothing_leaves_the_file_alone(tmp_path):
  """A sweep rewinds every fresh cell; each would read the whole file."""
  path = tmp_path / 'metrics.jsonl'
  writer = writers.jsonl_writer(path)
  for step in (1, 2, 3):
    writer.write(step, {'loss': 0.5, 'cell': 'a'})
  inode = path.stat().st_ino
  writer.rewind(0, {'cell': 'b'})
  writer.rewind(3, {'cell': 'a'})
  assert path.stat().st_ino == inode
  writer.rewind(1, {'cell': 'a'})
  assert len(path.read_text().splitlines()) == 1
  writer.write(2, {'loss': 0.25, 'cell': 'a'})
  writer.close()
  again = writers.jsonl_writer(path)
  again.rewind(1, {'cell': 'a'})
  again.close()
  (line,) = path.read_text().splitlines()
  assert json.loads(line)['step'] == 1

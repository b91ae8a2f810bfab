"""Tables of labels, wide and long, and what is said of broken ones."""

import gzip
import json

import numpy as np
import pytest

from alignment.data.label_layouts import Naming
from alignment.data.label_tables import read_table, write_long, write_wide
from alignment.data.records import DataError

LONG = """task,worker,label,text,gold,group
t1,ann,yes,first text,yes,g1
t1,bob,no,first text,yes,g1
t1,cem,yes,first text,yes,g1
t2,ann,no,"second, with
a line break",no,g1
t2,bob,no,"second, with
a line break",no,g1
t3,ann,yes,third,,g2
"""


def write(tmp_path, text, name='table.csv'):
  path = tmp_path / name
  data = text if isinstance(text, bytes) else text.encode('utf-8')
  path.write_bytes(gzip.compress(data) if name.endswith('.gz') else data)
  return path


def votes_of(table):
  """{(task, worker): class} by names."""
  return {
    (table.tasks[i], table.workers[a]): table.classes[c]
    for i, a, c in zip(
      table.votes.task, table.votes.worker, table.votes.label, strict=True
    )
  }


@pytest.mark.parametrize('name', ['table.csv', 'table.csv.gz'])
def test_a_long_table(tmp_path, name):
  table = read_table(write(tmp_path, LONG, name), Naming())
  assert table.tasks == ('t1', 't2', 't3')
  assert table.classes == ('no', 'yes')
  assert votes_of(table) == {
    ('t1', 'ann'): 'yes',
    ('t1', 'bob'): 'no',
    ('t1', 'cem'): 'yes',
    ('t2', 'ann'): 'no',
    ('t2', 'bob'): 'no',
    ('t3', 'ann'): 'yes',
  }
  assert table.texts == (
    ('first text',),
    ('second, with\na line break',),
    ('third',),
  )
  assert table.gold.tolist() == [1, 0, -1]
  assert table.group == ('g1', 'g1', 'g2')
  assert table.is_long and not table.is_pairs
  assert np.all(table.label == -1)
  assert 'gave one label' in str(table.report)


def test_columns_of_other_names_and_other_formats(tmp_path):
  rows = [
    {'item': 7, 'rater': 'a', 'label': 1},
    {'item': 7, 'rater': 'b', 'label': 2.0},
    {'item': 9, 'rater': 'a', 'label': '2 '},
    {'item': 9, 'rater': 'b', 'label': None},
  ]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  path = write(tmp_path, text, 'table.jsonl.gz')
  table = read_table(path, Naming(task='item', worker='rater'))
  assert table.tasks == ('7', '9') and table.classes == ('1', '2')
  assert votes_of(table) == {
    ('7', 'a'): '1',
    ('7', 'b'): '2',
    ('9', 'a'): '2',
  }


def test_a_parquet_table(tmp_path):
  import pyarrow
  import pyarrow.parquet

  table = pyarrow.table(
    {'task': ['x', 'x', 'y'], 'worker': [1, 2, 1], 'label': [True, False, True]}
  )
  pyarrow.parquet.write_table(table, tmp_path / 'table.parquet')
  read = read_table(tmp_path / 'table.parquet', Naming())
  assert read.classes == ('false', 'true') and read.workers == ('1', '2')


def test_a_wide_table_of_pairs(tmp_path):
  text = (
    'a1,a2,left text,right text,q,p\n'
    '1,2,good,bad,why?,.9\n'
    '0,2,good,worse,why?,\n'
    '0,,same,other,why?,.5\n'
    '2,2,equal,equal,who?,1\n'
  )
  naming = Naming(
    votes=('a1', 'a2'),
    pair=('left text', 'right text'),
    text=('q',),
    group='q',
    confidence='p',
    ties=('0',),
  )
  table = read_table(write(tmp_path, text), naming)
  assert table.texts == (('why?', 'good', 'bad'), ('why?', 'good', 'worse'))
  assert table.classes == ('1', '2') and table.is_pairs
  assert table.votes.counts.tolist() == [[1, 1], [0, 1]]
  np.testing.assert_array_equal(table.confidence, [0.9, np.nan])
  report = str(table.report)
  assert 'no label: 1 (at 3)' in report
  assert 'both texts are the same: 1 (at 4)' in report
  assert table.take(np.array([1])).votes.counts.tolist() == [[0, 1]]


def test_comparisons_in_either_order_are_one_task(tmp_path):
  text = (
    'worker,left,right,label,prompt\n'
    'w1,pear,apple,pear,best?\n'
    'w2,apple,pear,right,best?\n'
    'w3,apple,pear,apple,best?\n'
    'w1,apple,pear,apple,worst?\n'
  )
  naming = Naming(text=('prompt',))
  table = read_table(write(tmp_path, text), naming)
  assert table.texts == (
    ('best?', 'apple', 'pear'),
    ('worst?', 'apple', 'pear'),
  )
  # pear, pear, apple of the first task; apple of the second.
  assert table.votes.label.tolist() == [1, 1, 0, 0]
  assert table.is_left.tolist() == [-1, 1, 1, 1]


def test_a_wide_and_a_long_table_come_back(tmp_path):
  before = read_table(write(tmp_path, LONG), Naming())
  write_long(tmp_path / 'long.jsonl', before)
  after = read_table(tmp_path / 'long.jsonl', Naming())
  write_wide(tmp_path / 'wide.csv', before)
  wide = read_table(
    tmp_path / 'wide.csv',
    Naming(
      votes=('ann', 'bob', 'cem'), gold='gold', group='group', text=('text',)
    ),
  )
  for table in (after, wide):
    assert votes_of(table) == votes_of(before)
    assert table.texts == before.texts and table.group == before.group
    np.testing.assert_array_equal(table.gold, before.gold)


CONTRADICTION = 'task,worker,label\na,w,yes\na,w,no\na,v,no\nb,w,yes\nb,w,yes\n'


def test_contradictory_answers_are_dropped_and_repeated_ones_count_once(
  tmp_path,
):
  table = read_table(write(tmp_path, CONTRADICTION), Naming())
  assert votes_of(table) == {('a', 'v'): 'no', ('b', 'w'): 'yes'}
  assert (
    table.report.count(
      'vote dropped, its worker says otherwise of the same task'
    )
    == 2
  )
  assert table.report.count('vote dropped, repeated') == 1


def test_answers_outside_the_classes_of_gold_are_dropped(tmp_path):
  text = 'x,gold\nyes,yes\nno,no\nit depends,no\n'
  naming = Naming(votes=('x',), gold='gold')
  table = read_table(write(tmp_path, text), naming)
  assert len(table) == 2
  assert table.report.count('answer dropped, none of the classes') == 1


BAD = {
  'an unknown worker column': (
    'a,b\n1,2\n2,1\n',
    Naming(votes=('a', 'c')),
    r"table.csv, field 'c': column is missing \(the file has \['a', 'b'\]\)",
  ),
  'no table of labels': (
    'a,b\n1,2\n',
    Naming(),
    'is no table of labels',
  ),
  'labels of one class': (
    'task,worker,label\na,v,x\nb,v,x\nb,w,x\n',
    Naming(),
    "field 'label': all labels are 'x'. Two classes are needed",
  ),
  'no label at all': (
    'task,worker,label\na,v,\nb,v,\n',
    Naming(),
    'holds no label',
  ),
  'numbers where classes should be': (
    'label\n' + ''.join(f'{i / 7}\n' for i in range(60)),
    Naming(label='label'),
    '60 different answers',
  ),
  'three answers about two texts': (
    'v,l,r\n0,a,b\n1,a,c\n2,a,d\n',
    Naming(votes=('v',), pair=('l', 'r')),
    'has answers 0, 1, 2, yet two texts are compared. Name the answers',
  ),
  'a row without a worker': (
    'task,worker,label\na,v,x\nb,,y\n',
    Naming(),
    "row 2, field 'worker': is empty",
  ),
  'gold that differs within a task': (
    'task,worker,label,gold\na,v,x,x\na,w,y,y\n',
    Naming(),
    "row 2, field 'gold': is 'y', yet an earlier row",
  ),
  'a confidence that is none': (
    'label,p\nx,.5\ny,1.5\n',
    Naming(label='label', confidence='p'),
    r"row 2, field 'p': is '1.5', must be a number in \[0, 1\]",
  ),
  'broken UTF-8': (
    b'task,worker,label\na,v,x\nb,w,y\xff\n',
    Naming(),
    "row 2, field 'label': not UTF-8",
  ),
  'a ragged row': (
    'task,worker,label\na,v\n',
    Naming(),
    'no readable CSV: .*Expected 3 columns, got 2',
  ),
  'a column twice': (
    'task,task,worker,label\na,b,v,x\n',
    Naming(),
    "field 'task': column is there twice",
  ),
  'an empty file': ('task,worker,label\n', Naming(), 'is empty'),
  'a contradiction, strictly': (
    CONTRADICTION,
    Naming(),
    "row 2, field 'worker': 'w' answers the task of line 1 again, and other",
  ),
  'a strange answer, strictly': (
    'x,gold\nyes,yes\nno,no\nit depends,no\n',
    Naming(votes=('x',), gold='gold'),
    "row 3, field 'x': is 'it depends', which is none of the classes no, yes",
  ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_tables_are_refused_by_place_and_remedy(tmp_path, case):
  text, naming, message = BAD[case]
  with pytest.raises(DataError, match=message):
    read_table(write(tmp_path, text), naming, strict=case.endswith('strictly'))


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(DataError, match='none.csv: cannot be read'):
    read_table(tmp_path / 'none.csv', Naming())


def test_names_that_a_layout_does_not_use_are_refused(tmp_path):
  path = write(tmp_path, LONG)
  for naming in (Naming(annotator='group'), Naming(confidence='group')):
    with pytest.raises(ValueError, match='not used where a row is a vote'):
      read_table(path, naming)
  with pytest.raises(ValueError, match="pair=.'text',. must name two"):
    read_table(path, Naming(pair=('text',)))


def test_workers_may_belong_to_groups(tmp_path):
  text = (
    'task,worker,label,worker_group\na,v1,x,v\na,v2,y,v\nb,w1,y,w\nb,v1,y,v\n'
  )
  table = read_table(write(tmp_path, text), Naming())
  assert dict(zip(table.workers, table.worker_group, strict=True)) == {
    'v1': 'v',
    'v2': 'v',
    'w1': 'w',
  }
  torn = text.replace('b,v1,y,v', 'b,v1,y,w')
  with pytest.raises(DataError, match='earlier row of the same worker says'):
    read_table(write(tmp_path, torn), Naming())


def test_workers_who_always_say_the_same_are_named(tmp_path):
  rows = [
    f't{i},{w},{"xy"[(i * (w == "v")) % 2]}' for i in range(6) for w in 'vw'
  ]
  path = write(tmp_path, '\n'.join(['task,worker,label', *rows]) + '\n')
  report = str(read_table(path, Naming()).report)
  assert '1 of 2 workers gave the same label 5 times or more' in report
  assert "('w', …)" in report


def test_nan_is_no_vote(tmp_path):
  text = '{"a": NaN, "b": "x"}\n{"a": "y", "b": "x"}\n'
  table = read_table(
    write(tmp_path, text, 'table.jsonl'), Naming(votes=('a', 'b'))
  )
  assert table.votes.counts.tolist() == [[1, 0], [1, 1]]


def test_ids_stay_right_where_there_are_many(tmp_path):
  rng = np.random.default_rng(5)
  task, worker = rng.integers(0, 4000, 20000), rng.integers(0, 300, 20000)
  _, first = np.unique(task * 300 + worker, return_index=True)
  task, worker = task[first], worker[first]
  label = rng.integers(0, 3, len(task))
  lines = ['task,worker,label'] + [
    f't{t},w{w},c{c}' for t, w, c in zip(task, worker, label, strict=True)
  ]
  table = read_table(write(tmp_path, '\n'.join(lines) + '\n'), Naming())
  found = {
    (table.tasks[i], table.workers[a], table.classes[c])
    for i, a, c in zip(
      table.votes.task, table.votes.worker, table.votes.label, strict=True
    )
  }
  wanted = {
    (f't{t}', f'w{w}', f'c{c}')
    for t, w, c in zip(task, worker, label, strict=True)
  }
  assert found == wanted

"""One audit per kind of data, on labels whose truth is known to the test."""

import csv
import functools
import json

import numpy as np
import pytest

from alignment.data.label_layouts import Naming
from alignment.data.label_tables import read_table
from alignment.data.readers import read_file
from alignment.data.records import DataError
from alignment.metrics.auroc import auroc
from experiments.audit import Config, run

quick = functools.partial(Config, scenarios=0)

SKILLS = {'ann': 0.95, 'bob': 0.85, 'cem': 0.8, 'dan': 0.75, 'eve': 0.3}
GOOD = 'clear careful correct exact sound kind'.split()
BAD = 'vague sloppy wrong loose broken rude'.split()
FILLER = (
  'the answer says that it would be as one might think about this'.split()
)
NUM_PAIRS = 500


def texts(rng, number):
  """Better and worse texts, told apart by some of their words."""

  def one(words):
    n = rng.integers(5, 12)
    return ' '.join([*rng.choice(FILLER, n), *rng.choice(words, 3)])

  return [(one(GOOD), one(BAD)) for _ in range(number)]


def write_rows(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.fixture(scope='module')
def voted(tmp_path_factory):
  """Comparisons by five workers, and the truth of each."""
  rng = np.random.default_rng(11)
  folder = tmp_path_factory.mktemp('voted')
  rows = []
  for i, (good, bad) in enumerate(texts(rng, NUM_PAIRS)):
    for worker, skill in SKILLS.items():
      if rng.random() < 0.2:
        continue
      left, right = (good, bad) if rng.random() < 0.5 else (bad, good)
      winner = good if rng.random() < skill else bad
      rows.append(
        {
          'worker': worker,
          'left': left,
          'right': right,
          'label': 'left' if winner == left else 'right',
          'prompt': f'question {i}',
          'group': f'topic {i % 50}',
        }
      )
  with open(folder / 'votes.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
  is_wrong = [
    not set(BAD).isdisjoint(
      (r['left'] if r['label'] == 'left' else r['right']).split()
    )
    for r in rows
  ]
  return str(folder / 'votes.csv'), float(np.mean(is_wrong))


@pytest.fixture(scope='module')
def audited(voted, tmp_path_factory):
  path, rate = voted
  folder = tmp_path_factory.mktemp('audited')
  config = quick(data=path, text=('prompt',), output_dir=str(folder / 'run'))
  return folder / 'run', run(config), rate, config


def rows_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def is_wrong(row):
  """By the words of the text that is chosen."""
  return not set(BAD).isdisjoint(row['chosen'].split())


def test_votes_give_a_rate_that_covers_the_truth(audited):
  _, result, rate, _ = audited
  assert result['is_identified'] and result['of_votes'] == 'annotators'
  found = result['rates']['annotators']
  assert found['low'] < rate < found['high']
  assert found['high'] - found['low'] < 0.12
  # Agreement takes all votes as alike, which eve is not.
  assert result['rates']['agreement']['rate'] > rate


def test_the_adversary_is_the_worst_annotator(audited):
  _, result, _, _ = audited
  name, skill, low, high, flags = result['worst_annotators'][0]
  assert name == 'eve' and 'at or below chance' in flags
  assert low < SKILLS['eve'] < high


def test_wrong_labels_come_first(audited):
  folder, _, _, _ = audited
  rows = rows_of(folder / 'rows.jsonl')
  assert len(rows) == NUM_PAIRS
  chosen = [r['first'] if r['label'] == 'first' else r['second'] for r in rows]
  wrong = np.array([is_wrong({'chosen': text}) for text in chosen])
  assert 0.02 < wrong.mean() < 0.3
  # By chance .5; the posterior of known skills reaches .9 and more.
  assert auroc(-np.arange(len(rows)), wrong) > 0.85
  posterior = np.array([r['flip_posterior'] for r in rows])
  # Calibrated: half a standard error of 500 draws is .01.
  assert abs(posterior.mean() - wrong.mean()) < 0.03


def test_the_cleaned_file_is_better_and_loads(audited):
  folder, result, _, _ = audited
  records, report = read_file(folder / 'cleaned.jsonl')
  assert result['policy'] == 'soften' and len(records) == NUM_PAIRS
  before = np.array([not is_wrong({'chosen': r.chosen}) for r in records])
  after = np.array(
    [
      r.label_prob if right else 1 - r.label_prob
      for r, right in zip(records, before, strict=True)
    ]
  )
  # Brier score of the truth: a hard label that is wrong costs 1.
  assert np.mean((1 - after) ** 2) < 0.7 * np.mean(1 - before)
  assert 'columns not used' in str(report)


def test_the_cleaned_file_looks_like_anybody_s(audited):
  import pyarrow.json

  folder, _, _, _ = audited
  table = pyarrow.json.read_json(folder / 'cleaned.jsonl')
  assert {'prompt', 'chosen', 'rejected'} <= set(table.column_names)
  for name in ('prompt', 'chosen', 'rejected'):
    assert table.schema.field(name).type == 'string'
    assert table.column(name).null_count == 0


def test_the_report_says_what_was_found(audited):
  folder, result, _, _ = audited
  text = (folder / 'report.md').read_text()
  assert result['verdict'] in text
  for part in (
    'agreement',
    'eve',
    'triangles',
    '## Recommendation',
    'P(wrong)',
  ):
    assert part in text
  assert (folder / 'figures' / 'audit.png').stat().st_size > 10_000


@pytest.mark.slow
def test_a_loss_is_recommended_only_if_it_has_earned_it(voted, tmp_path):
  path, _ = voted
  result = run(
    Config(
      data=path, text=('prompt',), scenarios=8, output_dir=str(tmp_path / 'run')
    )
  )
  loss, reason = result['recommendation']
  assert loss is None or 'in clean accuracy over dpo' in reason
  assert 'gain over dpo' in (tmp_path / 'run' / 'report.md').read_text()


def test_a_finished_audit_is_not_repeated(audited, capsys):
  folder, result, _, config = audited
  assert run(config) == result
  assert 'nothing was repeated' in capsys.readouterr().out
  assert list(folder.glob('*.tmp')) == []


def test_a_killed_audit_can_be_repeated(single, tmp_path, monkeypatch):
  path, _ = single
  config = quick(data=path, max_rows=60, output_dir=str(tmp_path))
  with monkeypatch.context() as patch:
    patch.setattr(
      'experiments.audit.report.write', lambda *_, **__: _ended_here()
    )
    with pytest.raises(KeyboardInterrupt):
      run(config)
  before = (tmp_path / 'cleaned.jsonl').read_bytes()
  result = run(config)
  assert result['rows'] == 60
  assert (tmp_path / 'cleaned.jsonl').read_bytes() == before


def _ended_here():
  raise KeyboardInterrupt


def test_flips_asked_for_put_labels_right(voted, tmp_path):
  path, _ = voted
  config = quick(
    data=path,
    text=('prompt',),
    action='flip',
    output_dir=str(tmp_path),
    num_shown=3,
  )
  result = run(config)
  rows = rows_of(tmp_path / 'cleaned.jsonl')
  after = np.mean([is_wrong(row) for row in rows])
  before = np.mean(
    [
      is_wrong({'chosen': r['rejected' if r['is_swapped'] else 'chosen']})
      for r in rows
    ]
  )
  assert result['actions']['flip'] > 0
  assert after < 0.8 * before


@pytest.fixture(scope='module')
def single(tmp_path_factory):
  """Two transcripts a row and nothing else, a quarter of them flipped."""
  rng = np.random.default_rng(3)
  folder = tmp_path_factory.mktemp('single')
  rows, flipped = [], rng.random(300) < 0.25
  for i, (good, bad) in enumerate(texts(rng, 300)):
    head = f'\n\nHuman: question {i}?\n\nAssistant:'
    chosen, rejected = (bad, good) if flipped[i] else (good, bad)
    rows.append(
      {'chosen': f'{head} {chosen}', 'rejected': f'{head} {rejected}'}
    )
  return write_rows(folder / 'pairs.jsonl', rows), flipped


def test_single_labels_give_no_rate_but_an_order(single, tmp_path):
  path, flipped = single
  result = run(quick(data=path, output_dir=str(tmp_path)))
  assert not result['is_identified']
  assert 'cannot be known' in result['verdict']
  rates = result['rates']
  for name in ('anchors', 'agreement', 'repeated_rows', 'triangles', 'stated'):
    assert rates[name]['rate'] is None and rates[name]['refusal']
  assert rates['single_labels']['rate'] is None
  assert rates['single_labels']['low'] == 0
  assert result['policy'] == 'ask' and result['actions']['flip'] == 0
  order = [row['index'] for row in rows_of(tmp_path / 'rows.jsonl')]
  # The words tell, so even without a rate flips come first.
  assert auroc(-np.arange(300), flipped[order]) > 0.9
  before, _ = read_file(path)
  after, _ = read_file(tmp_path / 'cleaned.jsonl')
  assert [(r.chosen, r.label_prob, r.weight) for r in after] == [
    (r.chosen, 1.0, 1.0) for r in before
  ]
  asked = rows_of(tmp_path / 'cleaned.ask.jsonl')
  assert len(asked) == 100
  # A question gives no hint of the label: which side is first is a coin.
  is_good = [set(BAD).isdisjoint(row['first'].split()) for row in asked]
  assert 30 < sum(is_good) < 70


def test_flips_that_nothing_backs_are_refused(single, tmp_path):
  path, _ = single
  with pytest.raises(ValueError, match='--action=flip: nothing identifies'):
    run(quick(data=path, action='flip', output_dir=str(tmp_path)))


def test_a_rate_that_is_vouched_for_allows_them(single, tmp_path):
  path, flipped = single
  result = run(
    quick(
      data=path,
      action='flip',
      assumed_flip_rate=0.25,
      output_dir=str(tmp_path),
    )
  )
  assert result['of_labels'] == 'assumed'
  rows = rows_of(tmp_path / 'cleaned.jsonl')
  turned = np.array([row['is_swapped'] for row in rows])
  assert turned[flipped].mean() > 0.8 and turned[~flipped].mean() < 0.1


def test_known_truths_on_some_rows_give_the_rate(tmp_path):
  rng = np.random.default_rng(8)
  flipped, known = rng.random(400) < 0.2, rng.random(400) < 0.5
  rows = []
  for i, (good, bad) in enumerate(texts(rng, 400)):
    chosen, rejected = (bad, good) if flipped[i] else (good, bad)
    row = {'prompt': f'q{i}', 'chosen': chosen, 'rejected': rejected}
    row |= {'annotator_id': i % 4, 'source': 'ab'[i % 2]}
    rows.append(row | ({'clean_label': not flipped[i]} if known[i] else {}))
  path = write_rows(tmp_path / 'anchored.jsonl', rows)
  result = run(
    quick(data=path, slice=('source',), output_dir=str(tmp_path / 'run'))
  )
  found = result['rates']['anchors']
  assert result['of_labels'] == 'anchors'
  assert found['low'] < flipped.mean() < found['high']
  assert result['scores']['small_loss'][0][0] > 0.9
  text = (tmp_path / 'run' / 'report.md').read_text()
  assert 'By source:' in text and 'annotator 3' in text
  # Columns the audit does not know come back.
  assert rows_of(tmp_path / 'run' / 'cleaned.jsonl')[1]['source'] == 'b'


def test_a_table_of_classes_comes_back_as_a_table(tmp_path):
  rng = np.random.default_rng(2)
  truth = rng.integers(0, 3, 240)
  words = [GOOD, BAD, ['blue', 'green', 'red']]
  columns = {name: [] for name in ('text', 'one', 'two', 'three', 'truth')}
  for y in truth:
    columns['text'].append(
      ' '.join([*rng.choice(FILLER, 5), *rng.choice(words[y], 3)])
    )
    columns['truth'].append('abc'[y])
    for worker in ('one', 'two', 'three'):
      said = y if rng.random() < 0.85 else rng.integers(0, 3)
      columns[worker].append('abc'[said])
  rows = [
    dict(zip(columns, v, strict=True))
    for v in zip(*columns.values(), strict=True)
  ]
  path = write_rows(tmp_path / 'wide.jsonl', rows)
  result = run(
    quick(
      data=path,
      votes=('one', 'two', 'three'),
      text=('text',),
      output_dir=str(tmp_path / 'run'),
    )
  )
  # A wrong answer is drawn of three, so a third of them is right.
  assert (
    result['rates']['agreement']['low']
    < 0.1
    < result['rates']['agreement']['high']
  )
  table = read_table(
    tmp_path / 'run' / 'cleaned.jsonl',
    Naming(label='label', gold='truth', text=('text',)),
  )
  assert len(table) == 240
  assert np.mean(table.label == table.gold) > 0.9


def test_csv_with_one_label_and_a_stated_probability(tmp_path):
  rng = np.random.default_rng(4)
  lines = ['statement,answer,p,source']
  for i in range(120):
    y = rng.integers(0, 2)
    text = ' '.join(rng.choice([BAD, GOOD][y], 4))
    lines.append(f'{text},{["No", "Yes"][y]},{rng.uniform(0.7, 0.9)},s{i % 12}')
  path = tmp_path / 'stated.csv'
  path.write_text('\n'.join(lines) + '\n')
  result = run(
    quick(
      data=str(path),
      label='answer',
      text=('statement',),
      confidence='p',
      group='source',
      max_rows=100,
      output_dir=str(tmp_path / 'run'),
    )
  )
  assert result['rows'] == 100 and result['of_labels'] == 'stated'
  assert abs(result['rates']['stated']['rate'] - 0.2) < 0.02


def test_bad_input_is_refused_by_name(tmp_path, single):
  path, _ = single
  common = {'output_dir': str(tmp_path)}
  for config, message in (
    (quick(**common), '--data=: name what'),
    (
      quick(data=path, pair=('a', 'b'), **common),
      r"--pair=\('a', 'b'\): only",
    ),
    (quick(data=path, columns=('chosen',), **common), 'want ours=theirs'),
    (
      quick(data=path, columns=('chosen=c',), **common),
      "field 'c': column is",
    ),
    (quick(data=path, slice=('where',), **common), "field 'where': column is"),
    (quick(data=path, votes=('a',), **common), "field 'a': column is missing"),
    (quick(data=str(tmp_path / 'no.csv'), **common), 'cannot be read'),
  ):
    with pytest.raises((ValueError, DataError), match=message):
      run(config)


def test_a_rate_is_not_assumed_where_votes_tell_one(voted, tmp_path):
  path, _ = voted
  config = quick(
    data=path, assumed_flip_rate=0.1, max_rows=150, output_dir=str(tmp_path)
  )
  with pytest.raises(ValueError, match='--assumed_flip_rate=0.1: not used'):
    run(config)


@pytest.mark.parametrize(
  ('answer', 'said'),
  [
    ('left', '1.000 of votes go to the text shown first'),
    ('coin', 'the one at which labels say nothing'),
    ('same', 'no two votes on a row differ'),
  ],
)
def test_votes_that_tell_nothing_change_no_label(tmp_path, answer, said):
  rng = np.random.default_rng(12)
  lines = ['worker,left,right,label']
  for i in range(150):
    for worker in 'abc':
      sides = [f'text {i}', f'reply {i}']
      if answer == 'same' and worker == 'b':
        sides.reverse()
      label = {'left': 'left', 'same': f'text {i}'}.get(answer)
      label = label or str(rng.choice(['left', 'right']))
      lines.append(f'{worker},{sides[0]},{sides[1]},{label}')
  path = tmp_path / 'votes.csv'
  path.write_text('\n'.join(lines) + '\n')
  result = run(quick(data=str(path), output_dir=str(tmp_path / 'run')))
  assert said in (tmp_path / 'run' / 'report.md').read_text()
  if answer == 'same':
    # Nobody is seen to err, so that the rate has an upper end and no more.
    assert result['rates']['agreement']['low'] == 0
    assert 'unanimous votes' in result['limits']
  else:
    assert result['policy'] == 'ask' and 'Beware' in result['verdict']
  rows = rows_of(tmp_path / 'run' / 'cleaned.jsonl')
  assert {row['label_prob'] for row in rows} == {1.0}


def test_data_that_changed_are_not_taken_for_those_audited(single, tmp_path):
  path, _ = single
  rows = open(path).read().splitlines()[:60]
  mine = tmp_path / 'mine.jsonl'
  mine.write_text('\n'.join(rows[:55]) + '\n')
  config = quick(data=str(mine), output_dir=str(tmp_path / 'run'))
  run(config)
  mine.write_text('\n'.join(rows) + '\n')
  with pytest.raises(ValueError, match='has changed since'):
    run(config)


def test_texts_cannot_break_the_report():
  from experiments.report.audit_text import safe

  nasty = '| a\n# b `c` <script> [x](y) \x00\u202e ' + 'long ' * 200
  text = safe(nasty)
  assert '\n' not in text and '\x00' not in text and '\u202e' not in text
  assert len(text) < 400 and ' … ' in text
  for mark in '|#`<[':
    assert f'\\{mark}' in text

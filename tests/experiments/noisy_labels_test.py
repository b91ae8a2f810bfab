"""Pointwise methods on noisy labels: report, resuming, files, refusals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from absl import flags

from experiments import common, noisy_labels
from experiments.report import noisy_labels as report

SMALL = noisy_labels.Config(
  method=('forward', 'gce'),
  noise=('pair_flip',),
  flip_rate=(0.3,),
  seeds=2,
  steps=20,
  num_stops=2,
  batch_size=40,
  learning_rate=(1e-2,),
  width=8,
  num_train=160,
  num_validation=60,
  num_test=80,
  threads=1,
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  directory = tmp_path_factory.mktemp('labels') / 'run'
  config = dataclasses.replace(SMALL, output_dir=str(directory))
  return config, directory, noisy_labels.run(config)


def test_the_report_says_what_was_compared(finished):
  _, directory, result = finished
  text = (directory / 'report.md').read_text(encoding='utf-8')
  for part in (
    '# Pointwise methods under label noise: BALLOT',
    'the best possible accuracy is 1',
    'Floor: the majority class',
    '| pair_flip 0.3 |',
    '## pair_flip, 30% of the labels wrong',
    'forward, estimated T',
    'What estimating T instead of knowing it cost: forward',
    'Cross-entropy on the unflipped labels only minus cross-entropy',
  ):
    assert part in text, part
  assert (directory / 'figures' / 'noisy_labels.png').stat().st_size > 10_000
  rows = [
    json.loads(line)['row']
    for line in (directory / 'trials.jsonl').read_text().splitlines()
  ]
  accuracy = {
    name: [row['arms'][name]['selected']['accuracy'] for row in rows]
    for name in ('gce', 'cross_entropy')
  }
  found = result['pair_flip/0.3']['gce']
  assert found['accuracy'][0] == pytest.approx(np.mean(accuracy['gce']))
  assert found['difference'][0] == pytest.approx(
    np.mean(accuracy['gce']) - np.mean(accuracy['cross_entropy'])
  )


def _rows(levels):
  """Five trials whose accuracies are `levels` and a little noise."""
  rng = np.random.default_rng(4)
  rows = []
  for seed in range(5):
    arms = {}
    for name, (level, stop) in levels.items():
      score = {'accuracy': level + rng.normal(0, 1e-3), 'fitted': 0.5}
      arms[name] = {
        'selected': {**score, 'learning_rate': stop[0], 'step': stop[1]},
        'last': {**score, 'learning_rate': 0.1, 'step': 40},
        'curve': [level] * 4,
      }
    row = {'noise': 'symmetric', 'flip_rate': 0.4, 'seed': seed, 'arms': arms}
    refused = {'backward': 'no inverse'} if seed == 1 else {}
    rows.append({**row, 'refused': refused, 'realised_rate': 0.4})
  return rows


def _setup():
  return report.Setup(
    title='T',
    facts=[],
    settings=[('symmetric', 0.4)],
    arms=['cross_entropy', 'gce', 'mae', 'backward'],
    floors=[0.25],
    groups=None,
    grid_ends=((0.1, 10), (0.2, 40)),
    estimator='anchors',
  )


LEVELS = {
  'cross_entropy': (0.5, (0.1, 20)),
  'gce': (0.6, (0.2, 40)),
  'mae': (0.4, (0.1, 10)),
  'on the unflipped labels only': (0.7, (0.1, 20)),
  'on clean labels': (0.8, (0.1, 30)),
}


def test_rulings_in_the_report(tmp_path, capsys):
  report.write(tmp_path, _setup(), _rows(LEVELS))
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert text in capsys.readouterr().out + '\n'
  for part in (
    'there is something to win',
    'Of 2 intervals 1 lie above 0 and 1 below',
    'counted (Bonferroni): symmetric 0.4: gce.',
    'first stop of the smallest learning rate, so another grid might serve '
    'better: mae.',
    'last stop of the largest learning rate, so another grid might serve '
    'better: gce.',
    'backward: not trained on seed 1: no inverse.',
    '**Better than cross-entropy somewhere and worse nowhere: gce (1 of 1). '
    'Worse somewhere: mae (1).**',
  ):
    assert part in text, part
  (row,) = [line for line in text.splitlines() if line.startswith('| backward')]
  assert '–' in row


def test_nothing_is_ranked_where_there_is_nothing_to_win(tmp_path):
  levels = {**LEVELS, 'on the unflipped labels only': (0.5, (0.1, 20))}
  report.write(tmp_path, _setup(), _rows(levels))
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert '**this table cannot rank methods**' in text
  assert 'Cannot rank methods, and is not counted below: symmetric 0.4' in text
  assert text.rstrip().endswith('**Nothing can be ranked.**')


def test_a_finished_run_is_shown_and_not_repeated(finished, capsys):
  config, directory, result = finished
  before = (directory / 'trials.jsonl').stat().st_mtime_ns
  assert noisy_labels.run(config) == json.loads(json.dumps(result))
  assert 'nothing was repeated' in capsys.readouterr().out
  assert (directory / 'trials.jsonl').stat().st_mtime_ns == before


def test_an_interrupted_run_goes_on_with_what_is_missing(
  finished, tmp_path, capsys
):
  _, directory, result = finished
  lines = (directory / 'trials.jsonl').read_text().splitlines(keepends=True)
  place = tmp_path / 'again'
  place.mkdir()
  (place / 'trials.jsonl').write_text(lines[0] + lines[1][:50])
  config = dataclasses.replace(SMALL, output_dir=str(place))
  assert noisy_labels.run(config) == result
  assert '[1/2]' not in capsys.readouterr().out


def _write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


def test_a_file_of_texts(tmp_path):
  rng = np.random.default_rng(1)
  words = np.array(['red', 'green', 'blue', 'tall', 'wide', 'old', 'new'])
  rows = []
  for number in range(240):
    kind = number % 3
    text = ' '.join([*rng.choice(words[3:], 2), words[kind]])
    rows.append({'what': f'{text} {number}', 'colour': int(kind)})
  path = _write(tmp_path / 'rows.jsonl', rows)
  config = dataclasses.replace(
    SMALL,
    output_dir=str(tmp_path / 'run'),
    data=path,
    text='what',
    label='colour',
    width=None,
    num_train=None,
    num_validation=None,
    num_test=None,
    method=('gce',),
    assume=(),
    steps=60,
  )
  result = noisy_labels.run(config)
  text = (tmp_path / 'run' / 'report.md').read_text(encoding='utf-8')
  assert '3 classes. Labels as given count as clean' in text
  assert 'groups of test rows' in text and 'a linear model' in text
  found = result['pair_flip/0.3']
  # One word decides the class.
  assert found['on clean labels']['accuracy'][0] > 0.9
  assert found['gce']['difference'][3] > 20


PAIRS = [{'prompt': 'p', 'chosen': 'a', 'rejected': 'b'}]
REFUSED = {
  'method': (['--method=nope'], '--method=nope: must be one of'),
  'no_method': (['--method='], '--method=: name one'),
  'assume': (['--assume=guess'], '--assume=guess: must be one of'),
  'assume_unused': (
    ['--method=gce', '--assume=true'],
    '--assume=true: none of --method=gce is told',
  ),
  'estimator_unused': (
    ['--assume=true', '--estimator=anchors'],
    '--estimator=anchors: no method is told an estimate',
  ),
  'noise': (['--noise=loud'], '--noise=loud: must be one of'),
  'rate': (['--flip_rate=0'], '--flip_rate=0: must be within (0, 1)'),
  'no_rate': (['--flip_rate='], '--flip_rate=: name one'),
  'no_learning_rate': (['--learning_rate='], '--learning_rate=: name one'),
  'rate_out_of_reach': (
    ['--noise=class_conditional', '--flip_rate=0.9'],
    'flip_rate=0.9 is out of reach',
  ),
  'stops': (['--num_stops=7'], '--num_stops=7: must divide --steps=600'),
  'rows': (['--num_train=50'], '--num_train=50: must be at least 100'),
  'no_test': (['--num_test=0'], '--num_test=0: must be at least 1'),
  'text_alone': (
    ['--data=pairs.jsonl', '--text=prompt'],
    '--text=prompt: needs --label',
  ),
  'text_embedded': (['--text=prompt'], '--text=prompt: not used by the embedd'),
  'classes_of_a_file': (
    ['--data=pairs.jsonl', '--num_classes=3'],
    '--num_classes=3: not used by --data',
  ),
  'pairs': (['--data=pairs.jsonl'], 'holds pairs, not single completions'),
  'column': (
    ['--data=pairs.jsonl', '--text=prompt', '--label=grade'],
    'is None, no str or int or bool',
  ),
  'instance_dependent': (
    ['--data=few.jsonl', '--noise=instance_dependent', '--batch_size=5'],
    'only the embedded task knows',
  ),
  'small_file': (
    ['--data=few.jsonl'],
    '--batch_size=100: must be at most the',
  ),
  'absent': (['--data=absent.jsonl'], 'absent.jsonl'),
}


@pytest.fixture
def parse():
  before = set(flags.FLAGS)

  def parsed(*given):
    common.define_flags(noisy_labels.Config)
    flags.FLAGS(['noisy_labels', *given])
    return common.from_flags(noisy_labels.Config)

  yield parsed
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


@pytest.mark.parametrize('name', REFUSED)
def test_refusals(name, parse, tmp_path, monkeypatch):
  given, complaint = REFUSED[name]
  monkeypatch.chdir(tmp_path)
  _write(tmp_path / 'pairs.jsonl', PAIRS)
  few = [
    {'prompt': f'p{i}', 'completion': 'c', 'label': i % 2 == 0}
    for i in range(40)
  ]
  _write(tmp_path / 'few.jsonl', few)
  with pytest.raises((ValueError, OSError)) as refused:
    noisy_labels.run(parse('--output_dir=mine', *given))
  assert complaint in ' '.join(str(refused.value).split())
  # Nothing is left that a corrected command would collide with.
  assert not (tmp_path / 'mine').exists()

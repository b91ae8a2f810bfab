"""Pointwise methods on noisy labels: report, resuming, files, refusals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from absl import flags

from experiments import common, noisy_labels

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
    'Bonferroni',
    'worse nowhere',
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
  'assume_needed': (['--assume='], '--assume=: conservative has to be told'),
  'estimator_unused': (
    ['--assume=true', '--estimator=anchors'],
    '--estimator=anchors: nothing is estimated',
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

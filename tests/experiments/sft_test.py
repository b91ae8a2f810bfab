"""Supervised fine-tuning: what it reports, resumes and refuses."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from alignment.protocols import settings
from alignment.training.preemption import Preempted
from experiments import sft

SMALL = sft.Config(
  seeds=2,
  steps=12,
  batch_size=16,
  learning_rate=5e-3,
  width=16,
  depth=1,
  log_interval=6,
)
WORDS = ('red', 'green', 'blue', 'black')


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.fixture
def pairs(tmp_path):
  """Preferences: the chosen answer repeats the word asked for."""
  rng = np.random.default_rng(2)
  rows = []
  for number in range(60):
    one, other = rng.permutation(WORDS)[:2]
    rows.append(
      {
        'prompt': f'{number}: say {one}. ',
        'chosen': f'{one} {one}',
        'rejected': f'{other} no',
      }
    )
  return write(tmp_path / 'pairs.jsonl', rows)


@pytest.fixture
def labelled(tmp_path):
  """Single completions, a third of them labelled bad."""
  rows = [
    {
      'prompt': f'{number}: ',
      'completion': WORDS[number % 4] if number % 3 else f'@@{number}',
      'label': bool(number % 3),
    }
    for number in range(90)
  ]
  return write(tmp_path / 'labelled.jsonl', rows)


def run(tmp_path, name='run', **changes):
  config = dataclasses.replace(
    SMALL, output_dir=str(tmp_path / name), **changes
  )
  return sft.run(config), tmp_path / name


def rows_of(directory):
  return [
    json.loads(line)
    for line in (directory / 'eval' / 'seeds.jsonl').read_text().splitlines()
  ]


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A finished run: (result, directory)."""
  return run(tmp_path_factory.mktemp('sft'))


def test_the_embedded_task_is_learned_and_reported(done):
  result, directory = done
  rows = rows_of(directory)
  assert [row['seed'] for row in rows] == [0, 1]
  gains = [row['before'] - row['after'] for row in rows]
  assert min(gains) > 0.2
  np.testing.assert_allclose(result['gain'][0], np.mean(gains), rtol=1e-6)
  report = (directory / 'report.md').read_text()
  for text in ('held out, before', 'uniform guess, log V', 'paired by seed'):
    assert text in report
  assert f'{result["after"][0]:.3f}' in report
  assert (directory / 'finished.json').exists()
  assert metric_keys(directory) == [
    (f'seed {seed}', step) for seed in (0, 1) for step in (1, 6, 12)
  ]


def metric_keys(directory):
  lines = (directory / 'metrics.jsonl').read_text().splitlines()
  return [(row['cell'], row['step']) for row in map(json.loads, lines)]


def test_a_finished_run_is_not_repeated(done, capsys):
  result, directory = done
  before = {
    path: path.stat().st_mtime_ns
    for path in directory.rglob('*')
    if path.is_file() and path.name != 'config.json'
  }
  again, _ = run(directory.parent)
  assert again == json.loads(json.dumps(result))
  out = capsys.readouterr().out
  assert 'nothing was repeated' in out and 'uniform guess' in out
  assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_config_in_its_directory_is_refused(done):
  with pytest.raises(ValueError, match='steps: 12 there, 13 now'):
    run(done[1].parent, steps=13)


def test_a_resumed_run_equals_one_that_was_not_stopped(
  done, tmp_path, monkeypatch
):
  asked = iter(range(10_000))
  original = sft.fine_tune

  def stopped(*arguments, **keywords):
    # Halfway through the second seed.
    keywords['should_stop'] = lambda step: next(asked) >= 19
    return original(*arguments, **keywords)

  with monkeypatch.context() as patch, pytest.raises(Preempted):
    patch.setattr(sft, 'fine_tune', stopped)
    run(tmp_path, save_interval=5)
  assert not (tmp_path / 'run' / 'finished.json').exists()
  resumed, directory = run(tmp_path)
  assert resumed == done[0]
  assert rows_of(directory) == rows_of(done[1])
  keys = metric_keys(directory)
  # The step it was stopped at has a row as well; none is there twice.
  assert len(set(keys)) == len(keys) and set(metric_keys(done[1])) < set(keys)


def test_own_pairs_teach_their_chosen_side(tmp_path, pairs):
  result, directory = run(
    tmp_path,
    data=pairs,
    seeds=1,
    steps=40,
    batch_size=8,
    learning_rate=1e-2,
    max_completion_length=16,
  )
  (row,) = rows_of(directory)
  assert row['before'] - row['after'] > 1.0
  assert row['held_out'] == 6
  report = (directory / 'report.md').read_text()
  assert 'one seed, so no interval' in report and pairs in report
  assert result['gain'][1] is None


def test_only_good_completions_are_learned(tmp_path, labelled):
  config = dataclasses.replace(SMALL, data=labelled)
  config = sft.common.fill(config, sft.OWN, settings.TEXT)
  train, held_out = sft._groups(config, sft._policy(config, None), 0)
  assert len(train) + len(held_out) == 60
  texts = [bytes(group.completions[0][:-1].tolist()) for group in train]
  assert not any(b'@' in text for text in texts)
  _, directory = run(tmp_path, data=labelled, seeds=1, steps=20, batch_size=8)
  (row,) = rows_of(directory)
  assert row['after'] < row['before']


def test_without_a_good_completion_it_says_so(tmp_path):
  rows = [
    {'prompt': f'{i}', 'completion': 'x', 'label': False} for i in range(30)
  ]
  data = write(tmp_path / 'bad.jsonl', rows)
  with pytest.raises(ValueError, match='bad.jsonl.*no completion to learn'):
    run(tmp_path, data=data)


@pytest.mark.parametrize(
  ('changes', 'complaint'),
  [
    ({'steps': 0}, r'--steps=0: must be within \[1, inf\)'),
    ({'seeds': 0}, r'--seeds=0: must be within \[1, inf\)'),
    ({'batch_size': -1}, '--batch_size=-1: must be within'),
    ({'learning_rate': 0.0}, r'--learning_rate=0: must be within \(0, inf\)'),
    ({'learning_rate': float('nan')}, '--learning_rate=nan: must be within'),
    ({'save_interval': -1}, '--save_interval=-1: must be within'),
    ({'width': 18, 'num_heads': 2}, 'width=18: must be a multiple'),
    ({'max_prompt_length': 9}, '--max_prompt_length=9: not used by the embed'),
    ({'data': 'absent.jsonl', 'difficulty': 'hard'}, 'not used by a tr'),
    ({'model': 'hashed', 'data': 'x.jsonl'}, 'is no policy that writes'),
    ({'model': 'absent'}, '--model=absent: reads text, give --data'),
    ({'model': 'absent', 'data': 'x.jsonl'}, '--model=absent: is neither'),
    ({'lora_path': 'merged'}, '--lora_path=merged: only used where --lora_r'),
    ({'data': 'absent.jsonl'}, 'absent.jsonl'),
  ],
)
def test_refused(tmp_path, changes, complaint):
  with pytest.raises((ValueError, OSError), match=complaint):
    run(tmp_path, **changes)
  if 'data' not in changes or len(changes) > 1:
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('field', 'value'),
  [('difficulty', 'hard'), ('learning_rate', 1e-2), ('depth', 2)],
)
def test_flags_have_an_effect(done, tmp_path, field, value):
  _, directory = run(tmp_path, seeds=1, **{field: value})
  assert rows_of(directory)[0]['after'] != rows_of(done[1])[0]['after']

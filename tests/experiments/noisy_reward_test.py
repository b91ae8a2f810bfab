"""Reward models under noise: report, contrasts, resuming, data, refusals."""

import contextlib
import dataclasses
import io
import json

import pytest

from alignment.metrics.intervals import Estimate
from experiments import common, noisy_reward
from experiments.report import reward as report
from tests.protocols.records import (
  preferences,
  voted,
  write_jsonl,
  write_votes,
)

SMALL = noisy_reward.Config(
  loss=('forward',),
  ensemble=('worst',),
  repair=('flip',),
  members=2,
  misassumed=0.0,
  flip_rate=(0.0, 0.3),
  l2=(0.1, 0.01),
  seeds=2,
  num_pairs=120,
  num_validation=60,
  num_test=200,
  threads=1,
  cache_dir='',
)
TEXT = {
  'num_pairs': 0,
  'num_validation': 0,
  'num_test': 0,
  'loss': (),
  'flip_rate': (0.0,),
}


def run(folder, **changes):
  config = dataclasses.replace(SMALL, output_dir=str(folder), **changes)
  with contextlib.redirect_stdout(io.StringIO()) as out:
    result = noisy_reward.run(config)
  return result, out.getvalue()


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  folder = tmp_path_factory.mktemp('noisy_reward') / 'run'
  return folder, *run(folder)


def _arms(text, heading):
  """First column of the first table after a heading."""
  rows = text.split(heading, 1)[1].split('\n\n')[1].splitlines()
  return [row.split('|')[1].strip() for row in rows[2:]]


def test_report_has_arms_controls_and_contrasts(done):
  folder, result, printed = done
  text = (folder / 'report.md').read_text(encoding='utf-8')
  assert text.split('\n![')[0].rstrip() in printed
  for rate in ('0', '0.3'):
    after = text.split(f'## Flip rate {rate}\n')[1]
    arms = _arms(after, '### What it picks')
    assert arms[:2] == ['bradley_terry', f'forward@{rate}']
    assert arms[-3:] == [
      'bradley_terry (unflipped)',
      'bradley_terry (clean)',
      'gold reward',
    ]
    assert arms == _arms(after, '### What it says')
  assert text.count('**(a) forward@') == text.count('**(c) committee') == 2
  assert (folder / 'figures' / 'reward.png').stat().st_size > 10_000
  gold = result['0.3']['arms']['gold reward']
  assert gold['accuracy'] == 1 and gold['gold@4096'] > 0.99


def test_cells_are_strict_json_and_seeds_differ(done):
  folder, result, _ = done

  def refuse(constant):
    raise AssertionError(f'{constant} is no JSON')

  lines = (folder / 'eval' / 'cells.jsonl').read_text().splitlines()
  cells = [json.loads(line, parse_constant=refuse) for line in lines]
  base = [c for c in cells if c['name'] == 'bradley_terry']
  values = {c['selected']['summary']['accuracy'] for c in base}
  assert len(base) == 4 and len(values) == 4
  json.dumps(result, allow_nan=False)


def test_without_flips_unflipped_is_the_baseline(done):
  _, result, _ = done
  arms = result['0.0']['arms']
  assert arms['bradley_terry (unflipped)']['difference'][0] == 0.0
  # At an assumed rate of 0 the forward correction is the baseline.
  assert abs(arms['forward@0']['difference'][0]) < 1e-3


def test_a_finished_run_is_shown_and_an_interrupted_one_resumed(done, tmp_path):
  folder, result, _ = done
  again, printed = run(folder)
  assert again == result and 'nothing was repeated' in printed
  # Three of the four cells are there already: they are not fitted again.
  (tmp_path / 'eval').mkdir()
  (tmp_path / 'config.json').write_text((folder / 'config.json').read_text())
  there = (folder / 'eval' / 'done.jsonl').read_text().splitlines()[:3]
  (tmp_path / 'eval' / 'done.jsonl').write_text('\n'.join(there) + '\n')
  resumed, printed = run(tmp_path)
  assert resumed == result
  assert '[4/4]' in printed and '[3/4]' not in printed


@pytest.mark.parametrize('kind, seeds', [('votes', 2), ('labels', 1)])
def test_on_real_preferences(tmp_path, kind, seeds):
  if kind == 'votes':
    data = write_votes(tmp_path / 'votes', voted(12, 4))
  else:
    data = write_jsonl(tmp_path / 'pairs.jsonl', preferences(12, 4))
  result, printed = run(
    tmp_path / 'run', data=str(data), **TEXT, seeds=seeds, estimator=''
  )
  assert 'flip rate 0 minus length only' in printed
  assert 'gold@' not in printed
  assert ('not identified' in printed) == (kind == 'labels')
  assert '@estimate' not in printed
  found = result['0.0']['arms']['bradley_terry']
  assert found['agreement'] > 0.6 and 0 < found['brier'] < 0.3
  assert (tmp_path / 'run' / 'figures' / 'reward.png').exists()


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'members': 3}, '--members=3: must be even'),
    ({'estimator': 'oracle'}, '--estimator=oracle: must be one of'),
    ({'noise': 'sym'}, '--noise=sym: must be one of'),
    ({'noise': 'per_annotator'}, 'reads the annotator_id of pairs'),
    ({'loss': ('soft_label',)}, '--loss=soft_label'),
    ({'num_test': 0}, '--num_test=0: must be at least 1'),
    ({'preference': 'argmax', 'temperature': 0.5}, '--temperature=0.5'),
    ({'max_completion_length': 9}, '--max_completion_length=9: not used by'),
    ({'data': 'x.jsonl', 'preference': 'bt'}, '--preference=bt: not used by'),
  ],
)
def test_flags_without_effect_are_refused_before_anything_is_written(
  tmp_path, changes, message
):
  with pytest.raises(ValueError, match=message):
    run(tmp_path / 'run', **changes)
  assert not (tmp_path / 'run').exists()


def test_a_ruling_needs_an_interval_on_the_side_named():
  below, wide = Estimate(-0.2, -0.3, -0.1, 9), Estimate(-0.2, -0.5, 0.1, 9)
  assert report.ruling(below, -1) == 'confirmed'
  assert report.ruling(below, 1) == 'contradicted'
  assert report.ruling(wide, -1) == 'undecided'
  assert report.ruling(Estimate(-0.2, None, None, 1), -1) == 'undecided'


def test_default_run_directory_is_that_of_the_experiment():
  assert common.default_output_dir(noisy_reward.Config()).endswith(
    'noisy_reward'
  )

"""The experiment end to end, small; and what it refuses."""

import json

import pytest

from experiments import label_budget
from experiments.label_budget import Config

TINY = {
  'cache_dir': '',
  'seeds': 2,
  'num_pairs': 256,
  'num_features': 4,
  'num_validation': 40,
  'budget': (40,),
  'batch': 8,
  'rounds': 1,
  'noise': ('symmetric',),
  'flip_rate': (0.2,),
  'price_flip_rate': (0.2,),
  'target_accuracy': 0.7,
}


def test_all_questions_are_answered_and_not_asked_again(tmp_path, capsys):
  config = Config(output_dir=str(tmp_path), **TINY)
  result = label_budget.run(config)
  assert set(result) == {'allocation', 'price', 'queries', 'money'}
  report = (tmp_path / 'report.md').read_text(encoding='utf-8')
  for heading in ('## Allocation', '## Price', '## Queries', '## Money'):
    assert heading in report
  assert (tmp_path / 'figures' / 'label_budget.png').stat().st_size > 10_000
  rows = (tmp_path / 'cells.jsonl').read_text(encoding='utf-8').splitlines()
  assert len(rows) == 8
  priced = result['price']['0.2']
  assert priced['theory']['rule'] == pytest.approx(0.36)
  assert priced['theory']['plain'] < priced['theory']['forward'] < 0.36
  capsys.readouterr()
  assert label_budget.run(config) == json.loads(json.dumps(result))
  assert 'nothing was repeated' in capsys.readouterr().out


def test_an_interrupted_run_keeps_what_is_done(tmp_path):
  sizes = {'seeds', 'num_pairs', 'num_features', 'num_validation'}
  used = {*sizes, 'cache_dir', 'batch', 'rounds', 'flip_rate'}
  config = Config(
    output_dir=str(tmp_path),
    part=('queries',),
    **{flag: TINY[flag] for flag in used},
  )
  first = label_budget.run(config)
  ledger = tmp_path / 'cells.jsonl'
  lines = ledger.read_text(encoding='utf-8').splitlines(keepends=True)
  ledger.write_text(lines[0] + lines[1][:40], encoding='utf-8')
  (tmp_path / 'finished.json').unlink()
  assert label_budget.run(config) == first


@pytest.mark.parametrize(
  ('flags', 'complaint'),
  [
    ({'task': 'ballot', 'num_features': 3}, 'num_features'),
    ({'budget': (5000,)}, 'num_pairs'),
    ({'rounds': 200}, 'num_pairs'),
    ({'part': ('money',), 'noise': ('symmetric',)}, 'noise'),
    ({'part': ('price',), 'rounds': 3}, 'rounds'),
    ({'preference': 'argmax', 'margin_scale': 3.0}, 'margin_scale'),
    ({'num_folds': 3}, 'num_folds'),
    ({'data': 'somewhere', 'cost_clean': 2.0}, 'cost_clean'),
    ({'data': 'somewhere', 'part': ('money',)}, 'experts'),
  ],
)
def test_what_cannot_be_done_is_refused(tmp_path, flags, complaint):
  with pytest.raises(ValueError, match=complaint):
    label_budget.run(Config(output_dir=str(tmp_path / 'run'), **flags))
  assert not (tmp_path / 'run').exists()

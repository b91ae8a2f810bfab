"""The rule end to end, small; and what it refuses."""

import json

import numpy as np
import pytest

from alignment.protocols.noise_scenarios import ARMS
from experiments import recommend_loss
from experiments.recommend_loss import Config

TINY = {
  'cache_dir': '',
  'noise': ('symmetric', 'per_annotator'),
  'flip_rate': (0.0, 0.3),
  'preference': ('argmax',),
  'num_pairs': (64,),
  'num_features': 4,
  'visible': (1.0,),
  'seeds': 2,
}


def test_scenarios_are_played_judged_and_kept(tmp_path, capsys):
  config = Config(output_dir=str(tmp_path), **TINY)
  result = recommend_loss.run(config)
  lines = (tmp_path / 'scenarios.jsonl').read_text(encoding='utf-8')
  rows = [json.loads(line)['row'] for line in lines.splitlines()]
  assert len(rows) == 2 * 2 * 2
  odd = np.array([r['accuracy'] for r in rows if r['seed'] == 1])
  plain = odd[:, list(ARMS).index('dpo')]
  assert result['plain_regret'][0] == pytest.approx(
    np.mean(odd.max(axis=1) - plain)
  )
  assert result['gain'][3] == 4
  # An estimate is near its rate, and its band is what the rule sees.
  assert all(abs(r['estimate'] - r['flip_rate']) < 0.15 for r in rows)
  for row in rows:
    differs = row['noise'] != 'symmetric'
    assert ('rates differ' in row['observed']) == differs
    assert ('ε̂ < 0.1' in row['observed']) == (row['estimate'] < 0.1)
  report = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert result['reason'] in report and 'always dpo' in report
  assert (tmp_path / 'figures' / 'recommendation.png').exists()
  capsys.readouterr()
  assert recommend_loss.run(config) == json.loads(json.dumps(result))
  assert 'nothing was repeated' in capsys.readouterr().out


def test_an_odd_number_of_seeds_is_refused(tmp_path):
  with pytest.raises(ValueError, match='even'):
    recommend_loss.run(Config(output_dir=str(tmp_path / 'run'), seeds=3))
  assert not (tmp_path / 'run').exists()

"""Bad flags of the main job: refused before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from absl import flags

from experiments import common, noisy_dpo
from tests.commands import ROOT

MAIN = {
  'loss': (['--loss=dpo,nope'], '--loss=nope: must be one of'),
  'no_loss': (['--loss='], '--loss=: name one'),
  'loss_twice': (['--loss=dpo,dpo'], '--loss=dpo,dpo: names the same twice'),
  'soft_label': (['--loss=soft_label'], '--loss=soft_label: learns from how'),
  'aggregate': (['--aggregate=best'], '--aggregate=best: must be one of'),
  'noise': (['--noise=loud'], '--noise=loud: must be one of'),
  'annotators': (['--noise=per_annotator'], 'reads the annotator_id of pairs'),
  'margins': (
    ['--noise=gaussian', '--data=pairs.jsonl'],
    '--noise=gaussian: reads the margin of pairs',
  ),
  'trigger': (['--noise=poisoned'], 'reads the has_trigger of pairs'),
  'judge': (
    ['--noise=ai_judge', '--data=pairs.jsonl'],
    '--noise=ai_judge: reads the judge_margin of pairs',
  ),
  'noise_hyper': (
    ['--noise_hyper=tau=1'],
    "--noise_hyper=tau=1: --noise=exact_count does not use 'tau'; it takes",
  ),
  'noise_hyper_rate': (
    ['--noise=gaussian', '--noise_hyper=scale=1'],
    '--noise_hyper=scale=1: stands in the place of --flip_rate',
  ),
  'noise_hyper_range': (
    ['--noise=teacher', '--noise_hyper=tie=-1'],
    '--noise_hyper=tie=-1: tie=-1.0 must be >= 0',
  ),
  'noise_hyper_word': (
    ['--noise=teacher', '--noise_hyper=tie'],
    '--noise_hyper=tie: want name=number',
  ),
  'features': (
    [
      '--noise=feature_logistic',
      '--noise_hyper=weights=1:2',
      '--data=pairs.jsonl',
    ],
    'weights=(1.0, 2.0) must be one number or 1',
  ),
  'soft_label_without_ties': (
    ['--loss=soft_label', '--noise=teacher', '--noise_hyper=skip=0.1'],
    '--loss=soft_label: learns from how',
  ),
  'estimator': (
    ['--estimate_flip_rate=guess'],
    '--estimate_flip_rate=guess: must be one of anchors, agreement',
  ),
  'estimator_unused': (
    ['--loss=dpo,ipo', '--estimate_flip_rate=agreement'],
    '--estimate_flip_rate=agreement: none of --loss=dpo,ipo assumes',
  ),
  'estimator_and_smoothing': (
    ['--estimate_flip_rate=agreement', '--label_smoothing=0.1'],
    '--estimate_flip_rate=agreement: not used where --label_smoothing',
  ),
  'estimator_and_misassumed': (
    ['--estimate_flip_rate=agreement', '--misassumed=0.1'],
    '--misassumed=0.1: not used where --estimate_flip_rate',
  ),
  'estimator_refuses': (
    ['--estimate_flip_rate=anchors'],
    '--estimate_flip_rate=anchors: no row has a known true class; checking',
  ),
  'estimator_of_single_labels': (
    ['--estimate_flip_rate=agreement', '--relabelled=0'],
    '--estimate_flip_rate=agreement: no row has two votes; a second',
  ),
  'relabelled': (
    ['--relabelled=0.1'],
    '--relabelled=0.1: only used where --estimate_flip_rate names',
  ),
  'relabelled_range': (
    ['--estimate_flip_rate=agreement', '--relabelled=1.1'],
    '--relabelled=1.1: must be within [0, 1]',
  ),
  'relabels': (
    ['--estimate_flip_rate=anchors', '--anchors=0.1', '--relabels=2'],
    '--relabels=2: not used where no pair is --relabelled',
  ),
  'relabelled_data': (
    [
      '--data=pairs.jsonl',
      '--estimate_flip_rate=agreement',
      '--relabelled=0.1',
    ],
    '--relabelled=0.1: nobody can be asked again on --data',
  ),
  'smoothing_half': (
    ['--label_smoothing=0.5'],
    '--label_smoothing=0.5: must be within [0, 0.5)',
  ),
  'smoothing_unused': (
    ['--loss=dpo', '--label_smoothing=0.1'],
    '--label_smoothing=0.1: none of --loss=dpo assumes a flip rate',
  ),
  'smoothing_and_misassumed': (
    ['--label_smoothing=0.1', '--misassumed=0.2'],
    '--misassumed=0.2: not used where --label_smoothing',
  ),
  'exo': (
    ['--loss=exo', '--flip_rate=0', '--misassumed=0'],
    'exo@0: label_smoothing = 0 is outside (0, 0.5)',
  ),
  'flip_rate': (['--flip_rate=0.2,0.5'], '--flip_rate=0.2,0.5: must be within'),
  'flip_rate_low': (['--flip_rate=-0.1'], '--flip_rate=-0.1: must be within'),
  'flip_rate_word': (['--flip_rate=high'], 'want a comma list of float'),
  'no_flip_rate': (['--flip_rate='], '--flip_rate=: name one'),
  'misassumed': (['--misassumed=-0.1'], '--misassumed=-0.1: must be within'),
  'beta': (['--beta=0'], '--beta=0: must be within (0, inf)'),
  'beta_nan': (['--beta=nan'], '--beta=nan: must be within'),
  'hyper': (
    ['--loss=dpo', '--hyper=q=.3'],
    "--hyper=q=.3: --loss=dpo does not use 'q'",
  ),
  'hyper_range': (['--loss=gce', '--hyper=q=3'], 'gce: q = 3 is outside'),
  'hyper_beta': (['--hyper=beta=.3'], 'give --beta=.3'),
  'hyper_word': (['--loss=gce', '--hyper=q:3'], 'want name=number'),
  'steps': (['--steps=0'], '--steps=0: must be within [1, inf)'),
  'stops': (
    ['--steps=4', '--num_stops=5'],
    '--num_stops=5: must be at most --steps=4',
  ),
  'no_stops': (['--num_stops=0'], '--num_stops=0: must be within [1, inf)'),
  'pairs': (
    ['--num_pairs=20', '--batch_size=32'],
    '--num_pairs=20: must be at least --batch_size=32',
  ),
  'batch_size': (
    ['--batch_size=2000'],
    '--num_pairs=1000: must be at least --batch_size=2000',
  ),
  'validation': (
    ['--num_validation=0'],
    '--num_validation=0: must be at least',
  ),
  'sft_steps': (['--sft_steps=0'], '--sft_steps=0: must be at least 1'),
  'seeds': (['--seeds=0'], '--seeds=0: must be within [1, inf)'),
  'threads': (['--threads=-1'], '--threads=-1: must be within [0, inf)'),
  'learning_rate': (
    ['--learning_rate=1e-3,0'],
    '--learning_rate=0.001,0: must be within (0, inf)',
  ),
  'width': (['--width=30'], 'width=30: must be a multiple of 2 · num_heads'),
  'hashed': (['--model=hashed'], '--model=hashed: reads text, give --data'),
  'lengths': (
    ['--max_prompt_length=9'],
    '--max_prompt_length=9: not used by the embedded task',
  ),
  'task_of_data': (
    ['--data=pairs.jsonl', '--preference=bt'],
    '--preference=bt: not used by a transformer on --data',
  ),
  'words': (
    ['--data=pairs.jsonl', '--model=hashed', '--width=8'],
    '--width=8: not used by hashed words',
  ),
  'words_lora': (
    ['--data=pairs.jsonl', '--model=hashed', '--lora_rank=2'],
    '--lora_rank=2: not used by hashed words',
  ),
  'words_remat': (
    ['--data=pairs.jsonl', '--model=hashed', '--noremat'],
    '--remat=False: not used by hashed words',
  ),
  'lora_alpha': (['--lora_alpha=4'], '--lora_alpha=4.0: only used where'),
  'folder': (
    ['--data=pairs.jsonl', '--model=absent'],
    '--model=absent: is neither a model that is known here nor a folder',
  ),
  'folder_of_something': (
    ['--data=pairs.jsonl', '--model=.'],
    '--model=.: has no config.json; make a Hugging Face folder of it',
  ),
  'folder_without_data': (['--model=other'], '--model=other: reads text'),
  'folder_width': (
    ['--data=pairs.jsonl', '--model=other', '--width=8'],
    '--width=8: not used by a model folder',
  ),
  'no_data': (['--data=absent.jsonl'], 'absent.jsonl'),
  'mesh': (['--mesh=data=64'], 'data=64'),
  'mesh_word': (['--mesh=rows=2'], 'rows'),
  'other_run': (
    ['--output_dir=other', '--beta=0.5'],
    'beta: 7 there, 0.5 now',
  ),
  'unwritable': (['--output_dir=pairs.jsonl/run'], 'pairs.jsonl'),
  'flag': (['--flips=0.2'], 'flips'),
}


@pytest.fixture
def parse():
  """Flags -> config; the flags are forgotten afterwards."""
  before = set(flags.FLAGS)

  def parsed(*given):
    common.define_flags(noisy_dpo.Config)
    flags.FLAGS(['noisy_dpo', *given])
    return common.from_flags(noisy_dpo.Config)

  yield parsed
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The working directory, with a file of pairs and the run of others."""
  monkeypatch.chdir(tmp_path)
  row = {'prompt': 'Say yes. ', 'chosen': 'yes', 'rejected': 'no'}
  (tmp_path / 'pairs.jsonl').write_text(json.dumps(row) + '\n')
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'config.json').write_text(
    json.dumps({'version': 1, 'identity': {'beta': 7}, 'provenance': []})
  )
  return tmp_path


@pytest.mark.parametrize('name', MAIN)
def test_the_main_job_refuses(parse, folder, name):
  given, complaint = MAIN[name]
  with pytest.raises((ValueError, OSError, flags.Error)) as refused:
    noisy_dpo.run(parse('--output_dir=mine', *given))
  assert complaint in ' '.join(str(refused.value).split())
  # Nothing is left that a corrected command would collide with.
  assert not (folder / 'mine').exists()


def test_a_refusal_is_one_line_and_status_2(folder):
  call = subprocess.run(
    [sys.executable, '-m', 'experiments.noisy_dpo', '--label_smoothing=0.5'],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert call.returncode == 2 and not call.stdout
  assert call.stderr == (
    'error: --label_smoothing=0.5: must be within [0, 0.5) (--debug shows '
    'where)\n'
  )

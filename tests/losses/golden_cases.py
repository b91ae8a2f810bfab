"""Golden cases of other implementations: loading, and which are left out."""

import json
import pathlib

import numpy as np

FOLDER = (
  pathlib.Path(__file__).resolve().parents[2].parent / 'shared' / 'golden'
)

EXCLUDED = {
  'dpo/sigmoid(label_smoothing ignored)': 'a defect: the flip rate is dropped '
  'without a word and plain DPO is trained',
  'dpo/sigmoid/f=alpha_divergence/alpha=0.5/f64(expected KeyError)': 'records '
  'an exception of the other side',
  'dpo028/exo_pair/ls=0.0': 'the other side silently replaces 0 by 1e-3; here '
  'a flip rate of 0, where EXO is infinite, is refused',
  'tpo/': 'needs a third completion',
  'sft/dft': 'not a preference loss',
  'grpo/': 'policy gradient',
  'gmpo/': 'policy gradient',
  'rloo/': 'policy gradient',
  'a2po/': 'policy gradient',
  'gkd/': 'distillation',
  'sdpo/': 'distillation',
  'nash_md/': 'online game',
  'xpo/': 'online game',
  'sympo/ramp_loss': 'not symmetric under this name; the symmetric ramp is '
  'compared in sympo/symmetric_ramp_loss',
  "sympo/SymPOTrainer/{'beta': 0.5, 'loss_type': 'ramp'": 'trains the ramp '
  'that is not symmetric',
  'sympo/exp_loss': 'not a link of this library',
  'openai_w2s/': 'weak-to-strong classification',
  'eleuther_w2s/': 'weak-to-strong classification',
  'adaptconf/': 'weak-to-strong classification',
  'wspo/': 'weak-to-strong generation',
  'crowdkit/': 'annotator models; compared in tests/peers/crowd_kit_test.py',
}


def _load(name):
  path = FOLDER / name
  return json.loads(path.read_text()) if path.is_file() else {'cases': []}


TRL = _load('golden_trl.json')
NOISE = _load('golden_noise.json')
CASES = {case['id']: case for case in TRL['cases'] + NOISE['cases']}


def is_excluded(case_id):
  return any(case_id.startswith(prefix) for prefix in EXCLUDED)


def _cases(prefix):
  return [
    name for name in CASES if name.startswith(prefix) and not is_excluded(name)
  ]


COMPARED = {
  prefix: _cases(prefix)
  for prefix in (
    'dpo/',
    'dpo028/',
    'cpo/',
    'orpo/',
    'reward/',
    'sft/nll',
    'sympo/',
    'drdpo/',
    'sce/',
    'truncated_gce/',
    'sppo/',
    'kto/',
    'bco/',
    'elr/',
    'coteaching/',
    'cleanlab/',
    'dividemix/',
  )
}


def preference_inputs():
  """The six pairs that most cases use."""
  inputs = TRL['inputs']['pref_f64']
  return {key: np.asarray(value) for key, value in inputs.items()}


def close(actual, expected, float32=False):
  expected = np.asarray(expected, np.float64)
  tolerance = (
    {'rtol': 2e-6, 'atol': 2e-6} if float32 else {'rtol': 1e-9, 'atol': 1e-12}
  )
  np.testing.assert_allclose(actual, expected, **tolerance)

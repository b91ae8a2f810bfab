"""How much memory a process needs to load a model, and to refuse one."""

import json
import os
import subprocess
import sys

import pytest

from tests.models.huggingface import folders

MEASURE = """
import json, sys
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.load import load_model

def bytes_of(name):
  for line in open('/proc/self/status'):
    if line.startswith(name):
      return 1024 * int(line.split()[1])

options, warm, *folders = json.loads(sys.argv[1])
load_model(warm, **options)  # what the libraries themselves take
before, refused = bytes_of('VmRSS'), 0
for folder in folders:
  try:
    kept = load_model(folder, **options)
  except ModelError:
    refused += 1
print(json.dumps([bytes_of('VmHWM') - before, refused]))
"""

pytestmark = pytest.mark.skipif(
  not sys.platform.startswith('linux'), reason='reads /proc'
)


def growth(warm, *folders, **options) -> list[int]:
  """Peak bytes above what was held before, and how many were refused."""
  arguments = [options, *map(str, (warm, *folders))]
  done = subprocess.run(
    [sys.executable, '-c', MEASURE, json.dumps(arguments)],
    capture_output=True,
    text=True,
    timeout=120,
    env=os.environ | {'XLA_FLAGS': ''},  # one device
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.fixture(scope='module')
def large(tmp_path_factory):
  """130 million bytes in bfloat16, 260 in float32; and a small model."""
  root = tmp_path_factory.mktemp('models')
  config = folders.small_config(
    vocab_size=16_000,
    width=768,
    depth=8,
    num_heads=12,
    num_kv_heads=4,
    head_dim=64,
    mlp_width=2048,
    tied_head=True,
  )
  folders.write_folder(root / 'float32', config)
  folders.write_folder(root / 'bfloat16', config, dtype='bfloat16')
  folders.write_folder(root / 'shards', config, max_shard_size=80 * 10**6)
  folders.write_folder(root / 'small')
  return root


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('float32', {}),
    ('float32', {'scan_layers': True}),
    ('bfloat16', {'dtype': 'bfloat16'}),
  ],
)
def test_loading_takes_little_more_than_the_parameters(large, name, options):
  """On this device the parameters themselves are in the host's memory."""
  size = (large / name / 'model.safetensors').stat().st_size
  assert size > 120 * 10**6
  peak, refused = growth(large / 'small', large / name, **options)
  assert refused == 0
  assert 0.9 * size < peak <= 1.3 * size


@pytest.mark.slow
@pytest.mark.parametrize('options', [{}, {'scan_layers': True}])
def test_beside_the_parameters_there_is_less_than_a_shard(large, options):
  sizes = [p.stat().st_size for p in (large / 'shards').glob('*.safetensors')]
  assert len(sizes) > 2
  peak, _ = growth(large / 'small', large / 'shards', **options)
  assert peak - sum(sizes) <= 1.3 * max(sizes)


@pytest.mark.slow
def test_absurd_sizes_take_no_memory(large, tmp_path):
  absurd = [
    {'vocab_size': 2**24, 'hidden_size': 2**24 - 2**4},
    {'num_hidden_layers': 4096},
    {'num_hidden_layers': 2**62},
    {'num_attention_heads': 2**24, 'head_dim': 2**24},
    {'max_position_embeddings': 2**62},
  ]
  for number, changes in enumerate(absurd):
    folders.write_folder(tmp_path / str(number))
    folders.edit_json(tmp_path / str(number), changes)
  peak, refused = growth(large / 'small', *tmp_path.iterdir())
  assert refused == len(absurd)
  assert peak < 10 * 10**6

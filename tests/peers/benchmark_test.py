"""The benchmark beside other libraries, at the smallest size there is."""

import math

import pytest

from experiments import benchmark
from experiments.benchmarks import workload
from experiments.benchmarks.processes import Worker
from experiments.benchmarks.workload import Work
from tests.peers.installed import peer

pytestmark = pytest.mark.peers


def test_dpo_beside_trl(tmp_path):
  peer('trl')
  config = benchmark.Config(
    output_dir=str(tmp_path / 'run'),
    case=('dpo',),
    peer=('trl',),
    model_size='tiny',
    sequence_length=16,
    batch_size=3,
    steps=2,
    matmul_dtype=('float32',),
    reference=('in_step',),
    threads=1,
    clock='cpu',
  )
  result = benchmark.run(config)['dpo']
  names = [row['name'] for row in result['figures']]
  assert names == ['trl f32 / ours f32', 'memory of ours f32 / trl f32']
  ours, trl = result['contenders']
  for row in (ours, trl):
    assert 0 < row['wall'][0] <= row['wall'][1] <= row['wall'][2]
    assert row['tokens_per_second'] > 0 and 0 < row['matmul_share'] < 1
    assert 2**27 < row['peak_rss'] < 2**34
  report = (tmp_path / 'run' / 'report.md').read_text()
  assert 'trl 1.' in report and 'jax' in report


@pytest.mark.parametrize(
  ('side', 'case', 'lora'),
  [('trl', 'dpo', 'low_rank'), ('transformers', 'sft', '')],
)
def test_first_losses(tmp_path, side, case, lora):
  """log 2 where the reference is the policy; log V of an untrained model."""
  peer(side)
  texts = workload.draw(
    num_batches=2, batch_size=3, sequence_length=16, vocab_size=64
  )
  workload.save(tmp_path / 'texts.npz', texts)
  work = Work(side, case, 'tiny', str(tmp_path / 'texts.npz'), lora=lora)
  expected = {'dpo': math.log(2), 'sft': math.log(64)}[case]
  with Worker(side, work, tmp_path / 'log') as process:
    first = process.started['first']['value']
    assert first == pytest.approx(expected, abs=1e-5 if case == 'dpo' else 0.1)
    assert process.ask(step=0)['value'] < first

"""Our side of the benchmark computes what it is said to compute."""

import dataclasses
import math

import pytest

from experiments.benchmarks import ours, workload
from experiments.benchmarks.workload import Work


@pytest.fixture
def work(tmp_path):
  texts = workload.draw(
    num_batches=2, batch_size=3, sequence_length=16, vocab_size=64
  )
  workload.save(tmp_path / 'texts.npz', texts)
  return Work('ours', 'forward', 'tiny', str(tmp_path / 'texts.npz'))


def test_layouts_score_the_same_texts(work):
  packed = ours.start(work).step
  padded = ours.start(dataclasses.replace(work, packing='padded')).step
  for index in (0, 1):
    # Sums of about 40 log-probabilities near −4 nats in float32.
    assert padded(index) == pytest.approx(packed(index), rel=1e-5)
  texts = workload.load(work.texts)
  completions = texts.lengths[0, :, 1:].sum()
  # An untrained model: about log V nats for every token of a completion.
  assert packed(0) == pytest.approx(-completions * math.log(64), rel=0.05)
  assert packed(2) == packed(0) != packed(1)


@pytest.mark.parametrize(
  'lora', ['', pytest.param('low_rank', marks=pytest.mark.slow)]
)
def test_dpo_starts_at_log_2_and_moves(work, lora):
  work = dataclasses.replace(work, case='dpo', lora=lora)
  side = ours.start(work)
  # Policy and reference are the same weights.
  assert side.step(0) == pytest.approx(math.log(2), abs=1e-6)
  later = [side.step(0) for _ in range(3)]
  assert sorted(later, reverse=True) == later and later[-1] < math.log(2)
  assert side.device_memory() is None and side.device == 'cpu'

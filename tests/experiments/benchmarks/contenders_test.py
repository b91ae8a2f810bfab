"""Which contenders there are, which are compared, and what is asked."""

import dataclasses

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import models
from experiments.benchmarks.contenders import contenders, figures, floors
from experiments.report import timing

CONFIG = benchmark.Config(peer=('trl', 'tunix'), threads=2)


def changed(**changes):
  return dataclasses.replace(CONFIG, **changes)


def test_contenders_of_dpo():
  works = contenders('dpo', CONFIG, 'texts')
  assert list(works) == [
    'ours f32',
    'ours bf16',
    'ours f32, precomputed',
    'ours bf16, precomputed',
    'trl f32',
    'trl bf16',
    'trl f32, precomputed',
    'trl bf16, precomputed',
    'tunix f32',
  ]
  assert {work.texts for work in works.values()} == {'texts'}
  assert works['trl bf16'].dtype == 'bfloat16'
  assert works['trl f32, precomputed'].reference == 'precomputed'


def test_only_like_is_compared_with_like():
  config = changed(lora=('merged', 'low_rank'), reference=('in_step',))
  works = contenders('dpo', config, '')
  compared = [
    (figure.of, figure.over)
    for figure in figures(works, {})
    if not figure.of.startswith('ours')
  ]
  assert compared == [
    ('trl f32', 'ours f32'),
    ('trl bf16', 'ours bf16'),
    ('trl f32, LoRA', 'ours f32, LoRA merged'),
    ('trl f32, LoRA', 'ours f32, LoRA low-rank'),
    ('trl bf16, LoRA', 'ours bf16, LoRA merged'),
    ('trl bf16, LoRA', 'ours bf16, LoRA low-rank'),
    ('tunix f32', 'ours f32'),
  ]


def test_layouts_are_named_where_there_are_several():
  works = contenders('sft', changed(packing=('packed', 'padded')), '')
  assert list(works)[:2] == ['ours f32, packed', 'ours bf16, packed']
  assert {work.packing for work in works.values()} == {'packed', 'padded'}


@pytest.mark.parametrize(
  ('changes', 'name', 'asked'),
  [
    ({}, 'trl f32', 1.8),
    ({}, 'trl bf16', 2.5),
    ({}, 'tunix f32', 2.2),
    ({}, 'trl f32, precomputed', 2.0),
    ({'sequence_length': 512}, 'trl f32', 1.5),
    ({'model_size': 'large'}, 'trl bf16', 1.5),
    ({'sequence_length': 512}, 'tunix f32', 0),
    ({'sequence_length': 64}, 'trl f32', 0),
    ({'batch_size': 4}, 'trl f32', 0),
  ],
)
def test_floors(changes, name, asked):
  config = changed(**changes)
  assert floors(contenders('dpo', config, ''), config).get(name, 0) == asked


def test_memory_is_compared_with_that_of_trl():
  config = changed(reference=('in_step',), matmul_dtype=('float32',))
  works = contenders('dpo', config, '')
  held = {'ours f32': 3.0, 'trl f32': 4.0, 'tunix f32': 1.0}
  rows = [
    {
      'name': name,
      'side': work.side,
      'peak_rss': held[name],
      'device_memory': None,
    }
    for name, work in works.items()
  ]
  (row,) = models._memory_figures(works, rows)
  assert row['value'] == (0.75, 0.75, 0.75) and row['kept']
  assert row['asked'] == '≤ 0.85'
  on_device = [row | {'device_memory': 9 - row['peak_rss']} for row in rows]
  (row,) = models._memory_figures(works, on_device)
  assert row['value'][1] == pytest.approx(6 / 5) and row['kept'] is None


def test_paired_ratios_are_of_the_same_step():
  """Both slow down together; only one step was slow for theirs alone."""
  works = contenders(
    'dpo',
    changed(reference=('in_step',), matmul_dtype=('float32',), peer=('trl',)),
    '',
  )
  wall = {
    'ours f32': np.array([1.0, 10.0, 2.0]),
    'trl f32': np.array([2.0, 20.0, 8.0]),
  }
  measured = timing.Measured(wall, wall, 0.0)
  case = timing.Case({}, figures(works, {'trl f32': 1.8}))
  (row,) = timing.figures(case, measured, 'wall', allow_busy=False)
  assert row['value'] == (2, 2, 4) and row['kept']


def test_interpreters_of_peers(tmp_path):
  path = tmp_path / 'python'
  path.write_text('')
  found = models.pythons(changed(peer_python=(f'tunix={path}',)))
  assert found == {'tunix': str(path)}
  with pytest.raises(ValueError, match='peer_python=x=y: want name=path'):
    models.pythons(changed(peer_python=('x=y',)))
  with pytest.raises(ValueError, match='is no file'):
    models.pythons(changed(peer_python=(f'trl={tmp_path}',)))


def test_ways_of_attention_are_named_and_decoding_has_none():
  config = changed(attention=('dense', 'blocks'), remat=True)
  names = list(contenders('forward', config, ''))
  assert names[::2] == [
    'ours f32, dense attention',
    'ours f32, blocks attention',
  ]
  decoding = contenders('decode', config, '')
  assert list(decoding) == ['ours f32', 'ours bf16']
  assert not any(work.remat for work in decoding.values())
  assert all(work.remat for work in contenders('sft', config, '').values())

"""The grammar of a sweep, and the folders of its runs."""

import pytest

from launch.sweep import grid


def test_the_grid_is_every_combination():
  points = grid('loss=dpo,rdpo | ipo; --flip_rate=0.2|0.4;seeds=5;')
  assert [point.flags for point in points] == [
    {'loss': loss, 'flip_rate': rate, 'seeds': '5'}
    for loss in ('dpo,rdpo', 'ipo')
    for rate in ('0.2', '0.4')
  ]
  assert points[1].name == 'loss=dpo,rdpo_flip_rate=0.4_seeds=5'


def test_no_sweep_is_one_run():
  (point,) = grid(' ')
  assert (point.name, point.flags) == ('run', {})


def test_values_may_hold_an_equals_sign_or_nothing():
  assert grid('mesh=data=2,fsdp=2')[0].flags == {'mesh': 'data=2,fsdp=2'}
  assert grid('stops=')[0].flags == {'stops': ''}


def test_folders_are_plain_and_distinct():
  names = {
    point.name
    for point in grid(f'data=a/b.jsonl|a-b.jsonl|a b.jsonl|{"x" * 300}')
  }
  assert len(names) == 4
  assert 'data=a-b.jsonl' in names
  assert all('/' not in name and len(name) < 140 for name in names)
  assert {p.name for p in grid('data=a/b|c')} < {
    p.name for p in grid('data=a/b|c|d')
  }


@pytest.mark.parametrize(
  ('sweep', 'complaint'),
  [
    ('loss', "'loss' is not flag=value"),
    ('a b=1', 'is not flag=value'),
    ('loss=dpo;loss=ipo', 'loss is given twice'),
    ('output_dir=x', 'output_dir is given twice'),
    ('loss=dpo|ipo|dpo', 'repeats a value'),
  ],
)
def test_bad_sweeps_are_refused(sweep, complaint):
  with pytest.raises(ValueError, match=complaint):
    grid(sweep)

"""Timing side by side: turns, figures, busy machines, flags."""

import json
import time

import numpy as np
import pytest

from experiments import benchmark
from experiments.report import timing
from experiments.report.timing import Case, Contender, Figure, Measured

SMALL = {'case': ('dawid_skene',), 'size': 0.002, 'rounds': 2, 'clock': 'cpu'}


def test_contenders_take_turns():
  calls, rounds = [], []
  names = ('a', 'b', 'c')
  contenders = {
    name: Contender(lambda name=name: calls.append(name)) for name in names
  }
  timing.measure(Case(contenders, ()), 3, lambda: rounds.append(None))
  assert len(rounds) == 4
  turns = [''.join(calls[i : i + 3]) for i in range(0, 12, 3)]
  assert turns == ['cab', 'abc', 'bca', 'cab']


def test_times_are_times():
  case = Case({'sleep': Contender(lambda: time.sleep(0.05))}, ())
  found = timing.measure(case, 2)
  assert np.all((found.wall['sleep'] >= 0.05) & (found.wall['sleep'] < 1))
  assert np.all(found.cpu['sleep'] < 0.04)


@pytest.fixture
def case():
  return Case(
    {
      'ours': Contender(lambda: None),
      'theirs': Contender(lambda: None, 5, 'x'),
    },
    (
      Figure('theirs', 'ours', times=10, least=25),
      Figure('theirs', 'ours', most=2),
      Figure('ours', most=1.5),
    ),
  )


def measured(others):
  wall = {'ours': np.array([1, 2, 1.0]), 'theirs': np.array([2, 6, 4.0])}
  cpu = {'ours': np.array([1, 1, 1.0]), 'theirs': np.array([2, 2, 2.0])}
  return Measured(wall, cpu, others)


def test_figures_are_of_rounds(case):
  ten, one, seconds = timing.figures(
    case, measured(0.0), 'wall', allow_busy=False
  )
  assert ten['value'] == (20, 30, 40) and ten['kept']
  assert one['value'] == (2, 3, 4) and one['kept'] is False
  assert seconds['value'] == (1, 1, 2) and seconds['kept']
  assert ten['name'] == '10 × theirs / ours' and ten['asked'] == '≥ 25'
  assert not ten['remark']


def test_a_busy_machine_gives_no_wall_figures(case):
  busy = measured(0.4)
  for row in timing.figures(case, busy, 'wall', allow_busy=False):
    assert row['value'] is None and row['kept'] is None
    assert '40%' in row['remark']
  allowed = timing.figures(case, busy, 'wall', allow_busy=True)
  assert allowed[0]['value'] == (20, 30, 40) and '40%' in allowed[0]['remark']
  cpu = timing.figures(case, busy, 'cpu', allow_busy=False)
  assert cpu[0]['value'] == (20, 20, 20) and not cpu[0]['remark']
  assert cpu[0]['kept'] is False


def test_others_at_work_are_seen(monkeypatch):
  """4 s of work in 2 s, 1 s of it ours, on 3 cores: others have half."""
  monkeypatch.setattr(timing.os, 'cpu_count', lambda: 3)
  assert timing._others((0.0, 10.0, 5.0), (2.0, 14.0, 6.0)) == 0.5
  assert timing._others((0.0, 10.0, 5.0), (2.0, 10.0, 6.0)) == 0.0
  assert timing._others((0.0, 10.0, 5.0), (2.0, 14.0, 6.0), 1.5) == 0.25


def test_work_of_contenders_elsewhere_is_not_that_of_others(monkeypatch):
  """Every second the cores work 1.5 s, of which ours is one in a process."""
  clock = {'now': 0.0}
  monkeypatch.setattr(timing.os, 'cpu_count', lambda: 2)
  monkeypatch.setattr(
    timing, '_usage', lambda: (clock['now'], 1.5 * clock['now'], 0.0)
  )

  def call():
    clock['now'] += 0.4
    return timing.Seconds(wall=0.3, cpu=0.4)

  case = Case({'theirs': Contender(call), 'ours': Contender(call)}, ())
  found = timing.measure(case, 6)
  assert found.others == pytest.approx(0.5 / 2)
  np.testing.assert_array_equal(found.wall['theirs'], np.full(6, 0.3))
  np.testing.assert_array_equal(found.cpu['ours'], np.full(6, 0.4))


def test_the_busiest_second_counts(monkeypatch):
  """Half a second of work of others among three seconds without."""
  clock, turn = {'now': 0.0, 'work': 0.0}, iter(range(100))
  monkeypatch.setattr(timing.os, 'cpu_count', lambda: 1)
  monkeypatch.setattr(
    timing, '_usage', lambda: (clock['now'], clock['work'], 0.0)
  )

  def call():
    clock['now'] += 0.5
    clock['work'] += 0.5 if next(turn) == 5 else 0.0

  found = timing.measure(Case({'only': Contender(call)}, ()), 6)
  assert found.others == pytest.approx(0.5)


def test_a_run_reports_and_is_not_repeated(tmp_path, capsys):
  config = benchmark.Config(output_dir=str(tmp_path / 'run'), **SMALL)
  result = benchmark.run(config)
  (row,) = result['dawid_skene']['figures']
  assert row['name'] == '200 bootstraps / one fit' and row['value'][0] > 0
  report = (tmp_path / 'run' / 'report.md').read_text()
  assert '2,000 votes on 400 tasks' in report and 'votes/s' in report
  assert report.split('\n')[0] in capsys.readouterr().out
  finished = json.loads((tmp_path / 'run' / 'finished.json').read_text())
  assert finished['result'] == json.loads(json.dumps(result))
  assert benchmark.run(config) == finished['result']
  assert 'nothing was repeated' in capsys.readouterr().out


def test_a_busy_run_is_not_finished(tmp_path, monkeypatch):
  monkeypatch.setattr(timing, '_others', lambda *_: 0.9)
  config = benchmark.Config(
    output_dir=str(tmp_path / 'run'), **{**SMALL, 'clock': 'wall'}
  )
  assert benchmark.run(config)['dawid_skene']['figures'][0]['value'] is None
  assert not (tmp_path / 'run' / 'finished.json').exists()
  assert '90%' in (tmp_path / 'run' / 'report.md').read_text()


def test_refusals(monkeypatch):
  with pytest.raises(ValueError, match='--case=nothing: none of'):
    benchmark.run(benchmark.Config(case=('nothing',)))
  monkeypatch.setitem(benchmark.CASES, 'alone', lambda size: Case({}, ()))
  with pytest.raises(ValueError, match='--peer=crowdkit: not used by alone'):
    benchmark.run(benchmark.Config(case=('alone',), peer=('crowdkit',)))


@pytest.mark.parametrize(
  ('case', 'given', 'complaint'),
  [
    ('audit', {'threads': 2}, '--threads: used by dpo, .* not by audit'),
    ('sft', {'reference': ('in_step',)}, '--reference: used by dpo, not'),
    ('decode', {'packing': ('padded',)}, '--packing: .* not by decode'),
    ('start_up', {'steps': 3}, '--steps: .* not by start_up'),
    ('dpo', {'peer': ('transformers',)}, '--peer=transformers: not used'),
  ],
)
def test_flags_without_effect_are_refused(tmp_path, case, given, complaint):
  config = benchmark.Config(output_dir=str(tmp_path), case=(case,), **given)
  with pytest.raises(ValueError, match=complaint):
    benchmark.run(config)
  assert not list(tmp_path.iterdir())

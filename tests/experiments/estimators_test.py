"""The study of estimators: its table, resuming, refusals."""

import pytest

from experiments import estimators
from experiments.estimators import Config, run


def _config(tmp_path, **changes):
  settings = {
    'output_dir': str(tmp_path),
    'estimators': ('anchors', 'forward'),
    'flip_rate': (0.2,),
    'sizes': (120,),
    'trials': 40,
    'em_trials': 10,
  }
  return Config(**{**settings, **changes})


def test_report_names_refusals_failures_and_assumptions(tmp_path, capsys):
  result = run(_config(tmp_path))
  by_world = {(c['world'], c['truth']): c for c in result['cells']}
  assert by_world['no law of clean labels', 0.2]['refused'] == 1
  assert by_world['anchors', 0.2]['trials'] == 40
  assert by_world['stated margins', 0.2]['trials'] == 10
  # Margins are smaller than stated, nothing is flipped: it reports flips.
  assert by_world['FAILS: margins are × .745', 0.0]['bias'] > 0.03
  text = (tmp_path / 'report.md').read_text(encoding='utf-8')
  assert 'random sample of all rows' in text
  assert (tmp_path / 'figures' / 'coverage.png').is_file()
  capsys.readouterr()
  again = run(_config(tmp_path))
  assert again == result
  assert 'finished run' in capsys.readouterr().out


def test_a_run_cut_short_goes_on(tmp_path, monkeypatch):
  whole = run(_config(tmp_path / 'whole'))
  real, seen = estimators.run_cell, []

  def failing(*arguments):
    seen.append(arguments[0])
    if len(seen) == 3:
      raise RuntimeError('cut short')
    return real(*arguments)

  monkeypatch.setattr(estimators, 'run_cell', failing)
  with pytest.raises(RuntimeError):
    run(_config(tmp_path / 'cut'))
  monkeypatch.setattr(estimators, 'run_cell', real)
  assert run(_config(tmp_path / 'cut')) == whole


@pytest.mark.parametrize(
  'changes', [{'estimators': ('magic',)}, {'sizes': ()}, {'flip_rate': (0.6,)}]
)
def test_bad_flags_are_refused_before_anything_is_written(tmp_path, changes):
  with pytest.raises(ValueError, match='--'):
    run(_config(tmp_path / 'none', **changes))
  assert not (tmp_path / 'none').exists()

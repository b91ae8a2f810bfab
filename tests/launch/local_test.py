"""The local launcher on a tiny experiment: statuses, resuming, stopping."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from launch import local, preflight
from launch.sweep import grid

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENT = r"""
import pathlib, signal, sys, time

if '--help' in sys.argv:
  print('  --output_dir=\n      Where.\n  --rate=1\n      Speed.')
  sys.exit(0)
given = dict(argument[2:].split('=', 1) for argument in sys.argv[1:])
folder = pathlib.Path(given['output_dir'])
with open(folder / 'starts.txt', 'a') as file:
  file.write('+')
if given['rate'] == 'bad':
  print('some progress')
  sys.exit('error: rate=bad')
if given['rate'] == 'slow':
  def save(*_):
    (folder / 'saved.txt').write_text('saved')
    sys.exit(0)
  signal.signal(signal.SIGTERM, save)
  (folder / 'ready.txt').write_text('ready')
  time.sleep(60)
(folder / 'finished.json').write_text('{}')
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """The module name of a tiny experiment that runs and imports find."""
  package = tmp_path / 'toy'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'rain.py').write_text(EXPERIMENT)
  monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{ROOT}')
  return 'toy.rain'


def launch(toy, output_dir, sweep, *more):
  return local.main(
    [f'--experiment={toy}', f'--output_dir={output_dir}', f'--sweep={sweep}']
    + list(more)
  )


def test_runs_every_point_and_skips_the_finished(toy, tmp_path, capsys):
  out = tmp_path / 'out'
  assert launch(toy, out, 'rate=1|bad|3', '--slots=2') == 1
  printed = capsys.readouterr().out
  assert 'jax ' in printed and 'GB free' in printed
  assert 'failed with status 1: error: rate=bad' in printed
  assert (out / 'rate=bad' / 'log.txt').read_text().startswith('some progress')
  assert launch(toy, out, 'rate=1|3|4') == 0
  assert 'finished before' in capsys.readouterr().out
  for point in ('rate=1', 'rate=3', 'rate=4'):
    assert (out / point / 'starts.txt').read_text() == '+'


def test_sigterm_reaches_the_runs(toy, tmp_path):
  out = tmp_path / 'out'
  process = subprocess.Popen(
    [sys.executable, '-m', 'launch.local', f'--experiment={toy}']
    + [f'--output_dir={out}', '--sweep=rate=slow|2'],
    stdout=subprocess.PIPE,
    text=True,
    cwd=tmp_path,
  )
  ready = out / 'rate=slow' / 'ready.txt'
  for _ in range(600):
    if ready.exists():
      break
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  printed, _ = process.communicate(timeout=30)
  assert (out / 'rate=slow' / 'saved.txt').read_text() == 'saved'
  assert process.returncode == 0
  table = [line.split(None, 1) for line in printed.splitlines()[-2:]]
  assert table[0][0] == 'rate=slow' and table[0][1].endswith('stopped')
  assert table[1][0] == 'rate=2' and table[1][1].endswith('not started')


@pytest.mark.parametrize(
  ('sweep', 'more', 'complaint'),
  [
    ('rate=1;rate=2', (), 'given twice'),
    ('speed=1', (), 'toy.rain has no flag --speed'),
    ('rate=1', ('--slots=0',), '--slots=0'),
    ('rate=1', ('--min_free_gb=1e9',), 'free space or choose another disk'),
  ],
)
def test_preflight_starts_nothing(
  toy, tmp_path, capsys, sweep, more, complaint
):
  assert launch(toy, tmp_path / 'out', sweep, *more) == 2
  error = capsys.readouterr().err
  assert complaint in error and error.count('\n') == 1
  assert not list((tmp_path / 'out').glob('*'))


def test_an_unwritable_directory_is_refused(toy, tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  assert launch(toy, tmp_path / 'file' / 'out', 'rate=1') == 2
  assert 'cannot be written' in capsys.readouterr().err


def test_an_experiment_that_does_not_start_is_refused(tmp_path, capsys):
  assert launch('toy.missing', tmp_path, 'rate=1') == 2
  assert 'python -m toy.missing fails' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('backend', 'devices', 'visible', 'slots', 'expected'),
  [
    ('cpu', 1, None, 3, [None] * 3),
    ('gpu', 4, None, 1, [None]),
    ('gpu', 4, None, 2, ['0,2', '1,3']),
    ('gpu', 2, '5,7', 2, ['5', '7']),
    ('gpu', 2, None, 3, 'at most one per GPU'),
    ('tpu', 4, None, 2, 'want 1'),
  ],
)
def test_every_slot_has_devices_of_its_own(
  tmp_path, monkeypatch, backend, devices, visible, slots, expected
):
  answers = iter(
    [
      '  --rate=1',
      f'{{"backend": "{backend}", "devices": {["d"] * devices}, '
      '"versions": {}}'.replace("'", '"'),
    ]
  )
  monkeypatch.setattr(preflight, '_output', lambda _: next(answers))
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  if visible:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)

  def environments():
    return preflight.preflight(
      'toy', grid('rate=1'), tmp_path, slots=slots, min_free_gb=0
    )

  if isinstance(expected, str):
    with pytest.raises(ValueError, match=expected):
      environments()
  else:
    given = [e.get('CUDA_VISIBLE_DEVICES') for e in environments()]
    assert given == expected

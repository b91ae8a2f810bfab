"""The notebook runs on a small made-up run, as a script and as a notebook."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import pyplot as plt

NOTEBOOKS = pathlib.Path(__file__).resolve().parents[2] / 'notebooks'
SCRIPT = NOTEBOOKS / 'read_a_run.py'
NOTEBOOK = NOTEBOOKS / 'read_a_run.ipynb'


def stop(rng, rate, step):
  return {
    'learning_rate': rate,
    'step': step,
    'noisy_nll': rng.uniform(0.5, 0.7),
    'clean_accuracy': rng.uniform(0.5, 1.0),
    'fitted': None,
  }


def cell(rng, seed, flip_rate, role, name, has_gold):
  curve = [stop(rng, rate, step) for rate in (1e-3, 3e-3) for step in (5, 10)]
  summary = {'accuracy': rng.uniform()}
  curves = {}
  if has_gold:
    summary |= {'gold': rng.uniform(), 'kl': rng.uniform()}
    for key in ('kl', 'gold', 'optimum_kl', 'optimum_gold'):
      curves[key] = np.sort(rng.uniform(size=4)).tolist()
  measured = {'stop': curve[2], 'summary': summary, 'curves': curves}
  return {
    'seed': seed,
    'flip_rate': flip_rate,
    'role': role,
    'name': name,
    'loss': 'dpo',
    'assumed': None,
    'curve': curve,
    'selected': measured,
    'fixed': measured,
    'oracle': measured,
  }


def write_run(directory, *, has_gold=True, seeds=2):
  """A directory as an experiment leaves it, with two losses and a control."""
  rng = np.random.default_rng(7)
  (directory / 'eval').mkdir(parents=True)
  (directory / 'figures').mkdir()
  provenance = {'python': '3.11', 'packages': {'jax': '0'}, 'git_commit': None}
  (directory / 'config.json').write_text(
    json.dumps(
      {'identity': {'steps': 10}, 'provenance': [provenance], 'version': 1}
    )
  )
  (directory / 'metrics.jsonl').write_text(
    ''.join(
      json.dumps({'step': step, 'cell': name, 'loss': value}) + '\n'
      for name in ('sft seed 0', 'seed 0  flips 0.4  dpo')
      for step, value in ((5, 0.6931), (10, None))
    )
    + '{"step": 10, "cell": "a", "loss": 0.5, "rewards/margins": 0.1}\n'
  )
  cells = [
    cell(rng, seed, flip_rate, role, name, has_gold)
    for seed in range(seeds)
    for flip_rate, role, name in (
      (0.0, 'contestant', 'dpo'),
      (0.4, 'contestant', 'dpo'),
      (0.4, 'contestant', 'rdpo@0.4'),
      (0.5, 'leak', 'dpo (leak)'),
    )
  ]
  (directory / 'eval' / 'cells.jsonl').write_text(
    ''.join(json.dumps(row) + '\n' for row in cells)
  )
  (directory / 'report.md').write_text('# Made up\n')
  plt.imsave(directory / 'figures' / 'a.png', rng.uniform(size=(8, 8, 3)))
  return cells


def as_script(run):
  return subprocess.run(
    [sys.executable, '-W', 'error', SCRIPT],
    env={**os.environ, 'RUN': str(run), 'MPLBACKEND': 'template'},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(('has_gold', 'seeds'), [(True, 2), (False, 1)])
def test_it_reads_a_run(tmp_path, has_gold, seeds):
  cells = write_run(tmp_path, has_gold=has_gold, seeds=seeds)
  done = as_script(tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'not finished' in done.stdout and '# Made up' in done.stdout
  (line,) = [x for x in done.stdout.splitlines() if ' rdpo@0.4 ' in x]
  accuracies = [
    row['selected']['summary']['accuracy']
    for row in cells
    if row['name'] == 'rdpo@0.4'
  ]
  assert f'accuracy {np.mean(accuracies):6.3f} ±' in line
  assert ('gold' in line) == has_gold


def test_it_reads_a_run_that_has_only_begun(tmp_path):
  write_run(tmp_path)
  for name in ('metrics.jsonl', 'report.md', 'eval/cells.jsonl'):
    (tmp_path / name).unlink()
  done = as_script(tmp_path)
  assert done.returncode == 0, done.stderr
  assert 'no report yet' in done.stdout


def test_the_notebook_is_its_source():
  """Cell by cell, so that neither is edited alone."""
  notebook = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
  source = SCRIPT.read_text(encoding='utf-8')
  parts = re.split(r'^# %%(?: \[(markdown)\])?\n', source, flags=re.M)[1:]
  cells = []
  for kind, text in zip(parts[::2], parts[1::2], strict=True):
    if kind:
      text = re.sub(r'^# ?', '', text, flags=re.M)
    cells.append((kind or 'code', text.strip()))
  there = [(c['cell_type'], ''.join(c['source'])) for c in notebook['cells']]
  assert there == cells, 'run: jupytext --to ipynb notebooks/read_a_run.py'
  assert not any(c.get('outputs') for c in notebook['cells'])


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
  nbclient = pytest.importorskip('nbclient')
  nbformat = pytest.importorskip('nbformat')
  pytest.importorskip('ipykernel')
  write_run(tmp_path)
  monkeypatch.setenv('RUN', str(tmp_path))
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbclient.NotebookClient(notebook, timeout=120).execute()
  images = [
    output
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    if 'image/png' in output.get('data', {})
  ]
  assert len(images) == 3

"""The main job on the embedded task: report, control rows, resuming, flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import re

import pytest

from alignment.training.preemption import Preempted
from experiments import common, noisy_dpo

SMALL = noisy_dpo.Config(
  loss=('dpo', 'rdpo'),
  flip_rate=(0.0, 0.4),
  seeds=2,
  steps=8,
  num_stops=2,
  num_pairs=64,
  num_validation=64,
  batch_size=16,
  sft_steps=12,
  width=16,
  depth=1,
  log_interval=4,
  threads=2,
  cache_dir='',
)
CONTESTANTS = {
  0.0: ['dpo', 'rdpo@0', 'rdpo@0.1'],
  0.4: ['dpo', 'rdpo@0.4', 'rdpo@0.3'],
}
CONTROLS = {0.0: [], 0.4: ['dpo (unflipped)', 'dpo (clean)']}


def run(folder, **changes):
  config = dataclasses.replace(SMALL, output_dir=str(folder), **changes)
  return noisy_dpo.run(config)


def strict(text):
  """JSON without NaN or infinities."""

  def refuse(constant):
    raise AssertionError(f'{constant} is no JSON')

  return json.loads(text, parse_constant=refuse)


def cells_of(folder):
  lines = (folder / 'eval' / 'cells.jsonl').read_text().splitlines()
  return [strict(line) for line in lines]


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A finished run: (directory, result, what it printed)."""
  folder = tmp_path_factory.mktemp('noisy_dpo') / 'run'
  with contextlib.redirect_stdout(io.StringIO()) as out:
    result = run(folder)
  return folder, result, out.getvalue()


def tables(report):
  """Heading -> the first column of its table, in order."""
  found = {}
  for heading, body in re.findall(
    r'^## (.*?)$(.*?)(?=^## |\Z)', report, re.M | re.S
  ):
    rows = [line for line in body.splitlines() if line.startswith('|')]
    found[heading] = [row.split('|')[1].strip() for row in rows[2:]]
  return found


def test_a_table_per_flip_rate_and_setting(done):
  folder, result, printed = done
  report = (folder / 'report.md').read_text()
  assert printed.rstrip().endswith(report.rstrip())
  found = tables(report)
  for rate, names in CONTESTANTS.items():
    for words in ('selected on noisy', 'fixed setting, trained to fit'):
      (heading,) = [
        h for h in found if h.startswith(f'Flip rate {rate:g}: {words}')
      ]
      assert found[heading] == names + CONTROLS[rate]
  assert set(result) == {
    f'{rate}/{setting}'
    for rate in ('0', '0.4')
    for setting in ('selected', 'fixed')
  }
  columns = next(line for line in report.splitlines() if '| method' in line)
  for column in (
    'assumed ε',
    'accuracy',
    'gold',
    'KL',
    'mass',
    'Δ accuracy to dpo',
    'Δ gold to dpo',
    'recovery, accuracy',
    'flips fitted',
    'lr × step chosen',
  ):
    assert column in columns


def test_what_stands_beside_the_tables(done):
  report = (done[0] / 'report.md').read_text()
  assert 'Start (the floor' in report
  for text in (
    'dpo on the best labels known minus dpo: accuracy',
    'dpo on the unflipped pairs only minus dpo: accuracy',
    'What selecting dpo on noisy instead of clean validation labels cost',
    'Leak check: labels at flip rate ½',
    'half the paired difference',
    'drift (mean of the two)',
  ):
    assert text in report, text
  last = report.rstrip().splitlines()[-1]
  assert last.startswith('**At flip rate 0.4** accuracy: ')
  assert ' is best' in last and ' gold: ' in last
  (figure,) = re.findall(r'!\[.*\]\((.*)\)', report)
  assert (done[0] / figure).stat().st_size > 10_000


def test_the_opening_loss_is_printed_and_is_ln_2(done):
  found = re.findall(r'^step 0  (\w+) +loss ([\d.]+)  as exact', done[2], re.M)
  assert [name for name, _ in found] == ['dpo', 'rdpo']
  for _, value in found:
    assert math.isclose(float(value), math.log(2), abs_tol=1e-5)


def test_cells_are_strict_json_and_complete(done):
  folder, result, _ = done
  cells = cells_of(folder)
  roles = {(c['flip_rate'], c['role'], c['name']) for c in cells}
  assert len(cells) == 2 * len(roles) == 2 * (3 + 3 + 2 + 2)
  for cell in cells:
    # The leak check has the fixed setting alone.
    points = 1 if 'leak' in cell['role'] else 2 * 2
    assert len(cell['curve']) == points
    # What selection cost is asked of the baseline alone.
    is_baseline = cell['role'] == 'contestant' and cell['name'] == 'dpo'
    assert cell['oracle'] is not None or not is_baseline
    for setting in ('selected', 'fixed', 'oracle'):
      if cell[setting] is not None:
        summary = cell[setting]['summary']
        assert 0 <= summary['accuracy'] <= 1 and 0 < summary['mass'] <= 1
        assert summary['kl'] >= 0
    fitted = cell['fixed']['stop']['fitted']
    clean = cell['flip_rate'] == 0 or cell['role'] == 'clean'
    assert (fitted is None) == clean
  for path in folder.rglob('*.json*'):
    for line in (
      path.read_text().splitlines()
      if path.suffix == '.jsonl'
      else [path.read_text()]
    ):
      strict(line)
  means = result['0.4/selected']['rdpo@0.3']['means']
  scores = [
    c['selected']['summary']['gold']
    for c in cells
    if (c['flip_rate'], c['name']) == (0.4, 'rdpo@0.3')
  ]
  assert math.isclose(means['gold'][0], sum(scores) / 2, rel_tol=1e-9)


def test_losses_that_coincide_are_trained_once(done):
  cells = cells_of(done[0])

  def of(seed, rate, name):
    (cell,) = [
      c
      for c in cells
      if (c['seed'], c['flip_rate'], c['name']) == (seed, rate, name)
    ]
    return cell['curve']

  for seed in (0, 1):
    assert of(seed, 0.0, 'dpo') == of(seed, 0.0, 'rdpo@0')
    assert of(seed, 0.0, 'dpo') == of(seed, 0.4, 'dpo (clean)')
    assert of(seed, 0.0, 'dpo') != of(seed, 0.4, 'dpo')
  lines = (done[0] / 'eval' / 'outcomes.jsonl').read_text().splitlines()
  # dpo and rdpo@0.1 on clean labels; dpo, two rdpo and the unflipped pairs at
  # .4; the leak check.
  assert len(lines) == 2 * (2 + 4 + 2)


def test_every_learning_rate_has_its_metrics(done):
  lines = (done[0] / 'metrics.jsonl').read_text().splitlines()
  rows = [
    r for r in map(strict, lines) if r['cell'] == 'seed 1  flips 0.4  dpo'
  ]
  assert {(r['rate'], r['step']) for r in rows} == {
    (rate, step) for rate in ('0.002', '0.004') for step in (1, 4, 8)
  }
  assert any(strict(line)['cell'] == 'sft seed 1' for line in lines)


def test_a_finished_run_is_not_repeated(done, capsys):
  folder, result, _ = done
  before = {p: p.stat().st_mtime_ns for p in (folder / 'eval').iterdir()}
  again = run(folder, threads=1)
  assert again == strict(json.dumps(result))
  assert 'nothing was repeated' in capsys.readouterr().out
  assert {p: p.stat().st_mtime_ns for p in before} == before


def test_another_config_in_its_directory_is_refused(done):
  with pytest.raises(ValueError, match='beta: 0.2 there, 0.3 now'):
    run(done[0], beta=0.3)


def test_a_resumed_run_equals_one_that_was_not_stopped(
  done, tmp_path, monkeypatch
):
  """Stopped in the middle of a cell, then twice killed between cells."""
  folder, result, _ = done

  @contextlib.contextmanager
  def stopping():
    asked = iter(range(10_000))
    # Two supervised starts, openings, one cell of two runs, then a half.
    yield lambda step: next(asked) >= 2 * 12 + 2 * 8 + 5

  with monkeypatch.context() as patch, pytest.raises(Preempted):
    patch.setattr(noisy_dpo, 'preemption', stopping)
    run(tmp_path, threads=1)
  ledger = tmp_path / 'eval' / 'outcomes.jsonl'
  assert len(ledger.read_text().splitlines()) == 1
  assert any((tmp_path / 'checkpoints').iterdir())
  with ledger.open('a') as file:
    file.write('{"key": "cut sho')
  assert run(tmp_path, tensorboard=True) == result
  whole = (folder / 'eval' / 'cells.jsonl').read_text()
  assert (tmp_path / 'eval' / 'cells.jsonl').read_text() == whole
  assert not any((tmp_path / 'checkpoints').iterdir())
  report = (tmp_path / 'report.md').read_text()
  assert report == (folder / 'report.md').read_text()
  assert any((tmp_path / 'tensorboard').iterdir())


OTHER = {
  'difficulty': 'hard',
  'data': 'mine.jsonl',
  'model': 'hashed',
  'task': None,  # there is one
  'loss': ('dpo', 'ipo'),
  'aggregate': 'dr_dpo',
  'noise': 'symmetric',
  'noise_hyper': ('exact=1',),
  'flip_rate': (0.1,),
  'beta': 0.5,
  'label_smoothing': (0.25,),
  'misassumed': 0.2,
  'estimate_flip_rate': 'agreement',
  'relabelled': 0.5,
  'relabels': 2,
  'anchors': 0.1,
  'hyper': ('rdpo.beta=0.4',),
  'preference': 'bt',
  'seeds': 1,
  'steps': 4,
  'num_stops': 1,
  'num_pairs': 48,
  'num_validation': 48,
  'num_test': 32,
  'batch_size': 8,
  'learning_rate': (1e-2,),
  'packing': 'padded',
  'sft_steps': 6,
  'sft_learning_rate': 1e-2,
  'width': 20,
  'depth': 2,
  'num_heads': 1,
  'max_prompt_length': 20,
  'max_completion_length': 20,
  'lora_rank': 2,
  'lora_alpha': 1.0,
  'lora_path': 'merged',
  'matmul_dtype': 'bfloat16',
  'remat': True,
}


def test_every_flag_is_identity_or_runtime():
  fields = {f.name: f for f in dataclasses.fields(noisy_dpo.Config)}
  runtime = {name for name, f in fields.items() if f.metadata['runtime']}
  assert set(OTHER) | runtime == set(fields) and not set(OTHER) & runtime
  there = common.identity(SMALL)
  for name, value in OTHER.items():
    if value is not None:
      here = common.identity(dataclasses.replace(SMALL, **{name: value}))
      assert {k for k in here if here[k] != there[k]} == {name}


@pytest.mark.parametrize(
  'name',
  ['noise', 'preference', 'sft_steps']
  + [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ('lora_rank', 'matmul_dtype')
  ],
)
def test_identity_flags_change_the_result(done, tmp_path, name):
  """The others choose what is compared, or are tested where they are used."""
  small = {'loss': ('dpo',), 'flip_rate': (0.4,), 'seeds': 1}
  run(tmp_path, **{**small, name: OTHER[name]})
  base, other = (
    next(
      c
      for c in cells_of(folder)
      if (c['flip_rate'], c['name'], c['seed']) == (0.4, 'dpo', 0)
    )
    for folder in (done[0], tmp_path)
  )
  assert base['fixed'] != other['fixed']


@pytest.mark.slow
def test_an_aggregate_is_compared_with_plain_dpo(tmp_path):
  result = run(
    tmp_path,
    loss=('dpo',),
    aggregate='dr_dpo',
    hyper=('beta_prime=0.5',),
    flip_rate=(0.4,),
    seeds=1,
  )
  selected = result['0.4/selected']
  assert list(selected)[:2] == ['dpo', 'dpo+dr_dpo']
  assert selected['dpo']['differences'] == {}
  assert selected['dpo']['means'] != selected['dpo+dr_dpo']['means']


@pytest.mark.slow
def test_at_full_size_the_numbers_are_sane(tmp_path):
  """The size of the first command, two seeds and two losses of it."""
  config = noisy_dpo.Config(
    loss=('dpo', 'forward'),
    flip_rate=(0.0, 0.4),
    seeds=2,
    misassumed=0.0,
    output_dir=str(tmp_path),
    cache_dir='',
  )
  result = noisy_dpo.run(config)
  clean, noisy = (
    result[f'{rate}/selected']['dpo']['means'] for rate in ('0', '0.4')
  )
  assert clean['accuracy'][0] > noisy['accuracy'][0] + 0.05
  assert clean['gold'][0] > noisy['gold'][0] > 0
  for cell in cells_of(tmp_path):
    summary = cell['selected']['summary']
    assert 0 < summary['mass'] <= 1 and 0 <= summary['kl'] < 10
    assert 0.4 < summary['accuracy'] < 1
    fixed = cell['fixed']['stop']
    assert (fixed['learning_rate'], fixed['step']) == (2e-3, 160)
  fitted = result['0.4/fixed']['dpo']['fitted']
  assert fitted > result['0.4/fixed']['dpo (unflipped)']['fitted'] + 0.1

"""The main job on real preferences: what is run, printed and refused."""

import dataclasses
import json
import pathlib
import re

import pytest

from alignment.data.records import DataError
from experiments import noisy_dpo
from tests.protocols.records import (
  preferences,
  voted,
  write_jsonl,
  write_votes,
)

INTERVAL = re.compile(r'\[[-+]?\d\.\d+, [-+]?\d\.\d+\]')
SMALL = {
  'model': 'hashed',
  'loss': ('dpo', 'rdpo'),
  'misassumed': 0.0,
  'batch_size': 8,
  'steps': 16,
  'num_stops': 2,
  'cache_dir': '',
  'threads': 2,
}


def run(folder: pathlib.Path, **flags) -> str:
  """The report of a small run."""
  given = {**SMALL, 'output_dir': str(folder / 'run'), **flags}
  noisy_dpo.run(noisy_dpo.Config(**given))
  return (folder / 'run' / 'report.md').read_text(encoding='utf-8')


def cells_of(folder: pathlib.Path) -> list[dict]:
  text = (folder / 'run' / 'eval' / 'cells.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope='module')
def labelled(tmp_path_factory) -> tuple[pathlib.Path, str]:
  """Two seeds on single labels."""
  folder = tmp_path_factory.mktemp('labelled')
  data = write_jsonl(folder / 'pairs.jsonl', preferences(15, 6))
  return folder, run(folder, data=str(data), flip_rate=(0.25,), seeds=2)


@pytest.fixture(scope='module')
def crowd(tmp_path_factory) -> tuple[pathlib.Path, str]:
  """Five seeds on votes: every title is tested."""
  folder = tmp_path_factory.mktemp('crowd')
  data = write_votes(folder / 'votes', voted(10, 8))
  return folder, run(folder, data=str(data), flip_rate=(0.0, 0.2), seeds=5)


def test_single_labels_are_called_what_they_are(labelled):
  _, report = labelled
  assert 'Agreement with a held-out label' in report
  assert 'accuracy' not in report.replace('no accuracy', '')
  assert '**not identified**' in report
  assert 'Effective ε: 0.25 + 0.5 · ε₀' in report
  assert 'The gap' not in report  # no better labels are known
  assert 'Intervals are over first turns' in report
  assert INTERVAL.search(report)
  for row in ('length only', 'majority side', 'start (the floor)'):
    assert f'| {row}' in report


def test_what_was_dropped_is_in_the_report(labelled):
  folder, report = labelled
  assert f'{folder}/pairs.jsonl: 90 kept of 90 read' in report
  assert 'seed 0, test, read as hashed-uni-bigrams' in report


def test_a_word_that_decides_is_learned(labelled):
  folder, report = labelled
  assert 'The hashed model learned something' in report
  clean = [c for c in cells_of(folder) if c['role'] == 'clean']
  scores = [c['selected']['summary']['agreement'] for c in clean]
  assert sum(scores) / len(scores) > 0.85


def test_votes_print_the_gap_before_anything_else(crowd):
  folder, report = crowd
  assert report.index('**The gap**') < report.index('Agreement with')
  assert 'majority of 5 votes minus dpo trained on one vote per pair' in report
  assert re.search(r'lies above 0|cannot rank losses', report)
  roles = [cell['role'] for cell in cells_of(folder)]
  assert roles[:2] == ['labels at hand', 'best labels known']
  assert set(roles[:10]) == {'labels at hand', 'best labels known'}


def test_votes_state_ties_ceiling_and_effective_rates(crowd):
  _, report = crowd
  assert "Ties: an 'equal' vote names no winner" in report
  assert 'Ceiling on' in report and '| ceiling: the answer most' in report
  assert 'Tested: 10 of 10 titles' in report
  assert 'lower bound' in report
  rates = re.findall(r'(0\.\d+) \(injected', report)
  assert len(rates) == 2 and float(rates[0]) < float(rates[1])
  # The oracle assumes what labels have and what was injected, composed.
  assert f'rdpo@{float(rates[0]):g} ' in report
  assert f'rdpo@{float(rates[1]):g} ' in report


def test_the_seeds_test_every_title_once(crowd):
  folder, _ = crowd
  base = [
    c
    for c in cells_of(folder)
    if (c['role'], c['name'], c['flip_rate']) == ('contestant', 'dpo', 0.0)
  ]
  named = [p for p in voted(10, 8) if any(v.value for v in p.votes)]
  tested = sum(len(c['selected']['correct']) for c in base)
  assert len(base) == 5 and tested == len(named)


def test_given_rates_are_assumed_as_they_are(tmp_path):
  data = write_votes(tmp_path / 'votes', voted(6, 8))
  report = run(
    tmp_path,
    data=str(data),
    flip_rate=(0.2,),
    label_smoothing=(0.15,),
    seeds=1,
  )
  assert '| rdpo@0.15 ' in report
  assert not INTERVAL.search(report)
  assert 'One seed, so no interval' in report
  assert 'One seed: no interval, so that losses cannot be ranked' in report


@pytest.mark.slow
def test_a_byte_model_stands_beside_hashed_words(tmp_path):
  records = [
    dataclasses.replace(r, chosen=r.rejected, rejected=r.chosen)
    if r.index % 5 in (1, 2)  # so that no text is better than another
    else r
    for r in preferences(12, 4)
  ]
  data = write_jsonl(tmp_path / 'pairs.jsonl', records)
  report = run(
    tmp_path,
    data=str(data),
    model='transformer',
    loss=('dpo',),
    flip_rate=(0.25,),
    seeds=1,
    steps=2,
    num_stops=1,
    learning_rate=(1e-3,),
    sft_steps=1,
    width=8,
    depth=1,
    num_heads=1,
    max_prompt_length=4,
    max_completion_length=8,
  )
  assert '| dpo on hashed words, same pairs, flip rate 0.25' in report
  assert 'truncated, chosen (start kept)' in report
  assert not INTERVAL.search(report)
  assert '**The byte model learned nothing**' in report
  assert '`--model=hashed`' in report


def test_a_finished_run_is_shown_again(labelled, capsys):
  folder, report = labelled
  data = str(folder / 'pairs.jsonl')
  assert run(folder, data=data, flip_rate=(0.25,), seeds=2) == report
  assert 'nothing was repeated' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('rows', 'problem'),
  [
    (
      [{'prompt': 'p', 'completion': 'c', 'label': True}] * 3,
      r"line 1, field 'completion': .*hold no pairs.*Give \{prompt, chosen",
    ),
    (
      [
        {
          'chosen': [{'role': 'user', 'content': 'a'}],
          'rejected': [{'role': 'user', 'content': 'b'}],
        }
      ],
      r"line 1, field 'chosen'",
    ),
    ([{'chosen': 'a', 'rejected': 'b', 'prompt': 'p'}], r'in 1 cluster'),
  ],
)
def test_data_that_holds_no_pairs(tmp_path, rows, problem):
  path = tmp_path / 'bad.jsonl'
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  with pytest.raises(DataError, match=problem):
    run(tmp_path, data=str(path))
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('flags', 'problem'),
  [
    ({'data': ''}, '--model=hashed.*--data'),
    (
      {'data': 'x.jsonl', 'sft_steps': 3},
      '--sft_steps=3: not used by hashed words',
    ),
    (
      {'data': 'x.jsonl', 'max_prompt_length': 9},
      '--max_prompt_length=9: not used by hashed words',
    ),
    (
      {'data': '', 'model': 'transformer', 'num_test': 9},
      '--num_test=9: not used by the embedded task',
    ),
    ({'data': 'none.jsonl'}, 'none.jsonl'),
  ],
)
def test_flags_without_use(tmp_path, flags, problem):
  with pytest.raises(ValueError, match=problem):
    run(tmp_path, **flags)


@pytest.mark.shared
def test_harmless_preferences(shared_dir, tmp_path):
  report = run(
    tmp_path,
    data=str(shared_dir / 'data/hh_rlhf/harmless-base.test.jsonl.gz'),
    model='transformer',
    flip_rate=(0.2,),
    steps=20,
    seeds=1,
    num_stops=None,
    batch_size=32,
  )
  assert '2308 kept of 2312 read' in report
  assert 'Agreement with a held-out label' in report
  assert 'Effective ε: 0.2 + 0.6 · ε₀' in report
  assert not INTERVAL.search(report)
  (words,) = re.findall(r'dpo on hashed words.*\| (0\.\d+)', report)
  assert float(words) > 0.5
  assert 'The byte model learned' in report


@pytest.mark.shared
def test_hashed_words_read_harmless_preferences(shared_dir, tmp_path):
  run(
    tmp_path,
    data=str(shared_dir / 'data/hh_rlhf/harmless-base.test.jsonl.gz'),
    loss=('dpo',),
    flip_rate=(0.0,),
    steps=80,
    seeds=5,
    num_stops=4,
    batch_size=32,
  )
  scores = [
    c['selected']['summary']['agreement']
    for c in cells_of(tmp_path)
    if c['role'] == 'contestant'
  ]
  # About .60; the standard error over 2,308 pairs is .01.
  assert 0.56 < sum(scores) / len(scores) < 0.66


@pytest.mark.shared
def test_crowd_votes(shared_dir, tmp_path):
  report = run(
    tmp_path,
    data=str(shared_dir / 'data/ukp_convarg1'),
    flip_rate=(0.0,),
    steps=80,
    seeds=5,
    num_stops=4,
    batch_size=32,
  )
  assert 'Tested: 12 of 12 titles' in report
  gap = re.search(r'The gap.*agreement ([-+]0\.\d+) \[(.*), (.*)\]', report)
  low, high = float(gap[2]), float(gap[3])
  assert low < high and abs(float(gap[1])) < 0.03
  assert ('the data cannot rank losses' in report) == (low <= 0)
  assert "'equal' (23.8% of the votes) is left out" in report
  assert 'rdpo@0.173' in report
  base = [
    c['selected']['summary']['agreement']
    for c in cells_of(tmp_path)
    if (c['role'], c['loss']) == ('contestant', 'dpo')
  ]
  assert 0.61 < sum(base) / 5 < 0.68  # the length alone has .67

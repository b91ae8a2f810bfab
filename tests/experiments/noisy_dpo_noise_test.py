"""The main job with unsure labellers and with rates that are estimated."""

import contextlib
import dataclasses
import io
import json
import re

import numpy as np
import pytest

from experiments import noisy_dpo
from tests.experiments.noisy_dpo_data_test import SMALL as WORDS
from tests.experiments.noisy_dpo_test import SMALL, cells_of
from tests.protocols.records import preferences, voted, write_votes


def _run(folder, config):
  """The report, and what was printed."""
  with contextlib.redirect_stdout(io.StringIO()) as out:
    noisy_dpo.run(dataclasses.replace(config, output_dir=str(folder)))
  return (folder / 'report.md').read_text(), out.getvalue()


def _estimates(report):
  """[(injected, seed, ε̂, low, high)] of the table."""
  row = re.compile(
    r'^\| (\S+) +\| (\d+) +\| (0\.\d+) +\| \[(0\.\d+), (0\.\d+)\]', re.M
  )
  return [tuple(map(float, found)) for found in row.findall(report)]


@pytest.fixture(scope='module')
def unsure(tmp_path_factory):
  """A teacher who ties and skips, and pairs labelled a second time."""
  folder = tmp_path_factory.mktemp('unsure') / 'run'
  config = dataclasses.replace(
    SMALL,
    loss=('dpo', 'rdpo', 'soft_label'),
    noise='teacher',
    noise_hyper=('tie=0.2',),
    flip_rate=(0.2,),
    num_pairs=256,
    estimate_flip_rate='agreement',
    relabelled=1.0,
  )
  return folder, *_run(folder, config)


@pytest.mark.slow
def test_ties_are_told_and_used_by_losses_that_can(unsure):
  folder, report, _ = unsure
  assert 'noise: teacher (tie 0.2)' in report
  share = re.search(
    r'Of the training pairs 0.0% were skipped.*?(\S+)% called', report
  )
  assert 1 < float(share[1]) < 60
  curves = {
    c['name']: c['curve']
    for c in cells_of(folder)
    if c['seed'] == 0 and c['role'] == 'contestant'
  }
  assert curves['soft_label'] != curves['dpo']


@pytest.mark.slow
def test_the_estimate_stands_beside_what_was_injected(unsure):
  folder, report, printed = unsure
  found = _estimates(report)
  assert [row[:2] for row in found] == [(0.2, 0), (0.2, 1)]
  assert _estimates(printed[: printed.index('# Preference losses')]) == found
  for _, _, rate, low, high in found:
    assert low < rate < high and rate == pytest.approx(0.2, abs=0.1)
  assert 'Votes err independently given the truth' in report
  assert 'labelled 4 times more at the rates of the pairs' in report


@pytest.mark.slow
def test_every_seed_assumes_its_own(unsure):
  folder, report, _ = unsure
  cells = [c for c in cells_of(folder) if c['name'] == 'rdpo@agreement']
  assert len(cells) == 2 and all(c['estimator'] == 'agreement' for c in cells)
  assumed = [c['assumed'] for c in cells]
  assert len(set(assumed)) == 2
  np.testing.assert_allclose(
    assumed, [row[2] for row in _estimates(report)], atol=5e-4
  )
  names = {c['name'] for c in cells_of(folder) if c['loss'] == 'rdpo'}
  assert names == {'rdpo@agreement', 'rdpo@0.2'}
  assert f'| rdpo@agreement  | {np.mean(assumed):.3f}'.rstrip('0') in report


def test_votes_of_the_training_split_give_the_rate(tmp_path):
  data = write_votes(tmp_path / 'votes', voted(10, 8))
  config = noisy_dpo.Config(
    **{
      **WORDS,
      'misassumed': None,
      'data': str(data),
      'flip_rate': (0.0, 0.1),
      'estimate_flip_rate': 'agreement',
      'seeds': 2,
    }
  )
  report, _ = _run(tmp_path / 'run', config)
  assert 'the votes of the training split, noise on every one' in report
  assert 'titles' in report
  for _, _, rate, low, high in _estimates(report):
    assert low <= rate <= high
  by_rate = {}
  for injected, _, rate, _, _ in _estimates(report):
    by_rate.setdefault(injected, []).append(rate)
  # Four of five votes are right on most pairs, one in two on a seventh.
  assert 0.15 < np.mean(by_rate[0.0]) < 0.35
  assert np.mean(by_rate[0.1]) > np.mean(by_rate[0.0])


def test_known_flips_can_be_checked_on_real_pairs(tmp_path):
  path = tmp_path / 'pairs.jsonl'
  rows = [
    {
      'prompt': r.prompt,
      'chosen': r.chosen,
      'rejected': r.rejected,
      'is_flipped': r.is_flipped,
    }
    for r in preferences(30, 6, flip_every=4)
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  config = noisy_dpo.Config(
    **{
      **WORDS,
      'misassumed': None,
      'data': str(path),
      'flip_rate': (0.1,),
      'estimate_flip_rate': 'anchors',
      'anchors': 1.0,
      'seeds': 1,
    }
  )
  report, _ = _run(tmp_path / 'run', config)
  ((_, _, rate, low, high),) = _estimates(report)
  # A quarter flipped as they came, and a tenth on top: .25 · .9 + .75 · .1.
  assert low < 0.3 < high and low < rate < high
  assert '100% of the training pairs, checked' in report


def test_an_estimate_that_fails_is_refused_before_training(tmp_path):
  data = write_votes(tmp_path / 'votes', voted(10, 8))
  config = noisy_dpo.Config(
    **{
      **WORDS,
      'misassumed': None,
      'data': str(data),
      'flip_rate': (0.0, 0.49),
      'estimate_flip_rate': 'agreement',
      'seeds': 1,
    }
  )
  with pytest.raises(ValueError, match=r'agreement: seed \d, flip rate 0.49: '):
    _run(tmp_path / 'run', config)
  assert not (tmp_path / 'run' / 'eval' / 'outcomes.jsonl').exists()

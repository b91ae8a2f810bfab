"""Cleaned files in the hands of other libraries."""

import json

import pytest

from experiments.audit import Config, run
from tests.peers.installed import peer

pytestmark = pytest.mark.peers


@pytest.fixture(scope='module')
def cleaned(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cleaned')
  rows = []
  for i in range(80):
    sides = [f'a good answer number {i}', f'a poor reply number {i}']
    row = {'prompt': f'question {i}?', 'source': ['web', 'book'][i % 2]}
    row |= dict(zip(('chosen', 'rejected'), sides, strict=True))
    rows.append(row | ({'clean_label': True} if i % 2 else {}))
  data = folder / 'pairs.jsonl'
  data.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  result = run(
    Config(data=str(data), scenarios=0, output_dir=str(folder / 'run'))
  )
  return rows, result['cleaned']


def test_datasets_loads_a_cleaned_file(cleaned, tmp_path):
  datasets = peer('datasets')
  rows, path = cleaned
  loaded = datasets.load_dataset(
    'json', data_files=path, split='train', cache_dir=str(tmp_path)
  )
  assert len(loaded) == len(rows)
  for name in ('prompt', 'chosen', 'rejected', 'source'):
    assert loaded[name][:] == [row[name] for row in rows]
  for name in ('label_prob', 'weight'):
    assert loaded.features[name].dtype == 'float64'


def test_trl_takes_its_rows_for_preferences(cleaned, tmp_path):
  datasets = peer('datasets')
  data_utils = peer('trl.data_utils')
  _, path = cleaned
  loaded = datasets.load_dataset(
    'json', data_files=path, split='train', cache_dir=str(tmp_path)
  )
  first = loaded[0]
  assert not data_utils.is_conversational(first)
  # TRL divides a shared prefix off where there is no prompt; there is one.
  assert data_utils.maybe_extract_prompt(first) == first
  columns = ['prompt', 'chosen', 'rejected']
  assert set(columns) <= set(loaded.column_names)
  assert all(isinstance(loaded.features[c].dtype, str) for c in columns)

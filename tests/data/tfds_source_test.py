"""TFDS sets written and read back, with no TensorFlow in the process."""

import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from alignment.data import tfds_source
from alignment.data.readers import read_file, write_jsonl
from alignment.data.records import DataError, Preference, Unpaired
from alignment.data.source import load

SHARED = pathlib.Path(__file__).resolve().parents[2].parent / 'shared'


def records(num_records, seed):
  rng = np.random.default_rng(seed)
  flags = (None, False, True)
  made = []
  for index in range(num_records):
    flipped = flags[int(rng.integers(3))]
    made.append(
      Preference(
        prompt=f'{index}: né?\n',
        chosen=f' ç {rng.integers(9)}',
        rejected=f' 𝄞 {rng.integers(9)}',
        index=2 * index + 1,
        group=f'g{index % 3}',
        label_prob=round(float(rng.random()), 3),
        weight=round(float(rng.random()), 3),
        annotator_id=int(rng.integers(-1, 5)),
        is_flipped=flipped,
        clean_label=None if flipped is None else not flipped,
        votes=tuple(rng.integers(-1, 2, index % 4).tolist()),
      )
    )
  return made


def test_round_trip_without_tensorflow(tmp_path):
  wanted = {'train': records(7, 0), 'test': records(4, 1)}
  for split, made in wanted.items():
    write_jsonl(tmp_path / f'{split}.jsonl.gz', made)
  reports = tfds_source.prepare_tfds(
    {split: tmp_path / f'{split}.jsonl.gz' for split in wanted},
    config='some',
    data_dir=tmp_path / 'tfds',
  )
  assert {s: r.kept for s, r in reports.items()} == {'train': 7, 'test': 4}
  for split, made in wanted.items():
    spec = f'tfds:preference_pairs/some:{split}'
    read, report = load(spec, data_dir=tmp_path / 'tfds')
    assert read == made
    assert (report.source, report.kept) == (spec, len(made))
    assert report.notes == []
  source = tfds.data_source(
    'preference_pairs/some:1.0.0', split='test', data_dir=tmp_path / 'tfds'
  )
  assert source[2]['prompt'] == '2: né?\n'.encode()
  part, _ = load(
    'tfds:preference_pairs/some:train[2:5]', data_dir=tmp_path / 'tfds'
  )
  assert part == wanted['train'][2:5]
  assert 'tensorflow' not in sys.modules
  with pytest.raises(DataError, match='prepared already.*another config'):
    tfds_source.prepare_tfds(
      {'train': tmp_path / 'train.jsonl.gz'},
      config='some',
      data_dir=tmp_path / 'tfds',
    )


def test_unpaired_labels_and_no_mixtures(tmp_path):
  made = [
    Unpaired(prompt='P', completion='c', label=i % 2 == 0, index=i, group='g')
    for i in range(3)
  ]
  write_jsonl(tmp_path / 'a.jsonl', made)
  write_jsonl(tmp_path / 'b.jsonl', records(2, 0))
  tfds_source.prepare_tfds(
    {'train': tmp_path / 'a.jsonl'}, config='labels', data_dir=tmp_path
  )
  read, _ = load('tfds:preference_pairs/labels:train', data_dir=tmp_path)
  assert read == made
  with pytest.raises(DataError, match='mix pairs with unpaired'):
    tfds_source.prepare_tfds(
      {'train': tmp_path / 'a.jsonl', 'test': tmp_path / 'b.jsonl'},
      config='both',
      data_dir=tmp_path,
    )


class Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Somebody else's set, with other names and a column we do not use."""

  name = 'foreign_prefs'
  VERSION = tfds.core.Version('2.1.0')
  code_path = None

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'better': tfds.features.Text(),
          'worse': tfds.features.Text(),
          'turns': tfds.features.Sequence(tfds.features.Text()),
          'margin': np.float32,
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    head = '\n\nHuman: hi\n\nAssistant:'
    for key in range(3):
      row = {'better': f'{head} yes {key}', 'worse': f'{head} no {key}'}
      yield key, row | {'turns': ['a', 'b'], 'margin': 0.5}


def test_any_set_by_name_with_its_columns_mapped(tmp_path):
  builder = Foreign(data_dir=tmp_path, file_format='array_record')
  builder.download_and_prepare()
  names = {'chosen': 'better', 'rejected': 'worse'}
  read, report = load(
    'tfds:foreign_prefs:train', data_dir=tmp_path, columns=names
  )
  assert {r.chosen for r in read} == {' yes 0', ' yes 1', ' yes 2'}
  assert {r.group for r in read} == {'hi'}
  assert 'columns not used: margin, turns' in str(report)
  with pytest.raises(DataError) as caught:
    load('tfds:foreign_prefs:train', data_dir=tmp_path)
  message = str(caught.value)
  assert "tfds:foreign_prefs:train, row 1, field 'chosen'" in message
  assert 'columns=' in message
  names = {'chosen': 'turns', 'rejected': 'worse'}
  with pytest.raises(DataError, match=r'chosen\[0\].*must hold role and con'):
    load('tfds:foreign_prefs:train', data_dir=tmp_path, columns=names)


@pytest.mark.parametrize(
  ('name', 'split', 'problem'),
  [('no_such_set', 'train', 'not found'), ('made', 'dev', "split 'dev'")],
)
def test_unknown_sets_and_splits(tmp_path, name, split, problem):
  path = tmp_path / 'a.jsonl'
  path.write_text(json.dumps({'chosen': 'a', 'rejected': 'b'}))
  tfds_source.prepare_tfds({'train': path}, config='made', data_dir=tmp_path)
  name = f'preference_pairs/{name}' if name == 'made' else name
  with pytest.raises(DataError) as caught:
    tfds_source.open_tfds(name, split, tmp_path, download=False)
  assert f'tfds:{name}:{split}: TFDS cannot open it' in str(caught.value)
  assert problem in str(caught.value)
  assert 'Check name, split and data_dir' in str(caught.value)


@pytest.mark.shared
def test_hh_through_tfds(tmp_path):
  path = SHARED / 'data' / 'hh_rlhf' / 'harmless-base.test.jsonl.gz'
  tfds_source.prepare_tfds({'test': path}, config='hh', data_dir=tmp_path)
  read, _ = load('tfds:preference_pairs/hh:test', data_dir=tmp_path)
  assert read == read_file(path)[0]

import os

import pytest

from alignment.models.huggingface import folder_files
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.folder_files import (
  file_inside,
  parse_json,
  read_json,
)


@pytest.mark.parametrize(
  'name',
  ['', '.', '..', '../x', '/etc/passwd', 'a/b', 'a\\b', 'x\0', './x', None, 3],
)
def test_names_with_a_path_in_them(tmp_path, name):
  (tmp_path / 'x').write_text('{}')
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'b').write_text('{}')
  with pytest.raises(ModelError, match='not that of a file directly in'):
    file_inside(tmp_path / 'a', name)


def test_links_stay_in_the_folder(tmp_path):
  folder = tmp_path / 'model'
  folder.mkdir()
  (tmp_path / 'secret').write_text('{"a": 1}')
  (folder / 'real').write_text('{"b": 2}')
  (folder / 'inside').symlink_to('real')
  (folder / 'outside').symlink_to('../secret')
  (folder / 'twice').symlink_to('outside')
  (folder / 'dangling').symlink_to('nothing')
  (folder / 'loop').symlink_to('loop')
  assert read_json(folder, 'inside') == {'b': 2}
  for name in ('outside', 'twice'):
    with pytest.raises(ModelError, match='is a link to .*secret, out of'):
      read_json(folder, name)
  for name in ('dangling', 'loop'):
    with pytest.raises(ModelError, match='cannot be read'):
      read_json(folder, name)


def test_a_linked_folder_is_the_folder(tmp_path):
  folder = tmp_path / 'model'
  folder.mkdir()
  (folder / 'real').write_text('{}')
  (tmp_path / 'latest').symlink_to(folder)
  assert read_json(tmp_path / 'latest', 'real') == {}


def test_the_cache_of_the_hub_links_to_its_own_blobs(tmp_path):
  snapshot = tmp_path / 'models--a--b' / 'snapshots' / '0123'
  snapshot.mkdir(parents=True)
  blobs = tmp_path / 'models--a--b' / 'blobs'
  blobs.mkdir()
  (blobs / 'ff').write_text('{"a": 1}')
  (tmp_path / 'models--a--b' / 'refs').write_text('{}')
  (snapshot / 'config.json').symlink_to('../../blobs/ff')
  (snapshot / 'refs').symlink_to('../../refs')
  assert read_json(snapshot, 'config.json') == {'a': 1}
  with pytest.raises(ModelError, match='out of the folder'):
    read_json(snapshot, 'refs')


def test_only_regular_files_are_opened(tmp_path):
  os.mkfifo(tmp_path / 'pipe')  # opening it would wait for ever
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'null').symlink_to('/dev/null')
  for name in ('pipe', 'folder', 'null'):
    with pytest.raises(ModelError, match='no regular file|out of the folder'):
      read_json(tmp_path, name)


def test_long_files_are_not_parsed(tmp_path, monkeypatch):
  monkeypatch.setattr(folder_files, 'MAX_JSON', 20)
  (tmp_path / 'fits').write_text('{"a": "0123456789"}'.ljust(20))
  (tmp_path / 'long').write_text('{"a": "0123456789"}'.ljust(21))
  assert read_json(tmp_path, 'fits') == {'a': '0123456789'}
  with pytest.raises(ModelError, match='longer than 20 bytes'):
    read_json(tmp_path, 'long')


@pytest.mark.parametrize(
  ('text', 'problem'),
  [
    (b'{"a": 1', 'no valid JSON'),
    (b'', 'no valid JSON'),
    (b'\xff\xfe{', 'no valid JSON'),
    (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' is there twice"),
    (b'{"a": [NaN]}', 'NaN is no JSON number'),
    (b'{"a": -Infinity}', '-Infinity is no JSON number'),
    (b'{"a": 1' + b'0' * 5000 + b'}', 'no valid JSON'),
    (b'[{"a": 1}]', 'no object'),
    (b'3', 'no object'),
    (b'[' * 200_000, 'nested too deeply'),
    (b'{"a":' * 200_000, 'nested too deeply'),
  ],
)
def test_json_that_is_refused(text, problem):
  with pytest.raises(ModelError, match=f'^here: .*{problem}'):
    parse_json(text, 'here')

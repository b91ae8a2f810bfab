"""Run directories: atomic files, one config each, errors with a remedy."""

import errno
import json
import os

import pytest

from alignment.training import rundir, storage

CONFIG = {'loss': 'dpo', 'beta': 0.1, 'seeds': (1, 2), 'mesh': ''}
IDENTITY = {'loss': 'dpo', 'beta': 0.1, 'seeds': (1, 2)}


def test_open_run_writes_config_and_provenance(tmp_path):
  run = rundir.open_run(tmp_path / 'a' / 'b', CONFIG, IDENTITY)
  assert run.directory == tmp_path / 'a' / 'b'
  assert not run.is_resumed and not run.is_finished
  config = json.loads((run.directory / 'config.json').read_text())
  assert config['version'] == 1
  assert config['config']['seeds'] == [1, 2]
  (provenance,) = config['provenance']
  assert provenance['packages']['jax'] and provenance['python']
  assert set(provenance) == {'python', 'packages', 'git_commit'}


def test_the_same_identity_resumes_and_runtime_fields_may_change(tmp_path):
  rundir.open_run(tmp_path, CONFIG, IDENTITY)
  run = rundir.open_run(tmp_path, {**CONFIG, 'mesh': 'data=2'}, IDENTITY)
  assert run.is_resumed
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['config']['mesh'] == 'data=2'
  assert len(config['provenance']) == 1  # the same versions, once


def test_another_identity_is_refused_field_by_field(tmp_path):
  rundir.open_run(tmp_path, CONFIG, IDENTITY)
  before = (tmp_path / 'config.json').read_bytes()
  other = {**IDENTITY, 'loss': 'rdpo', 'noise': 'symmetric'}
  with pytest.raises(rundir.RunConflictError) as error:
    rundir.open_run(tmp_path, CONFIG, other)
  message = str(error.value)
  assert str(tmp_path) in message
  assert "loss: 'dpo' there, 'rdpo' now" in message
  assert "noise: '(absent)' there, 'symmetric' now" in message
  assert 'beta' not in message and 'seeds' not in message
  assert 'Choose another output_dir' in message
  assert (tmp_path / 'config.json').read_bytes() == before


def test_a_finished_run_says_so_and_keeps_its_result(tmp_path):
  run = rundir.open_run(tmp_path, CONFIG, IDENTITY)
  assert rundir.finish(run, {'accuracy': 0.75}).is_finished
  again = rundir.open_run(tmp_path, CONFIG, IDENTITY)
  assert again.is_finished and again.result == {'accuracy': 0.75}


@pytest.mark.parametrize(
  'text', ['{', '[]', '{"version": 1}', '{"identity": 3']
)
def test_a_broken_config_is_named(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(rundir.RunConflictError, match=r'config\.json.*delete'):
    rundir.open_run(tmp_path, CONFIG, IDENTITY)


def test_a_config_of_another_version_is_named(tmp_path):
  rundir.open_run(tmp_path, CONFIG, IDENTITY)
  config = json.loads((tmp_path / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps({**config, 'version': 9}))
  with pytest.raises(rundir.RunConflictError, match='version 9.*reads 1'):
    rundir.open_run(tmp_path, CONFIG, IDENTITY)


def test_an_unwritable_directory_is_named_with_a_remedy(tmp_path):
  # Permission bits do not stop root: a path below a regular file does, and a
  # pseudo file system.
  (tmp_path / 'file').write_text('')
  for path in (tmp_path / 'file' / 'run', '/proc/run'):
    with pytest.raises(storage.StorageError) as error:
      rundir.open_run(path, CONFIG, IDENTITY)
    assert str(path) in str(error.value)
    assert 'choose' in str(error.value)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'table.json'
  storage.write_json(path, {'a': 1})

  def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(storage.StorageError, match=r'table\.json: the disk is'):
    storage.write_json(path, {'a': 2})
  assert json.loads(path.read_text()) == {'a': 1}
  assert os.listdir(tmp_path) == ['table.json']


def test_json_refuses_nan(tmp_path):
  with pytest.raises(ValueError):
    storage.write_json(tmp_path / 'a.json', {'a': float('nan')})
  assert os.listdir(tmp_path) == []

"""Runs that are killed, starved or told to stop, and what is left of them."""

import errno
import itertools
import os
import random
import shutil
import subprocess
import time

import jax
import numpy as np
import pytest

from alignment.data import pipeline
from alignment.roles.learner import preference_objective
from alignment.training import storage, writers
from alignment.training.checkpoints import Checkpoints
from alignment.training.loop import train
from alignment.training.mesh import jit_step
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step
from alignment.types import Frozen
from tests.roles import worlds
from tests.training import toys

# Resuming.


def _preference_run(directory, num_steps):
  """DPO on shuffled pairs: the state after `num_steps`, the examples seen."""
  optimizer = make_optimizer(
    learning_rate=0.05, schedule='cosine', warmup_steps=1, num_steps=4
  )
  objective = preference_objective(worlds.MODEL, 'dpo')
  step = jit_step(make_step(objective, optimizer, microbatches=2))
  state = init_state(worlds.MODEL.init(jax.random.key(0)), optimizer)
  seen = []

  def batches(start_step):
    for batch in pipeline.batches(
      worlds.pairs(11),
      batch_size=4,
      seed=5,
      start_step=start_step,
      row_multiple=2,
    ):
      seen.append(sorted(batch.examples.index.ravel().tolist()))
      yield batch

  checkpoints = Checkpoints(directory)
  state = train(
    step,
    state,
    worlds.frozen(beta=0.3),
    batches,
    num_steps=num_steps,
    key=jax.random.key(1),
    checkpoints=checkpoints,
    save_interval=2,
  )
  checkpoints.close()
  return state, seen


def test_four_steps_are_two_a_resume_and_two_bitwise(tmp_path):
  # The third batch begins the second, reshuffled epoch.
  whole, seen = _preference_run(tmp_path / 'whole', 4)
  _, first = _preference_run(tmp_path / 'parts', 2)
  parts, second = _preference_run(tmp_path / 'parts', 4)
  assert (len(first), len(second)) == (2, 2)
  assert first + second == seen
  toys.assert_same(whole, parts)


# Killing.

SAVING = """
import itertools, sys
import numpy as np
from alignment.training.checkpoints import Checkpoints

checkpoints = Checkpoints(sys.argv[1])
found = checkpoints.restore({'x': np.zeros(200_000)})
start = 0 if found is None else found[0]
print('start', start, flush=True)
for step in itertools.count(start + 1):
  values = np.random.default_rng(step).normal(size=200_000)
  checkpoints.save(step, {'x': values}, {'step': step})
  print('saving', step, flush=True)
"""


def _kill_while_saving(directory, kills):
  rng = random.Random(0)
  newest = 0
  for _ in range(kills):
    process = toys.python(SAVING, directory)
    line = process.stdout.readline()
    assert line.startswith('start'), process.communicate()[1]
    # What had been restored could not be older than what was seen before.
    assert int(line.split()[1]) >= newest
    process.stdout.readline()  # one save has begun
    time.sleep(rng.uniform(0, 0.25))
    process.kill()
    process.communicate()
    checkpoints = Checkpoints(directory)
    found = checkpoints.restore({'x': np.zeros(200_000)})
    checkpoints.close()
    if found is None:  # killed before the very first save was complete
      assert newest == 0
      continue
    step, tree, metadata = found
    assert step >= newest and metadata == {'step': step}
    expected = np.random.default_rng(step).normal(size=200_000)
    np.testing.assert_array_equal(tree['x'], expected)
    newest = step
  return newest


def test_a_run_killed_while_saving_can_be_restored(tmp_path):
  assert _kill_while_saving(tmp_path, 2) > 0


@pytest.mark.slow
def test_a_run_killed_ten_times_while_saving_can_be_restored(tmp_path):
  assert _kill_while_saving(tmp_path, 10) > 0


# Full disks, and directories that cannot be written.


def _assert_full(error, directory):
  message = str(error.value)
  assert message.startswith(f'{directory}: the disk is full')
  assert 'free space or choose' in message


def _wait_for_files(directory, names):
  deadline = time.monotonic() + 10
  while sorted(os.listdir(directory)) != names:
    assert time.monotonic() < deadline, os.listdir(directory)
    time.sleep(0.01)


def _large(seed):
  return {'x': np.random.default_rng(seed).normal(size=200_000)}  # 1.6 MB


def _fail_once(monkeypatch, name):
  real, failures = getattr(os, name), [errno.ENOSPC]

  def fail_once(*arguments, **options):
    if failures:
      number = failures.pop()
      raise OSError(number, os.strerror(number))
    return real(*arguments, **options)

  monkeypatch.setattr(os, name, fail_once)


def test_a_full_disk_while_a_save_is_completed(tmp_path, monkeypatch):
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, _large(1))
  checkpoints.wait()

  for name in ('rename', 'replace'):
    _fail_once(monkeypatch, name)
  with pytest.raises(storage.StorageError) as error:
    checkpoints.save(2, _large(2))
    checkpoints.wait()
  _assert_full(error, tmp_path)
  assert checkpoints.steps() == [1]
  _wait_for_files(tmp_path, ['1'])  # what the failed save took is free again
  toys.assert_same(checkpoints.restore(_large(0))[1], _large(1))
  checkpoints.save(2, _large(2))  # there is space again
  assert checkpoints.restore(_large(0))[0] == 2
  checkpoints.close()


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 4 MB."""
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(disk)]
  if not shutil.which('mount') or subprocess.run(mount).returncode:
    pytest.skip('no permission to mount a small file system')
  yield disk
  subprocess.run(['umount', '-l', str(disk)], check=True)


def test_a_disk_that_fills_up_while_training(small_disk):
  directory = small_disk / 'checkpoints'
  checkpoints = Checkpoints(directory)
  state = toys.fresh().replace(extra=_large(0))

  def step(state, frozen, batch, key):
    done = state.step + 1
    return state.replace(step=done, extra=_large(int(done))), {}

  with pytest.raises(storage.StorageError) as error:
    train(
      step,
      state,
      Frozen(),
      toys.batches,
      num_steps=9,
      key=toys.KEY,
      checkpoints=checkpoints,
      save_interval=1,
    )
  _assert_full(error, directory)
  step, restored, _ = checkpoints.restore(state)
  checkpoints.close()
  assert step == 2
  toys.assert_same(restored.extra, _large(2))
  _wait_for_files(directory, ['1', '2'])


def test_a_row_that_no_longer_fits_on_the_disk(small_disk):
  writer = writers.jsonl_writer(small_disk / 'metrics.jsonl')
  with pytest.raises(
    storage.StorageError, match=r'metrics\.jsonl: the disk is'
  ):
    for step in itertools.count(1):
      writer.write(step, {'loss': 1.0, 'cell': 'x' * 100_000})


@pytest.mark.parametrize('where', ['under a file', '/proc/checkpoints'])
def test_an_unwritable_directory(tmp_path, where):
  # Permission bits do not stop root; these do.
  (tmp_path / 'file').write_text('')
  path = tmp_path / 'file' / 'run' if where == 'under a file' else where
  with pytest.raises(storage.StorageError) as error:
    Checkpoints(path)
  assert str(error.value).startswith(f'{path}: ')
  assert 'choose' in str(error.value)

"""SIGTERM: save, exit with status 0, resume to the same end."""

import json
import os
import signal
import socket
import time

import jax
import pytest

from alignment.training.checkpoints import Checkpoints
from alignment.training.loop import train
from alignment.training.preemption import Preempted, preemption
from alignment.types import Frozen
from tests.training import toys

TRAINING = """
import sys
import jax
from alignment.training import writers
from alignment.training.checkpoints import Checkpoints
from alignment.training.loop import train
from alignment.training.preemption import preemption
from alignment.types import Frozen
from tests.training import toys

directory, num_steps = sys.argv[1], int(sys.argv[2])
checkpoints = Checkpoints(directory + '/checkpoints')
writer = writers.jsonl_writer(directory + '/metrics.jsonl')
with preemption() as should_stop:
  print('ready', flush=True)
  train(
    jax.jit(toys.toy_step), toys.fresh(), Frozen(), toys.batches,
    num_steps=num_steps, key=toys.KEY, writer=writer, log_interval=10,
    checkpoints=checkpoints, should_stop=should_stop,
  )
print('finished')
"""


def _wait_for_rows(path, count, process):
  deadline = time.monotonic() + 60
  while not path.exists() or path.read_text().count('\n') < count:
    assert process.poll() is None, process.communicate()[1]
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_sigterm_saves_exits_zero_and_resumes_to_the_same_end(tmp_path):
  metrics = tmp_path / 'metrics.jsonl'
  process = toys.python(TRAINING, tmp_path, 10**9)
  _wait_for_rows(metrics, 3, process)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0, err
  assert out.split() == ['ready']  # what follows the loop was not run
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  stopped = checkpoints.steps()[-1]
  checkpoints.close()
  num_steps = stopped + 15

  process = toys.python(TRAINING, tmp_path, num_steps)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0 and 'finished' in out, err
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  step, resumed, _ = checkpoints.restore(toys.fresh())
  checkpoints.close()
  assert step == num_steps
  # On one device here as there: the same program, to the last bit.
  with jax.default_device(jax.devices()[0]):
    whole = train(
      jax.jit(toys.toy_step),
      toys.fresh(),
      Frozen(),
      toys.batches,
      num_steps=num_steps,
      key=toys.KEY,
    )
  toys.assert_same(whole, resumed)
  steps = [json.loads(line)['step'] for line in metrics.open()]
  assert steps == sorted(set(steps)) and steps[-1] == num_steps


def test_sigterm_reaches_a_loop_and_the_old_handler_returns():
  calls = []
  previous = signal.signal(signal.SIGTERM, lambda *_: calls.append('old'))
  try:
    with pytest.raises(Preempted), preemption() as should_stop:
      assert not should_stop(0)
      train(
        jax.jit(toys.toy_step),
        toys.fresh(),
        Frozen(),
        toys.batches,
        num_steps=10**9,
        key=toys.KEY,
        stops={3: lambda step, state: os.kill(os.getpid(), signal.SIGTERM)},
        should_stop=should_stop,
      )
    assert calls == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ['old']
  finally:
    signal.signal(signal.SIGTERM, previous)


DISTRIBUTED = """
import sys
import jax
index, address, directory, num_steps = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from alignment.training.checkpoints import Checkpoints
from alignment.training.loop import train
from alignment.training.preemption import preemption
from alignment.types import Frozen
from tests.training import toys

mesh = jax.make_mesh((2,), ('data',), axis_types=(AxisType.Auto,))
whole = NamedSharding(mesh, PartitionSpec())
rows = NamedSharding(mesh, PartitionSpec('data'))

def batches(start):
  mine = slice(2 * int(index), 2 * int(index) + 2)
  for batch in toys.batches(start):
    yield jax.tree.map(
      lambda x: jax.make_array_from_process_local_data(rows, x), batch[mine]
    )

state = jax.tree.map(
  lambda x: jax.make_array_from_process_local_data(whole, np.asarray(x)),
  toys.fresh(),
)
step = jax.jit(toys.toy_step, out_shardings=(whole, whole))
checkpoints = Checkpoints(directory)
with preemption() as should_stop:
  state = train(
    step, state, Frozen(), batches, num_steps=int(num_steps), key=toys.KEY,
    stops={5: lambda step, state: print('five', flush=True)},
    checkpoints=checkpoints, should_stop=should_stop,
  )
print('finished', np.asarray(state.params['w'].addressable_data(0)).tolist())
"""


def _two_processes(directory, num_steps):
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{probe.getsockname()[1]}'
  return [
    toys.python(DISTRIBUTED, index, address, directory, num_steps)
    for index in range(2)
  ]


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_saves_the_same_step_on_both(tmp_path):
  processes = _two_processes(tmp_path, 10**9)
  for process in processes:
    lines = iter(process.stdout.readline, '')  # the transport prints as well
    assert 'five\n' in lines, process.communicate()[1]
  processes[1].send_signal(signal.SIGTERM)
  for process in processes:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0 and 'finished' not in out, err
  checkpoints = Checkpoints(tmp_path)
  (stopped,) = checkpoints.steps()
  checkpoints.close()
  ends = []
  for directory in (tmp_path, tmp_path / 'whole'):
    outputs = []
    for process in _two_processes(directory, stopped + 10):
      outputs.append(process.communicate(timeout=90))
      assert process.returncode == 0, outputs[-1][1]
    ends += [out.splitlines()[-1] for out, _ in outputs]
  assert ends[0].startswith('finished') and len(set(ends)) == 1

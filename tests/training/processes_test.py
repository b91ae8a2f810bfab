"""Two processes on one machine: the same step over a shared mesh."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

WORKER = """
import sys
import jax
port, process, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
if count > 1:
  jax.distributed.initialize(f'localhost:{port}', count, process)
import numpy as np
from alignment.roles.learner import preference_objective
from alignment.training import mesh as meshes
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step
from tests.roles.worlds import MODEL, batch_of, frozen, pairs

optimizer = make_optimizer(name='sgd', learning_rate=1.0)
objective = preference_objective(MODEL, 'dpo', aggregate='dr_dpo')
mesh = meshes.make_mesh('data=2,fsdp=2')
state = init_state(MODEL.init(jax.random.key(0)), optimizer)
shardings = meshes.state_shardings(state, mesh, min_size=0)
state = meshes.place(state, shardings)
step = meshes.jit_step(make_step(objective, optimizer), mesh, shardings)
rows = np.array_split(np.arange(16), count)[process]
batch = jax.tree.map(lambda x: x[rows], batch_of(pairs(13)))
for _ in range(2):
  placed = meshes.place_batch(batch, mesh)
  state, metrics = step(state, frozen(beta=0.5), placed, jax.random.key(0))
print('RESULT', float(metrics['loss'].mean()), float(metrics['grad_norm']))
"""


def results(count: int) -> list[tuple[float, float]]:
  """What every process prints, with four devices in all."""
  with socket.socket() as found:
    found.bind(('localhost', 0))
    port = str(found.getsockname()[1])
  flag = f'--xla_force_host_platform_device_count={4 // count}'
  environment = {**os.environ, 'XLA_FLAGS': flag, 'JAX_PLATFORMS': 'cpu'}
  workers = [
    subprocess.Popen(
      [sys.executable, '-c', WORKER, port, str(i), str(count)],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(count)
  ]
  found = []
  for worker in workers:
    out, err = worker.communicate(timeout=240)
    assert worker.returncode == 0, err[-3000:]
    line = next(x for x in out.splitlines() if x.startswith('RESULT'))
    found.append(tuple(map(float, line.split()[1:])))
  return found


@pytest.mark.slow
def test_two_processes_are_one():
  (alone,) = results(1)
  first, second = results(2)
  assert first == second
  # The same four shards; only the order of the reductions may differ.
  np.testing.assert_allclose(first, alone, rtol=1e-5)

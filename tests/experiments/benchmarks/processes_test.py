"""Worker processes: turns, stops, answers, failures; none of it needs JAX."""

import pathlib
import sys
import time

import numpy as np
import pytest

from experiments.benchmarks import worker
from experiments.benchmarks.processes import Worker, WorkerError
from experiments.benchmarks.workload import Side, Work
from experiments.report.timing import Seconds

WORK = Work('ours', 'dpo', 'tiny', 'none', threads=3)
FAKE = """#!{python}
import json, os, sys
assert sys.argv[1:3] == ['-m', 'experiments.benchmarks.worker']
work = json.loads(sys.argv[3])
print('a warning', file=sys.stderr)
print(json.dumps({{'cpu': 7.5, 'threads': os.environ['OMP_NUM_THREADS'],
  'cache': [k for k in os.environ if 'COMPILATION_CACHE' in k]}}), flush=True)
for line in sys.stdin:
  command = json.loads(line)
  if command.get('step') == 3:
    sys.exit('out of memory, say')
  print(json.dumps({{'wall': 1.5 * command.get('step', 0), 'cpu': 2.0,
    'asked': command}}), flush=True)
"""


@pytest.fixture
def fake(tmp_path):
  """A Python that plays the worker."""
  path = tmp_path / 'python'
  path.write_text(FAKE.format(python=sys.executable))
  path.chmod(0o755)
  return str(path)


def state_of(process) -> str:
  stat = pathlib.Path(f'/proc/{process.pid}/stat').read_text()
  return stat.rpartition(')')[2].split()[0]


def test_turns(fake, tmp_path, monkeypatch):
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', '/elsewhere')
  with Worker('fake', WORK, tmp_path / 'log', fake) as process:
    assert process.started['threads'] == '3'
    assert process.started['cache'] == []
    assert process.start_up.cpu == 7.5 and 0 < process.start_up.wall < 60
    assert process.step(2) == Seconds(3.0, 2.0)
    assert process.ask(memory=True)['asked'] == {'memory': True}
    inner = process._process
    if sys.platform == 'linux':
      for _ in range(100):  # a signal takes a moment to arrive
        if state_of(inner) == 'T':
          break
        time.sleep(0.01)
      assert state_of(inner) == 'T'
    assert process.step(4) == Seconds(6.0, 2.0)
  assert inner.poll() is not None


def test_a_process_that_dies_says_why(fake, tmp_path):
  with Worker('fake', WORK, tmp_path / 'log', fake) as process:
    with pytest.raises(WorkerError, match='fake.*a warning.*out of memory'):
      process.step(3)
  with pytest.raises(WorkerError, match='nothing'):
    Worker('true', WORK, tmp_path / 'log', '/bin/true')


def test_answers():
  done = []

  def product(dtype, n):
    done.append((dtype, n))
    return lambda: time.sleep(1e-3)

  side = Side(
    step=lambda index: np.float32(index / 4),
    device='abacus',
    packages=(),
    device_memory=lambda: None,
    matmul=product,
    copy=lambda size: lambda: time.sleep(1e-2),
  )
  taken = worker.reply(side, {'step': 3})
  assert taken['value'] == 0.75 and taken['wall'] >= 0
  memory = worker.reply(side, {'memory': True})
  # What this very process holds: more than nothing, less than the machine.
  assert 2**24 < memory['peak_rss'] < 2**40
  assert memory['device_memory'] is None
  peaks = worker.reply(side, {'peaks': True})
  largest = max(n for _, n in done)
  for value in peaks['matmul'].values():
    assert 0.3 < value / (2 * largest**3 / 1e-3) <= 1
  assert 0.3 < peaks['copy'] / (2**28 / 1e-2) <= 1


def test_time_is_that_of_the_step():
  taken = worker.timed(lambda index: time.sleep(0.05) or index, 7)
  assert 0.05 <= taken['wall'] < 5 and taken['cpu'] < 0.04
  assert taken['value'] == 7

"""Contenders in processes of their own, one at work at a time.

Between its turns a process is stopped: threads of some libraries go on
spinning after their work is done, and would slow down whoever comes next.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from experiments.benchmarks.workload import Work
from experiments.report.timing import Seconds

ROOT = pathlib.Path(__file__).resolve().parents[2]
_MODULE = 'experiments.benchmarks.worker'


class WorkerError(ValueError):
  """A contender's process that ended or said what it should not."""


class Worker:
  """A started contender; `with` ends it.

  Attributes:
    name: of the contender.
    start_up: seconds from its process's start to the end of its first step.
    started: what it says of its start (`worker.main`).
  """

  def __init__(
    self, name: str, work: Work, log: pathlib.Path, python: str = sys.executable
  ):
    """Starts the process and waits for its first step.

    Args:
      name: of the contender.
      work: its settings.
      log: file for whatever it prints.
      python: its interpreter.

    Raises:
      WorkerError: it does not start; with the last lines it printed.
    """
    self.name = name
    self._log = log
    began = time.perf_counter()
    with log.open('wb') as said:
      self._process = subprocess.Popen(
        [python, '-m', _MODULE, work.to_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        cwd=ROOT,
        env=_environment(work),
        # A group of its own: should this process be killed, the kernel wakes
        # stopped processes of the group it leaves behind, and they end.
        process_group=0,
      )
    try:
      self.started = self._answer()
    except BaseException:
      self.close()
      raise
    wall = time.perf_counter() - began
    self.start_up = Seconds(wall, self.started['cpu'])
    self._signal('SIGSTOP')

  def __enter__(self) -> Worker:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def step(self, index: int) -> Seconds:
    """One step on batch `index`."""
    taken = self.ask(step=index)
    return Seconds(taken['wall'], taken['cpu'])

  def ask(self, **command: Any) -> dict[str, Any]:
    """Sends a command and returns the answer; see `worker`."""
    self._signal('SIGCONT')
    try:
      self._process.stdin.write(json.dumps(command).encode() + b'\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # the answer, or its lack, says why
    answer = self._answer()
    self._signal('SIGSTOP')
    return answer

  def close(self) -> None:
    """Ends the process at once; it holds nothing worth saving."""
    self._process.kill()
    self._process.wait()
    self._process.stdin.close()
    self._process.stdout.close()

  def _answer(self) -> dict[str, Any]:
    line = self._process.stdout.readline()
    try:
      return json.loads(line)
    except ValueError as error:
      said = self._log.read_text(errors='replace').strip().splitlines()[-4:]
      raise WorkerError(
        f'the process of {self.name} gave no answer; it said: '
        f'{" / ".join(said) or "nothing"}'
      ) from error

  def _signal(self, name: str) -> None:
    number = getattr(signal, name, None)  # Windows has neither
    if number is not None and self._process.poll() is None:
      os.kill(self._process.pid, number)


def _environment(work: Work) -> dict[str, str]:
  """Ours, with as many threads as asked for and no cache of others."""
  changed = {
    'PYTHONPATH': str(ROOT),
    # Several contenders share an accelerator.
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'TOKENIZERS_PARALLELISM': 'false',
    'HF_HUB_OFFLINE': '1',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  if work.threads:
    changed['OMP_NUM_THREADS'] = str(work.threads)
  kept = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith('JAX_COMPILATION_CACHE')
  }
  return kept | changed

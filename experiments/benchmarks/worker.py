"""One contender in a process of its own: `python -m … worker <work as JSON>`.

It builds, takes a first step, and then answers one JSON line per JSON line:

  -> {"step": i}      <- {"wall": seconds, "cpu": seconds, "value": loss}
  -> {"memory": 1}    <- {"peak_rss": bytes, "device_memory": bytes or null}
  -> {"peaks": 1}     <- {"matmul": {dtype: FLOP/s}, "copy": bytes/s}

The first line it writes tells of its start. The end of its input ends it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pathlib
import re
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks.workload import Side, Work

SIDES = {
  'ours': 'experiments.benchmarks.ours',
  'trl': 'experiments.benchmarks.trl_side',
  'tunix': 'experiments.benchmarks.tunix_side',
  'transformers': 'experiments.benchmarks.transformers_side',
}
"""Side -> module whose `start(work)` gives a `Side`."""

_MATMULS = {'host': (1024, 2048), 'accelerator': (4096, 8192)}
_COPY = {'host': 2**28, 'accelerator': 2**32}


def main(argument: str) -> None:
  """Answers until its input ends."""
  # Whatever libraries print goes to standard error, not among the answers.
  answers = os.fdopen(os.dup(1), 'w', buffering=1)
  os.dup2(2, 1)
  work = Work.from_json(argument)
  if work.threads:
    confine(work.threads)
  side = importlib.import_module(SIDES[work.side]).start(work)
  answer = {
    'device': side.device,
    'versions': {p: importlib.metadata.version(p) for p in side.packages},
    'first': timed(side.step, 0),
    'cpu': time.process_time(),
  }
  print(json.dumps(answer), file=answers)
  for line in sys.stdin:
    print(json.dumps(reply(side, json.loads(line))), file=answers)


def reply(side: Side, command: dict[str, Any]) -> dict[str, Any]:
  """The answer to one command."""
  if 'step' in command:
    return timed(side.step, command['step'])
  if 'memory' in command:
    return {'peak_rss': peak_rss(), 'device_memory': side.device_memory()}
  return peaks(side)


def timed(step: Callable[[int], float], index: int) -> dict[str, float]:
  """Seconds of one step on the wall and of all threads of this process."""
  started = time.perf_counter(), time.process_time()
  value = float(step(index))
  wall = time.perf_counter() - started[0]
  return {
    'wall': wall,
    'cpu': time.process_time() - started[1],
    'value': value,
  }


def peaks(side: Side) -> dict[str, Any]:
  """The best matrix products and the best copy seen here."""
  kind = 'host' if side.device_memory() is None else 'accelerator'
  matmul = {
    dtype: max(2 * n**3 / _best(side.matmul(dtype, n)) for n in _MATMULS[kind])
    for dtype in ('float32', 'bfloat16')
  }
  size = _COPY[kind]
  return {'matmul': matmul, 'copy': size / _best(side.copy(size))}


def peak_rss() -> int:
  """Most bytes this process has held.

  Not `ru_maxrss` where there is another way: a new program inherits that of
  the process that started it.
  """
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    found = re.search(r'VmHWM:\s+(\d+) kB', status.read_text())
    if found:
      return int(found[1]) * 1024
  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return most if sys.platform == 'darwin' else most * 1024


def confine(threads: int) -> None:
  """Leaves this process the first `threads` of its cores, where it can."""
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _best(call: Callable[[], Any]) -> float:
  """Least seconds of a few calls after one to warm up."""
  call()
  best = float('inf')
  for _ in range(5):
    started = time.perf_counter()
    call()
    best = min(best, time.perf_counter() - started)
  return best


if __name__ == '__main__':
  main(sys.argv[1])

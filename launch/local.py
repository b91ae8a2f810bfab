"""Runs a grid of one experiment on this machine.

  python -m launch.local --experiment=noisy_dpo --output_dir=runs/sweep \\
    --sweep='loss=dpo,rdpo|ipo; flip_rate=0.2|0.4; seeds=5'

`;` separates flags, `|` the values of one flag, a comma belongs to its value;
the grid is every combination (four runs here). Each run has a folder of its
own under --output_dir, named after its flags, with what it prints in log.txt.
The same command resumes: finished runs are skipped. SIGTERM and Ctrl-C reach
the runs, which save and stop. Exit status 0: every run finished, or saved when
asked to stop; 1: some run did not; 2: nothing was started.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from alignment.training import storage
from launch.preflight import preflight
from launch.sweep import Point, grid


def run_grid(
  module: str,
  points: Sequence[Point],
  output_dir: pathlib.Path,
  environments: Sequence[dict[str, str]],
) -> bool:
  """Runs the points, as many at a time as there are environments.

  Fills in their status and seconds.

  Returns:
    Whether it was asked to stop.
  """
  is_stopping = False

  def stop(*_) -> None:
    nonlocal is_stopping
    is_stopping = True

  before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
  idle, running, told = list(environments), {}, set()
  waiting = [p for p in points if not _is_finished(output_dir, p)]
  for point in points:
    if point not in waiting:
      point.status = 'finished before'
  try:
    while running or (waiting and not is_stopping):
      while waiting and idle and not is_stopping:
        point, environment = waiting.pop(0), idle.pop(0)
        process = _start(module, point, output_dir, environment)
        running[process] = point, environment, time.monotonic()
        print(f'start  {point.name}', flush=True)
      time.sleep(0.1)
      for process in list(running):
        if is_stopping and process not in told:
          process.terminate()
          told.add(process)
        if process.poll() is not None:
          point, environment, since = running.pop(process)
          idle.append(environment)
          point.seconds = time.monotonic() - since
          point.status = _status(output_dir, point, process.returncode)
          print(f'end    {point.name}  {point.status}', flush=True)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  return is_stopping


def main(arguments: Sequence[str] | None = None) -> int:
  """Parses the flags and runs the grid; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog='python -m launch.local',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--experiment', required=True, help='a file of experiments/, no suffix')
  add('--output_dir', required=True, help='where the runs are written')
  add('--sweep', default='', help='flag=value|value; flag=value')
  add('--slots', type=int, default=1, help='runs at a time')
  add('--min_free_gb', type=float, default=1.0, help='free disk asked for')
  given = parser.parse_args(arguments)
  # A dotted name is any other module that takes the flags of an experiment.
  name = given.experiment
  module = name if '.' in name else f'experiments.{name}'
  try:
    if given.slots < 1:
      raise ValueError(f'--slots={given.slots}: must be at least 1')
    points = grid(given.sweep)
    output_dir = storage.make_directory(given.output_dir)
    environments = preflight(
      module,
      points,
      output_dir,
      slots=given.slots,
      min_free_gb=given.min_free_gb,
    )
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  was_stopped = run_grid(module, points, output_dir, environments)
  width = max(len(point.name) for point in points)
  for point in points:
    print(f'{point.name:<{width}}  {point.seconds:7.0f} s  {point.status}')
  good = ('finished', 'finished before')
  good += ('stopped', 'not started') if was_stopped else ()
  return int(any(point.status not in good for point in points))


def _start(module, point, output_dir, environment) -> subprocess.Popen:
  folder = output_dir / point.name
  folder.mkdir(exist_ok=True)
  flags = {**point.flags, 'output_dir': folder}
  with open(folder / 'log.txt', 'a', encoding='utf-8') as log:
    # A session of its own: Ctrl-C reaches this process, which asks politely.
    return subprocess.Popen(
      [sys.executable, '-m', module, *(f'--{k}={v}' for k, v in flags.items())],
      stdout=log,
      stderr=subprocess.STDOUT,
      env={**os.environ, **environment},
      start_new_session=True,
    )


def _is_finished(output_dir: pathlib.Path, point: Point) -> bool:
  return (output_dir / point.name / 'finished.json').exists()


def _status(output_dir: pathlib.Path, point: Point, code: int) -> str:
  if code == 0:
    return 'finished' if _is_finished(output_dir, point) else 'stopped'
  log = (output_dir / point.name / 'log.txt').read_text(errors='replace')
  last = (log.strip() or 'it printed nothing').splitlines()[-1]
  return f'failed with status {code}: {last}'


if __name__ == '__main__':
  sys.exit(main())

"""What would stop a run, found before any is started."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence

from launch.sweep import Point

_PROBE = """
import importlib.metadata, json, platform, jax
packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
versions = {name: importlib.metadata.version(name) for name in packages}
print(json.dumps({
  'backend': jax.default_backend(),
  'devices': [str(device) for device in jax.local_devices()],
  'versions': {'python': platform.python_version(), **versions},
}))
"""


def preflight(
  module: str,
  points: Sequence[Point],
  output_dir: pathlib.Path,
  *,
  slots: int,
  min_free_gb: float,
) -> list[dict[str, str]]:
  """Checks the disk, the flags, the versions and the devices; prints them.

  Args:
    module: whose `--help` lists the flags.
    points: the grid.
    output_dir: exists and can be written.
    slots: runs at a time.
    min_free_gb: what the disk must have free, 10⁹ bytes.

  Returns:
    One environment per slot: on GPUs every slot sees its share of them.

  Raises:
    ValueError: the remedy is in the message.
  """
  free = shutil.disk_usage(output_dir).free / 1e9
  if free < min_free_gb:
    raise ValueError(
      f'{output_dir}: {free:.1f} GB free, --min_free_gb={min_free_gb:g}; '
      'free space or choose another disk'
    )
  known = re.findall(r'^  --(\w+)', _output(['-m', module, '--help']), re.M)
  for flag in points[0].flags:
    if flag not in known:
      raise ValueError(f'{module} has no flag --{flag}; it has {known}')
  # In a process of its own: a launcher that held the accelerator would keep
  # it from the runs.
  machine = json.loads(_output(['-c', _PROBE]).splitlines()[-1])
  versions = ', '.join(f'{k} {v}' for k, v in machine['versions'].items())
  devices = machine['devices']
  print(f'{versions}\n{machine["backend"]}: {", ".join(devices)}')
  print(f'{output_dir}: {free:.0f} GB free')
  if slots == 1 or machine['backend'] == 'cpu':
    return [{}] * slots
  if machine['backend'] != 'gpu' or slots > len(devices):
    raise ValueError(
      f'--slots={slots}: want 1, or at most one per GPU '
      f'({len(devices)} {machine["backend"]} devices)'
    )
  seen = os.environ.get('CUDA_VISIBLE_DEVICES')
  ids = seen.split(',') if seen else [str(i) for i in range(len(devices))]
  return [
    {'CUDA_VISIBLE_DEVICES': ','.join(ids[i::slots])} for i in range(slots)
  ]


def _output(arguments: Sequence[str]) -> str:
  done = subprocess.run(
    [sys.executable, *arguments], capture_output=True, text=True
  )
  if done.returncode:
    why = (done.stderr.strip() or 'no message').splitlines()[-1]
    raise ValueError(f'python {" ".join(arguments[:2])} fails: {why}')
  return done.stdout

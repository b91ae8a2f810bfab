"""The commands that a text tells its reader to run."""

import dataclasses
import importlib
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXPERIMENTS = sorted(
  path.stem
  for path in (ROOT / 'experiments').glob('*.py')
  if path.stem not in ('__init__', 'common')
)


def commands(text: str) -> list[tuple[str, list[str]]]:
  """(module, names of its flags) of every `python -m module --flags`."""
  joined = text.replace('\\\n', ' ')
  return [
    (module, re.findall(r'--(\w+)', rest))
    for module, rest in re.findall(r'python -m ([\w.]+)([^`\n]*)', joined)
  ]


def flags_of(experiment: str) -> set[str]:
  """The flags of `experiments.<experiment>`."""
  config = importlib.import_module(f'experiments.{experiment}').Config
  return {f.name for f in dataclasses.fields(config)}

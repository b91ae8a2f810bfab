"""Floors, cycles and forbidden imports, read from the source itself."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FLOORS = {
  'alignment.types': 0,
  'alignment.metrics': 1,
  'alignment.losses': 1,
  'alignment.noise': 2,
  'alignment.models': 2,
  'alignment.data': 3,
  'alignment.tasks': 3,
  'alignment.training': 4,
  'alignment.roles': 5,
  'alignment.protocols': 6,
  'experiments': 7,
  'launch': 8,
}
"""Package -> floor; a module imports from lower floors and its own package."""
FORBIDDEN = ('torch', 'tensorflow', 'pickle', 'dill', 'cloudpickle')
ONLY_IN_MODELS = ('flax.linen', 'flax.nnx')
MAX_LINES = 400
SHARED = ('experiments.common', 'experiments.report', 'experiments.benchmarks')
"""What experiments may import; the last holds the cases of `benchmark`."""


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
  """Dotted name -> file of every module of the project under `root`."""
  found = {}
  for top in ('alignment', 'experiments', 'launch'):
    for path in sorted((root / top).rglob('*.py')):
      parts = path.relative_to(root).with_suffix('').parts
      name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
      found[name] = path
  return found


def imports(path: pathlib.Path, known: set[str]) -> Iterator[tuple[int, str]]:
  """(line, module) of every import; `from a import b` is a.b if a module."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}:{node.lineno}: relative import'
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        third_party = full in (*FORBIDDEN, *ONLY_IN_MODELS)
        yield node.lineno, full if full in known or third_party else node.module


def package_of(module: str) -> str | None:
  """The entry of FLOORS that a module belongs to; None outside of them."""
  for package in FLOORS:
    if module == package or module.startswith(f'{package}.'):
      return package
  return None


def offences(root: pathlib.Path) -> list[str]:
  """One line per broken rule: file:line, and what is wrong."""
  known = modules(root)
  found, edges = [], {}
  for name, path in known.items():
    where = path.relative_to(root)
    edges[name] = set()
    for line, target in imports(path, set(known)):
      if target in known:
        edges[name].add(target)
      for problem in _import_problems(name, target):
        found.append(f'{where}:{line}: {problem}')
    if path.stem in ('utils', 'util', 'helpers', 'misc'):
      found.append(f'{where}:1: name the file for what it holds')
    length = len(path.read_text(encoding='utf-8').splitlines())
    if length > MAX_LINES:
      found.append(f'{where}:{length}: longer than {MAX_LINES} lines')
  return found + [f'cycle: {" -> ".join(cycle)}' for cycle in _cycles(edges)]


def _import_problems(name: str, target: str) -> Iterator[str]:
  here, there = package_of(name), package_of(target)
  if there and here and there != here and FLOORS[there] >= FLOORS[here]:
    yield f'{name} (floor {FLOORS[here]}) imports {target} ({FLOORS[there]})'
  if here == there == 'experiments' and not name.startswith(SHARED):
    if not target.startswith(SHARED) and target not in (name, 'experiments'):
      yield f'experiments never import each other: {target}'
  for module in FORBIDDEN:
    if target == module or target.startswith(f'{module}.'):
      yield f'{module} is not used at run time'
  for module in ONLY_IN_MODELS:
    inside = name.startswith('alignment.models')
    if not inside and (target == module or target.startswith(f'{module}.')):
      yield f'only alignment.models knows {module}'


def _cycles(edges: dict[str, set[str]]) -> list[list[str]]:
  done, cycles = set(), []

  def visit(name: str, path: list[str]) -> None:
    if name in path:
      cycles.append([*path[path.index(name) :], name])
    elif name not in done:
      for target in sorted(edges[name] - {name}):
        visit(target, [*path, name])
      done.add(name)

  for name in edges:
    visit(name, [])
  return cycles


def test_the_project_keeps_its_floors():
  assert not offences(ROOT), '\n'.join(offences(ROOT))


def test_every_package_has_a_floor():
  homeless = [
    name
    for name in modules(ROOT)
    if name != 'alignment' and package_of(name) is None
  ]
  assert not homeless


@pytest.mark.parametrize(
  ('file', 'source', 'complaint'),
  [
    ('losses/a.py', 'from alignment.training import b', 'floor 1'),
    ('noise/a.py', 'import alignment.models.b', 'floor 2'),
    ('training/a.py', 'from flax import linen', 'flax.linen'),
    ('training/a.py', 'import torch.nn', 'torch'),
    ('data/a.py', 'import pickle', 'pickle'),
    ('data/utils.py', '', 'name the file'),
    ('data/a.py', '\n' * 401, 'longer'),
    ('data/a.py', 'from alignment.data import b', 'cycle'),
  ],
)
def test_offences_are_found(tmp_path, file, source, complaint):
  for package in ('losses', 'noise', 'models', 'data', 'training'):
    folder = tmp_path / 'alignment' / package
    folder.mkdir(parents=True)
    (folder / '__init__.py').write_text('')
    (folder / 'b.py').write_text(
      'from alignment.data import a' if package == 'data' else ''
    )
    (folder / 'a.py').write_text('')
  assert not offences(tmp_path)
  (tmp_path / 'alignment' / file).write_text(source)
  assert any(complaint in line for line in offences(tmp_path))


def test_experiments_do_not_import_each_other(tmp_path):
  (tmp_path / 'experiments').mkdir()
  for name in ('common', 'report', 'one'):
    (tmp_path / 'experiments' / f'{name}.py').write_text('')
  (tmp_path / 'experiments' / 'two.py').write_text(
    'from experiments import common, report'
  )
  assert not offences(tmp_path)
  (tmp_path / 'experiments' / 'two.py').write_text('import experiments.one')
  assert 'never import each other' in offences(tmp_path)[0]

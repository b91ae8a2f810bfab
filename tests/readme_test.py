"""What the README says is so: commands, flags, files, the table of losses."""

import importlib.util
import re

import numpy as np
import pytest

from alignment.losses import table
from launch import local
from tests.commands import EXPERIMENTS, ROOT, commands, flags_of

README = (ROOT / 'README.md').read_text(encoding='utf-8')
DOCUMENTS = {
  name: (ROOT / name).read_text(encoding='utf-8')
  for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')
}
OURS = ('alignment', 'experiments', 'launch', 'tests', 'notebooks')
OURS += ('constraints', '.ci', '.github')


def test_the_table_of_losses_is_current(tmp_path):
  copy = tmp_path / 'README.md'
  copy.write_text(README, encoding='utf-8')
  table.rewrite(copy)
  assert copy.read_text(encoding='utf-8') == README, (
    'run: python -m alignment.losses.table README.md'
  )


def test_a_readme_without_marks_is_refused(tmp_path):
  (tmp_path / 'README.md').write_text('# No marks')
  with pytest.raises(ValueError, match='lacks the lines'):
    table.rewrite(tmp_path / 'README.md')


def test_the_first_two_blocks_are_whole():
  blocks = re.findall(r'^```sh\n(.*?)^```$', README, re.M | re.S)
  assert len(blocks) >= 2
  for block, last in zip(
    blocks,
    ('python -m experiments.noisy_dpo', 'python -m pytest'),
    strict=False,
  ):
    lines = block.splitlines()
    assert lines[0] == 'python3 -m venv .venv'
    assert lines[1] == '. .venv/bin/activate'
    assert lines[2].startswith('pip install')
    (pins,) = re.findall(r'-c (\S+)', lines[2])
    assert (ROOT / pins).is_file()
    assert lines[-1].startswith(last)


def test_the_python_example_runs():
  (example,) = re.findall(r'^```python\n(.*?)^```$', README, re.M | re.S)
  rng = np.random.default_rng(5)
  names = re.findall(r'\w+_logps', example)
  given = {name: rng.normal(-20, 3, size=6) for name in names}
  given |= {'weights': rng.uniform(0, 2, size=6), 'z': rng.normal(size=4)}
  exec(example, given)
  assert given['losses'].shape == (6,)
  assert given['term'].total.shape == ()


@pytest.mark.parametrize('name', DOCUMENTS)
def test_commands_name_modules_and_flags_that_exist(name, capsys):
  with pytest.raises(SystemExit):
    local.main(['--help'])
  launcher = set(re.findall(r'--(\w+)', capsys.readouterr().out))
  for module, flags in commands(DOCUMENTS[name]):
    package, _, experiment = module.partition('.')
    if package == 'experiments':
      assert set(flags) <= flags_of(experiment), module
    elif module == 'launch.local':
      assert set(flags) <= launcher
    elif package in OURS:
      assert importlib.util.find_spec(module)


@pytest.mark.parametrize('name', DOCUMENTS)
def test_flags_in_the_prose_exist(name):
  known = set().union(*map(flags_of, EXPERIMENTS)) | {'help'}
  for flag in re.findall(r'`--(\w+)', DOCUMENTS[name]):
    assert flag in known, flag


@pytest.mark.parametrize('name', DOCUMENTS)
def test_files_exist(name):
  text = DOCUMENTS[name]
  linked = re.findall(r'\]\((?!https?:|#)([^)\s]+)\)', text)
  quoted = [
    path
    for path in re.findall(r'`([\w.]+/[\w./]*)`', text)
    if path.split('/')[0] in OURS
  ]
  for path in linked + quoted:
    assert (ROOT / path).exists(), path

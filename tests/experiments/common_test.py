"""Flags from a config: parsing, help, run directories, one-line errors."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Literal

import jax
import pytest
from absl import flags

from experiments import common
from experiments.common import field

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Every(common.MeshConfig):
  """A field of every kind."""

  steps: int = field(160, 'Updates.')
  beta: float = field(0.1, 'Strength of the anchor.')
  data: str = field('', 'A file.')
  exact: bool = field(True, 'Whether to enumerate.')
  packing: Literal['shared', 'padded'] = field('shared', 'Layout.')
  flip_rate: tuple[float, ...] = field((0.0, 0.25), 'Shares in [0, 0.5).')
  loss: tuple[str, ...] = field(('dpo', 'rdpo'), 'Losses.')
  stops: tuple[int, ...] = field((), 'Steps.')
  kinds: tuple[Literal['a', 'b'], ...] = field(('a',), 'Choices.')
  clip: float | None = field(None, 'Largest gradient norm.')
  only: tuple[int, ...] | None = field(None, 'Seeds.')
  threads: int = field(0, 'Cells at a time.', runtime=True)


@pytest.fixture
def parse():
  """(config type, flags) -> config; the flags are forgotten afterwards."""
  before = set(flags.FLAGS)

  def parsed(config_type, *given):
    common.define_flags(config_type)
    flags.FLAGS(['program', *given])
    return common.from_flags(config_type)

  yield parsed
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


def test_no_flags_give_the_defaults(parse):
  assert parse(Every) == Every()


@pytest.mark.parametrize(
  ('given', 'name', 'value'),
  [
    ('--steps=3', 'steps', 3),
    ('--beta=2.5e-3', 'beta', 2.5e-3),
    ('--data=a b.jsonl', 'data', 'a b.jsonl'),
    ('--noexact', 'exact', False),
    ('--exact=false', 'exact', False),
    ('--packing=padded', 'packing', 'padded'),
    ('--flip_rate=0.1,.3', 'flip_rate', (0.1, 0.3)),
    ('--flip_rate=', 'flip_rate', ()),
    ('--loss=ipo', 'loss', ('ipo',)),
    ('--loss= ipo , gce,', 'loss', ('ipo', 'gce')),
    ('--stops=5,10', 'stops', (5, 10)),
    ('--kinds=b,a', 'kinds', ('b', 'a')),
    ('--clip=1', 'clip', 1.0),
    ('--only=4', 'only', (4,)),
    ('--threads=2', 'threads', 2),
    ('--output_dir=here', 'output_dir', 'here'),
  ],
)
def test_every_kind_of_flag(parse, given, name, value):
  config = parse(Every, given)
  assert getattr(config, name) == value
  assert config == dataclasses.replace(Every(), **{name: value})


@pytest.mark.parametrize(
  ('given', 'complaint'),
  [
    ('--stops=5,x', '--stops=5,x: want a comma list of int'),
    ('--flip_rate=0.1;0.2', 'want a comma list of float'),
    ('--kinds=a,c', "'c' is none of a, b"),
  ],
)
def test_bad_lists_are_refused(parse, given, complaint):
  with pytest.raises(ValueError, match=complaint):
    parse(Every, given)


@pytest.mark.parametrize(
  'given', ['--steps=1.5', '--exact=maybe', '--packing=loose', '--beta=big']
)
def test_bad_values_are_refused(parse, given):
  with pytest.raises(flags.IllegalFlagValueError, match=given[2:7]):
    parse(Every, given)


def test_a_type_without_a_flag_is_refused():
  @dataclasses.dataclass(frozen=True)
  class Odd(common.Config):
    odd: dict = field(None, 'No flag can say this.')

  before = set(flags.FLAGS)
  with pytest.raises(TypeError, match='no flag for the field odd'):
    common.define_flags(Odd)
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


def test_identity_is_what_is_run_not_how():
  there = common.identity(Every())
  assert {'steps', 'loss', 'only'} < there.keys()
  of_all = {f.name for f in dataclasses.fields(common.MeshConfig)}
  assert not there.keys() & of_all
  assert 'threads' not in there
  assert common.identity(Every(threads=3, output_dir='x')) == there
  assert common.identity(Every(steps=3)) != there


def test_default_output_dir_tells_runs_apart():
  plain = common.default_output_dir(Every())
  assert plain == 'runs/common_test'
  other = common.default_output_dir(Every(loss=('dpo',)))
  assert other.startswith(f'{plain}-')
  assert other == common.default_output_dir(Every(loss=('dpo',), threads=2))
  assert other != common.default_output_dir(Every(loss=('ipo',)))


def test_open_run_writes_the_config_and_refuses_another(tmp_path):
  config = Every(output_dir=str(tmp_path / 'run'), flip_rate=(0.3,))
  opened = common.open_run(config)
  written = json.loads((opened.directory / 'config.json').read_text())
  assert written['config']['flip_rate'] == [0.3]
  assert written['identity'] == json.loads(json.dumps(common.identity(config)))
  assert common.open_run(dataclasses.replace(config, threads=9)).is_resumed
  with pytest.raises(ValueError, match='flip_rate'):
    common.open_run(dataclasses.replace(config, flip_rate=(0.2,)))


def test_open_run_without_output_dir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert common.open_run(Every()).directory == tmp_path / 'runs/common_test'


def test_compiled_programs_are_kept(monkeypatch):
  kept = {}
  monkeypatch.setattr(jax.config, 'update', kept.__setitem__)
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'somewhere')
  common.keep_compiled_programs('~/cache')
  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
  common.keep_compiled_programs('')
  assert not kept
  common.keep_compiled_programs('~/cache')
  folder = kept['jax_compilation_cache_dir']
  assert folder == str(pathlib.Path.home() / 'cache' / 'compiled')
  assert kept['jax_persistent_cache_min_compile_time_secs'] == 0


EXPERIMENT = r'''"""Does it rain?

The card says what is measured.
"""
import dataclasses
from experiments import common
from experiments.common import field

@dataclasses.dataclass(frozen=True)
class Config(common.Config):
  rate: float = field(0.25, 'Share of wet days, in [0, 1].')
  loss: tuple[str, ...] = field(('dpo', 'ipo'), 'Losses to compare.')
  clip: float | None = field(None, 'Largest norm.')

def run(config):
  if config.rate > 1:
    raise ValueError(f'rate={config.rate}:\n must be in [0, 1]')
  if config.rate == -1:
    raise KeyboardInterrupt
  if config.rate == -2:
    raise FloatingPointError('the loss is not finite')
  print(common.open_run(config).directory.name)

if __name__ == '__main__':
  common.main(Config, run)
'''
CALLS = {
  'good': ['--rate=0.5', '--output_dir=out'],
  'unnamed': [],
  'help': ['--rate=0.5', '--help'],
  'unknown': ['--ratte=1'],
  'positional': ['--debug', 'true'],
  'illegal': ['--rate=wet'],
  'error': ['--rate=2'],
  'debug': ['--rate=2', '--debug'],
  'interrupt': ['--rate=-1'],
  'diverged': ['--rate=-2'],
}


DRIVER = r"""
import json, os, runpy, sys
from experiments import common  # imported once; every call is a fork

statuses = {}
for name, given in json.loads(sys.argv[1]).items():
  child = os.fork()
  if not child:
    for number, stream in ((1, 'out'), (2, 'err')):
      file = os.open(f'{name}.{stream}', os.O_CREAT | os.O_WRONLY)
      os.dup2(file, number)
    sys.argv[1:] = given
    runpy.run_module('rain', run_name='__main__', alter_sys=True)
    sys.exit(0)
  statuses[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(statuses))
"""


@pytest.fixture(scope='module')
def called(tmp_path_factory):
  """Call name -> ((standard output, standard error), exit status)."""
  folder = tmp_path_factory.mktemp('experiment')
  (folder / 'rain.py').write_text(EXPERIMENT)
  driver = subprocess.run(
    [sys.executable, '-c', DRIVER, json.dumps(CALLS)],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{folder}'},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert driver.returncode == 0, driver.stderr
  return {
    name: (
      tuple((folder / f'{name}.{end}').read_text() for end in ('out', 'err')),
      status,
    )
    for name, status in json.loads(driver.stdout).items()
  }


def test_a_run_that_ends_well(called):
  (out, err), status = called['good']
  assert (status, out, err) == (0, 'out\n', '')
  (out, _), status = called['unnamed']
  assert (status, out) == (0, 'rain\n')


def test_help_teaches(called):
  (out, err), status = called['help']
  assert status == 0 and not err
  assert out.startswith('Does it rain?')
  what, how = out.split('Flags that say how')
  for text in (
    '--rate=0.25',
    'Share of wet days, in [0, 1].',
    '--loss=dpo,ipo',
    'A comma list.',
    '--clip(unset)',
  ):
    assert text in what
  assert '--output_dir=' in how and '--debug=false' in how
  assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
  ('name', 'expected', 'complaint'),
  [
    ('unknown', 2, 'ratte'),
    ('positional', 2, "unexpected 'true'"),
    ('illegal', 2, '--rate=wet'),
    ('error', 2, 'rate=2.0: must be in [0, 1]'),
    ('diverged', 1, 'the loss is not finite'),
  ],
)
def test_an_error_is_one_line(called, name, expected, complaint):
  (out, err), status = called[name]
  assert status == expected and not out
  assert err.startswith('error: ') and err.count('\n') == 1
  assert complaint in err


def test_debug_shows_the_traceback(called):
  (_, err), status = called['debug']
  assert status not in (0, 2)
  assert 'Traceback' in err and 'in run' in err


def test_an_interrupted_run_says_so(called):
  (_, err), status = called['interrupt']
  assert (status, err) == (130, 'interrupted; the same command resumes\n')

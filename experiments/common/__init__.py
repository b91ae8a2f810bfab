"""From a frozen `Config` to absl flags, a run directory and clear errors.

A field of a config is one flag: its type gives the flag's kind, its metadata
the help. Fields marked `runtime` say how a run is carried out and may change
when it is resumed; all others are its identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np
from absl import app, flags, logging

from alignment.protocols.base_models import BaseModels
from alignment.training import rundir
from alignment.training.checkpoints import CheckpointError

HELP = {'--help', '-help', '-h', '--helpshort', '--helpfull'}


def field(
  default: Any, help: str, *, within: str = '', runtime: bool = False
) -> Any:
  """A config field with the help of its flag.

  Args:
    default: the flag's default.
    help: one sentence, with its unit.
    within: the interval of a number, or of each number of a tuple, such as
      `[0, 0.5)` or `[1, inf)`; its flag's help ends in it.
    runtime: True where a resumed run may change it (where, how, how verbose).
  """
  if within:
    help = f'{help} Within {within}.'
  metadata = {'help': help, 'within': within, 'runtime': runtime}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags every experiment has."""

  output_dir: str = field(
    '',
    'Where the run is written; a run found there is resumed, a finished one '
    'is not repeated. Empty: runs/<experiment>, and a suffix of its own for '
    'every combination of flags.',
    runtime=True,
  )
  cache_dir: str = field(
    '~/.cache/superalignment',
    'Where compiled programs and base models are kept; empty keeps none.',
    runtime=True,
  )
  debug: bool = field(
    False, 'Show the traceback of an error instead of one line.', runtime=True
  )

  def __post_init__(self):
    """Refuses numbers outside their interval and repeated entries.

    Raises:
      ValueError: naming the flag, its value and the interval.
    """
    for f in dataclasses.fields(self):
      value = getattr(self, f.name)
      entries = value if isinstance(value, tuple) else (value,)
      given = f'--{f.name}={",".join(map(_plain, entries))}'
      if len(set(entries)) < len(entries):
        raise ValueError(f'{given}: names the same twice')
      interval = f.metadata['within']
      if interval and not all(e is None or _lies(e, interval) for e in entries):
        raise ValueError(f'{given}: must be within {interval}')


@dataclasses.dataclass(frozen=True)
class MeshConfig(Config):
  """The flags of experiments that train on several devices."""

  mesh: str = field(
    '',
    'Device mesh such as data=4,fsdp=2,tensor=1; -1 infers an axis. Empty: '
    'one device.',
    runtime=True,
  )


def own_help(own: Mapping[str, Mapping[str, Any]], flag: str) -> str:
  """The part of a flag's help that says what it is when it is not given.

  Args:
    own: where -> flag -> value.
    flag: whose help.
  """
  texts = [
    f'{",".join(map(_plain, np.ravel(values[flag]).tolist()))} ({where})'
    for where, values in own.items()
    if flag in values
  ]
  return f'If not given: {"; ".join(texts)}.'


def fill(
  config: Config, own: Mapping[str, Mapping[str, Any]], where: str
) -> Config:
  """The config with every flag that was not given as it is `where`.

  The run directory stays that of the flags as they were given.

  Args:
    config: None or () where a flag was not given.
    own: where -> flag -> value.
    where: a key of `own`.

  Raises:
    ValueError: a flag that was given and that has no use there.
  """
  missing = {}
  for flag in {flag: None for values in own.values() for flag in values}:
    given = getattr(config, flag) not in (None, ())
    if given and flag not in own[where]:
      places = ' and '.join(k for k, values in own.items() if flag in values)
      raise ValueError(
        f'--{flag}={getattr(config, flag)}: not used by {where}, only by '
        f'{places}'
      )
    if not given and flag in own[where]:
      missing[flag] = own[where][flag]
  directory = config.output_dir or default_output_dir(config)
  return dataclasses.replace(config, output_dir=directory, **missing)


def identity(config: Config) -> dict[str, Any]:
  """The fields that make two runs the same run."""
  return {
    f.name: getattr(config, f.name)
    for f in dataclasses.fields(config)
    if not f.metadata.get('runtime')
  }


def open_run(config: Config) -> rundir.Run:
  """Creates or resumes the run's output directory and writes `config.json`.

  Raises:
    rundir.RunConflictError: a run of another identity is there.
    storage.StorageError: the directory cannot be written.
  """
  return rundir.open_run(
    config.output_dir or default_output_dir(config),
    dataclasses.asdict(config),
    identity(config),
  )


def is_finished(run: rundir.Run) -> bool:
  """Shows the report of a finished run; False where there is work to do."""
  if run.is_finished:
    print((run.directory / 'report.md').read_text(encoding='utf-8'))
    print(f'{run.directory} holds a finished run: nothing was repeated.')
  return run.is_finished


def default_output_dir(config: Config) -> str:
  """`runs/<experiment>`; a digest follows if its identity is not the default.

  The same flags find the same directory again, other flags another one.
  """
  name = program(config).rpartition('.')[2]
  here = identity(config)
  if here == identity(type(config)()):
    return f'runs/{name}'
  digest = hashlib.sha256(json.dumps(here, sort_keys=True).encode())
  return f'runs/{name}-{digest.hexdigest()[:8]}'


def program(config: Config) -> str:
  """The module of the experiment, such as `experiments.sft`."""
  module = type(config).__module__
  if module == '__main__' and sys.modules['__main__'].__spec__:
    module = sys.modules['__main__'].__spec__.name
  return module


def main(config_type: type[Config], run: Callable[[Config], Any]) -> None:
  """Parses the flags, calls `run(config)`, and turns errors into one line.

  Call it under `if __name__ == '__main__':` only. Exit status: 0 after a run
  that finished, or that was asked to stop and saved; 1 for one that diverged
  or whose checkpoints are all damaged; 2 for a bad flag or bad input; 130
  after Ctrl-C.
  """
  define_flags(config_type)

  def start(_: list[str]) -> None:
    # Orbax reports every stage of every save as information.
    logging.set_verbosity(logging.WARNING)
    try:
      config = from_flags(config_type)
      keep_compiled_programs(config.cache_dir)
      run(config)
    except (ValueError, OSError, FloatingPointError, CheckpointError) as error:
      if flags.FLAGS['debug'].value:
        raise
      is_input = isinstance(error, (ValueError, OSError))
      _fail(f'{error} (--debug shows where)', 2 if is_input else 1)
    except KeyboardInterrupt:
      if flags.FLAGS['debug'].value:
        raise
      print('interrupted; the same command resumes', file=sys.stderr)
      sys.exit(130)

  card = sys.modules['__main__'].__doc__ or ''
  app.run(start, flags_parser=_parser(card, config_type))


def define_flags(config_type: type[Config]) -> None:
  """Defines one absl flag per field of `config_type`.

  Raises:
    TypeError: a field whose type has no flag.
  """
  for f, hint in _fields(config_type):
    _define(f, hint)


def from_flags(config_type: type[Config]) -> Config:
  """Builds the config from parsed flags.

  Raises:
    ValueError: a comma list with an entry of the wrong type.
  """
  values = {}
  for f, hint in _fields(config_type):
    value = flags.FLAGS[f.name].value
    if typing.get_origin(hint) is tuple and value is not None:
      value = _as_tuple(f.name, value, typing.get_args(hint)[0])
    values[f.name] = value
  return config_type(**values)


def keep_compiled_programs(cache_dir: str) -> None:
  """Keeps compiled programs between runs; must precede the first compile.

  Args:
    cache_dir: they go into its folder `compiled`; empty keeps none. The
      environment's JAX_COMPILATION_CACHE_DIR goes before it.
  """
  if not cache_dir or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  folder = pathlib.Path(cache_dir).expanduser() / 'compiled'
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def base_models(config: Config, identity: str) -> BaseModels | None:
  """The folder of base models under `cache_dir`; None where there is none.

  Args:
    config: of the experiment.
    identity: what params mean: the model's config, as text.
  """
  if not config.cache_dir:
    return None
  folder = pathlib.Path(config.cache_dir).expanduser() / 'base_models'
  return BaseModels(folder, identity)


def _fields(
  config_type: type[Config],
) -> Iterable[tuple[dataclasses.Field, Any]]:
  """Every field with its type; `T | None` counts as T."""
  hints = typing.get_type_hints(config_type)
  for f in dataclasses.fields(config_type):
    hint = hints[f.name]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
      kinds = [a for a in typing.get_args(hint) if a is not type(None)]
      hint = kinds[0] if len(kinds) == 1 else hint
    yield f, hint


def _define(f: dataclasses.Field, hint: Any) -> None:
  text = f.metadata['help']
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  simple = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
  }
  if hint in simple:
    simple[hint](f.name, f.default, text)
  elif origin is Literal and all(isinstance(a, str) for a in args):
    flags.DEFINE_enum(f.name, f.default, list(args), text)
  elif origin is tuple and len(args) == 2 and args[1] is ...:
    default = f.default
    if default is not None:
      default = ','.join(_plain(value) for value in default)
    flags.DEFINE_string(f.name, default, text)
  else:
    raise TypeError(f'no flag for the field {f.name}: {hint}')


def _lies(value: float, interval: str) -> bool:
  low, high = map(float, interval[1:-1].split(','))
  excluded = [low] * (interval[0] == '(') + [high] * (interval[-1] == ')')
  return low <= value <= high and value not in excluded


def _plain(value: Any) -> str:
  return f'{value:g}' if isinstance(value, float) else str(value)


def _as_tuple(name: str, text: str, kind: Any) -> tuple:
  """The entries of a comma list; blanks around them and empty ones go."""
  parts = [part.strip() for part in text.split(',') if part.strip()]
  if typing.get_origin(kind) is Literal:
    allowed = typing.get_args(kind)
    for part in parts:
      if part not in allowed:
        raise ValueError(
          f'--{name}={text}: {part!r} is none of {", ".join(allowed)}'
        )
    return tuple(parts)
  try:
    return tuple(kind(part) for part in parts)
  except ValueError:
    raise ValueError(
      f'--{name}={text}: want a comma list of {kind.__name__}'
    ) from None


def _parser(
  card: str, config_type: type[Config]
) -> Callable[[list[str]], list[str]]:
  """A flags parser whose --help teaches: the card, then the flags."""

  def parse(argv: list[str]) -> list[str]:
    if HELP & set(argv):
      print(f'{card.strip()}\n\n{_help_of(config_type)}')
      sys.exit(0)
    try:
      rest = flags.FLAGS(argv)
    except flags.Error as error:
      _fail(f'{error} (--help lists the flags)')
    if len(rest) > 1:
      _fail(f'unexpected {rest[1]!r}: a flag is --name=value (--help lists)')
    return rest

  return parse


def _fail(message: str, status: int = 2) -> typing.NoReturn:
  """Ends the program with one line on standard error."""
  print(f'error: {" ".join(message.split())}', file=sys.stderr)
  sys.exit(status)


def _help_of(config_type: type[Config]) -> str:
  what, how = [], []
  for f, hint in _fields(config_type):
    (how if f.metadata['runtime'] else what).append(_flag_help(f, hint))
  return '\n'.join(
    ['Flags that say what is run (a resumed run must keep them):', *what]
    + ['\nFlags that say how (a resumed run may change them):', *how]
  )


def _flag_help(f: dataclasses.Field, hint: Any) -> str:
  text = f.metadata['help']
  kind = hint
  if typing.get_origin(hint) is tuple:
    kind = typing.get_args(hint)[0]
    text = f'{text} A comma list.'
  if typing.get_origin(kind) is Literal:
    text = f'{text} One of: {", ".join(typing.get_args(kind))}.'
  value = flags.FLAGS[f.name].value
  given = '(unset)' if value is None else f'={value}'
  if hint is bool:
    given = f'={str(value).lower()}'
  body = textwrap.fill(
    text, 78, initial_indent=' ' * 6, subsequent_indent=' ' * 6
  )
  return f'  --{f.name}{given}\n{body}'

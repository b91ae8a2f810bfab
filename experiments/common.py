"""From a frozen `Config` to absl flags, a run directory and clear errors.

A field of a config is one flag: its type gives the flag's kind, its metadata
the help. Fields marked `runtime` say how a run is carried out and may change
when it is resumed; all others are its identity.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from absl import app, flags


def field(default: Any, help: str, *, runtime: bool = False) -> Any:
  """A config field with the help of its flag.

  Args:
    default: the flag's default.
    help: one sentence, with unit and range.
    runtime: True where a resumed run may change it (where, how, how verbose).
  """
  metadata = {'help': help, 'runtime': runtime}
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
  """The flags every experiment has."""

  output_dir: str = field(
    '', 'Where the run is written; a run found there is resumed.', runtime=True
  )
  mesh: str = field(
    '',
    'Device mesh such as data=4,fsdp=2,tensor=1; -1 infers an axis. Empty: '
    'one device.',
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


def identity(config: Config) -> dict[str, Any]:
  """The fields that make two runs the same run."""
  return {
    f.name: getattr(config, f.name)
    for f in dataclasses.fields(config)
    if not f.metadata.get('runtime')
  }


def define_flags(config_type: type[Config]) -> None:
  """Defines one absl flag per field of `config_type`.

  Raises:
    TypeError: a field whose type has no flag.
  """
  hints = typing.get_type_hints(config_type)
  for f in dataclasses.fields(config_type):
    _define(f, hints[f.name])


def from_flags(config_type: type[Config]) -> Config:
  """Builds the config from parsed flags."""
  hints = typing.get_type_hints(config_type)
  values = {}
  for f in dataclasses.fields(config_type):
    value = flags.FLAGS[f.name].value
    if typing.get_origin(hints[f.name]) is tuple:
      value = _as_tuple(f.name, value, typing.get_args(hints[f.name])[0])
    values[f.name] = value
  return config_type(**values)


def main(config_type: type[Config], run: Callable[[Config], Any]) -> None:
  """Parses the flags, calls `run(config)`, and turns errors into one line.

  Call it under `if __name__ == '__main__':` only. Exit status: 0 after a run
  that finished or that was asked to stop and saved; 2 for a bad flag or bad
  input.
  """
  module = sys.modules['__main__']
  define_flags(config_type)

  def start(argv: list[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f'unexpected argument {argv[1]!r}; flags need --')
    try:
      config = from_flags(config_type)
      keep_compiled_programs(config.cache_dir)
      run(config)
    except (ValueError, OSError) as error:
      if flags.FLAGS['debug'].value:
        raise
      print(f'error: {error}', file=sys.stderr)
      sys.exit(2)

  app.run(start, flags_parser=_parser(module.__doc__ or '', config_type))


def keep_compiled_programs(cache_dir: str) -> None:
  """Keeps compiled programs between runs; must precede the first compile."""
  import jax

  if not cache_dir or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return
  folder = pathlib.Path(cache_dir).expanduser() / 'compiled'
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _define(f: dataclasses.Field, hint: Any) -> None:
  text = f.metadata['help']
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):  # T | None
    hint = next(a for a in args if a is not type(None))
    origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal:
    flags.DEFINE_enum(f.name, f.default, list(args), text)
  elif origin is tuple:
    default = ','.join(_plain(v) for v in f.default)
    flags.DEFINE_string(f.name, default, text)
  elif hint is bool:
    flags.DEFINE_bool(f.name, f.default, text)
  elif hint is int:
    flags.DEFINE_integer(f.name, f.default, text)
  elif hint is float:
    flags.DEFINE_float(f.name, f.default, text)
  elif hint is str:
    flags.DEFINE_string(f.name, f.default, text)
  else:
    raise TypeError(f'no flag for the field {f.name}: {hint}')


def _plain(value: Any) -> str:
  return f'{value:g}' if isinstance(value, float) else str(value)


def _as_tuple(name: str, text: str, kind: type) -> tuple:
  parts = [part.strip() for part in text.split(',') if part.strip()]
  try:
    return tuple(kind(part) for part in parts)
  except ValueError:
    raise ValueError(
      f'--{name}={text}: want a comma list of {kind.__name__}'
    ) from None


def _parser(
  doc: str, config_type: type[Config]
) -> Callable[[list[str]], list[str]]:
  """A flags parser whose --help teaches: the card, then the flags."""

  def parse(argv: list[str]) -> list[str]:
    if {'--help', '-h', '-help', '--helpshort', '--helpfull'} & set(argv):
      print(f'{doc.strip()}\n')
      print(_help_of(config_type))
      sys.exit(0)
    try:
      return flags.FLAGS(argv)
    except flags.Error as error:
      print(f'error: {error}; --help lists the flags', file=sys.stderr)
      sys.exit(2)

  return parse


def _help_of(config_type: type[Config]) -> str:
  fields = dataclasses.fields(config_type)
  what = [_flag_help(f) for f in fields if not f.metadata['runtime']]
  how = [_flag_help(f) for f in fields if f.metadata['runtime']]
  return '\n'.join(
    ['Flags that say what is run (a resumed run must keep them):', *what]
    + ['\nFlags that say how (a resumed run may change them):', *how]
  )


def _flag_help(f: dataclasses.Field) -> str:
  flag = flags.FLAGS[f.name]
  text = f.metadata['help']
  if getattr(flag.parser, 'enum_values', None):
    text = f'{text} One of: {", ".join(flag.parser.enum_values)}.'
  if isinstance(f.default, tuple):
    text = f'{text} A comma list.'
  indent = ' ' * 6
  body = textwrap.fill(
    text, 78, initial_indent=indent, subsequent_indent=indent
  )
  return f'  --{f.name}={flag.value}\n{body}'

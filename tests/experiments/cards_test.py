"""Every experiment is a card: documented, commanded, and quiet on import."""

import ast
import importlib

import pytest
from absl import flags

from experiments import common
from tests.commands import EXPERIMENTS, ROOT, commands, flags_of


@pytest.fixture(params=EXPERIMENTS)
def name(request):
  return request.param


def test_the_commands_of_the_card_work(name):
  card = importlib.import_module(f'experiments.{name}').__doc__
  told = commands(card)
  assert told, 'the card names no command'
  for module, given in told:
    assert module == f'experiments.{name}'
    assert given and set(given) <= flags_of(name)


def test_flags_are_defined_under_main_only(name):
  source = (ROOT / 'experiments' / f'{name}.py').read_text(encoding='utf-8')
  closing = ast.unparse(ast.parse(source).body[-1])
  assert closing == ("if __name__ == '__main__':\n    common.main(Config, run)")
  importlib.import_module(f'experiments.{name}')
  assert 'output_dir' not in flags.FLAGS


def test_every_field_has_a_flag_and_a_sentence(name):
  config_type = importlib.import_module(f'experiments.{name}').Config
  before = set(flags.FLAGS)
  try:
    common.define_flags(config_type)
    common_flags = set(flags.FLAGS) - before
    assert common_flags == flags_of(name)
    for flag in common_flags:
      assert flags.FLAGS[flag].help.endswith('.'), flag
  finally:
    for flag in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, flag)

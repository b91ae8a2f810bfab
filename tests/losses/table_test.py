"""The README's table comes from the dictionaries."""

import pytest

from alignment.losses import pointwise, reward
from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
)
from alignment.losses.table import loss_table


def _of_pointwise(functions):
  return lambda name: pointwise.hyperparameters(functions[name])


DICTIONARIES = {
  'loss': (METHODS, hyperparameters),
  'aggregate': (AGGREGATES, aggregate_hyperparameters),
  'reward-model loss': (reward.REWARD, reward.hyperparameters),
  'classification loss': (
    pointwise.CLASSIFICATION,
    _of_pointwise(pointwise.CLASSIFICATION),
  ),
  'unpaired loss': (pointwise.UNPAIRED, _of_pointwise(pointwise.UNPAIRED)),
}


def _read():
  """kind -> name -> row, in the order of the text."""
  rows, kind = {}, ''
  for line in loss_table().splitlines():
    if line.startswith('| `'):
      rows[kind][line.split('`')[1]] = line
    elif line.startswith('| '):
      kind = line.split(' | ')[0].removeprefix('| ')
      rows[kind] = {}
  return rows


_ROWS = _read()
_ENTRIES = [
  (kind, name) for kind, (names, _) in DICTIONARIES.items() for name in names
]


@pytest.mark.parametrize('kind, name', _ENTRIES)
def test_every_row_has_description_equation_hyperparameters_and_source(
  kind, name
):
  row = _ROWS[kind][name]
  cells = [cell.strip() for cell in row.split(' | ')]
  assert len(cells) == 5
  assert len(cells[1]) > 8 and '\n' not in row
  assert '=' in cells[2] or 'loss' in cells[2] or 'label' in cells[2]
  for key, value in DICTIONARIES[kind][1](name).items():
    assert f'{key}={value}' in cells[3]
  if name != 'mean':
    assert any(year in cells[4] for year in ('19', '20'))


def test_what_only_data_can_give_is_named_without_a_default():
  forward = _ROWS['classification loss']['forward'].split(' | ')[3]
  assert forward == 'transition'
  kto = _ROWS['unpaired loss']['kto'].split(' | ')[3]
  assert kto.startswith('reference_point, beta=0.1')


def test_there_is_nothing_else_in_it():
  assert list(_ROWS) == list(DICTIONARIES)
  for kind, (names, _) in DICTIONARIES.items():
    assert list(_ROWS[kind]) == list(names)

"""The README's table comes from the dictionaries."""

import pytest

from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
)
from alignment.losses.table import loss_table

_ROWS = {
  line.split('`')[1]: line
  for line in loss_table().splitlines()
  if line.startswith('| `')
}


@pytest.mark.parametrize('name', [*METHODS, *AGGREGATES])
def test_every_row_has_description_equation_hyperparameters_and_source(name):
  cells = [cell.strip() for cell in _ROWS[name].split(' | ')]
  assert len(cells) == 5
  assert len(cells[1]) > 8 and '\n' not in _ROWS[name]
  assert '=' in cells[2] or 'loss' in cells[2]
  known = (
    hyperparameters(name)
    if name in METHODS
    else aggregate_hyperparameters(name)
  )
  for key, value in known.items():
    assert f'{key}={value}' in cells[3]
  if name != 'mean':
    assert any(year in cells[4] for year in ('19', '20'))


def test_there_is_nothing_else_in_it():
  assert list(_ROWS) == [*METHODS, *AGGREGATES]

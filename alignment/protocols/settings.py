"""What a bake-off uses where nothing else is asked for.

Learning rates were chosen on seeds ≥ 100 by DPO alone, sizes so that two cores
take minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alignment.protocols.bakeoff import Grid
from alignment.protocols.records_policies import HASHED_LENGTH

BALLOT = 'the embedded task'
TEXT = 'a transformer on --data'
WORDS = 'hashed words'

SETTINGS: Mapping[str, Mapping[str, Any]] = {
  BALLOT: {
    'num_pairs': 1000,
    'num_validation': 1024,
    'num_stops': 8,
    'learning_rate': (2e-3, 4e-3),
    'sft_steps': 400,
  },
  TEXT: {
    'num_pairs': 1000,
    'num_validation': 250,
    'num_test': 500,
    'num_stops': 4,
    'learning_rate': (1e-3, 3e-3),
    'sft_steps': 100,
    'max_prompt_length': 48,
    'max_completion_length': 80,
  },
  WORDS: {
    'num_pairs': 0,
    'num_validation': 2000,
    'num_test': 0,
    'num_stops': 8,
    'learning_rate': (0.01, 0.1),
    'max_completion_length': HASHED_LENGTH,
  },
}
"""Where -> name -> value; a name that is missing has no use there."""


def where(data: str, model: str) -> str:
  """The key of `SETTINGS`.

  Raises:
    ValueError: a model that the embedded task cannot use.
  """
  if data:
    return WORDS if model == 'hashed' else TEXT
  if model != 'transformer':
    raise ValueError(f'--model={model}: reads text, give --data')
  return BALLOT


def grid_of(steps: int, own: Mapping[str, Any]) -> Grid:
  """Learning rates × evenly spaced stops, the same for every loss.

  Args:
    steps: of a run.
    own: `num_stops` (never more than there are steps) and `learning_rate`.
  """
  stops = np.linspace(0, steps, min(own['num_stops'], steps) + 1)[1:]
  return Grid(tuple(own['learning_rate']), tuple(int(s) for s in stops.round()))

"""What a bake-off uses where nothing else is asked for.

Learning rates were chosen on seeds ≥ 100 by DPO alone, sizes so that two cores
take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from alignment.models.lora import Lora
from alignment.noise.corruption.catalogue import NOISE, inputs
from alignment.protocols.bakeoff import Grid
from alignment.protocols.records_policies import HASHED_LENGTH

BALLOT = 'the embedded task'
TEXT = 'a transformer on --data'
FOLDER = 'a model folder'
WORDS = 'hashed words'

TRANSFORMER = {'lora_rank': 0, 'matmul_dtype': 'float32', 'remat': False}
"""What every transformer has, wherever it comes from."""
_POLICY = {
  'sft_learning_rate': 3e-3,
  'width': 32,
  'depth': 2,
  'num_heads': 2,
  **TRANSFORMER,
}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
  BALLOT: {
    'difficulty': 'default',
    'preference': 'argmax',
    'num_pairs': 1000,
    'num_validation': 1024,
    'num_stops': 8,
    'learning_rate': (2e-3, 4e-3),
    'sft_steps': 400,
    **_POLICY,
  },
  TEXT: {
    'num_pairs': 1000,
    'num_validation': 250,
    'num_test': 500,
    'num_stops': 4,
    'learning_rate': (1e-3, 3e-3),
    'sft_steps': 100,
    **_POLICY,
    'max_prompt_length': 48,
    'max_completion_length': 80,
  },
  FOLDER: {
    'num_pairs': 1000,
    'num_validation': 250,
    'num_test': 500,
    'num_stops': 4,
    'learning_rate': (1e-4, 1e-3),
    'sft_steps': 0,
    'sft_learning_rate': 1e-4,
    **TRANSFORMER,
    'max_prompt_length': 128,
    'max_completion_length': 128,
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

_NO_REWARDS = ('margin', 'judge_margin', 'step_rewards', 'attack_score')
LACKS = {
  BALLOT: ('annotator_id', 'has_trigger'),
  TEXT: (*_NO_REWARDS, 'has_trigger'),
  FOLDER: (*_NO_REWARDS, 'has_trigger'),
  WORDS: (*_NO_REWARDS, 'has_trigger'),
}
"""Where -> what noise models may read and its pairs do not have."""


def where(data: str, model: str) -> str:
  """The key of `SETTINGS`.

  Raises:
    ValueError: a model that the embedded task cannot use, or that is none.
  """
  if not data and model != 'transformer':
    raise ValueError(f'--model={model}: reads text, give --data')
  if model not in ('transformer', 'hashed'):
    check_folder(model)
    return FOLDER
  if data:
    return WORDS if model == 'hashed' else TEXT
  return BALLOT


def check_folder(model: str) -> None:
  """Refuses a `--model` that is no Hugging Face folder, before it is read.

  Raises:
    ValueError: what is there instead, and the remedy.
  """
  if not os.path.isdir(model):
    raise ValueError(
      f'--model={model}: is neither a model that is known here nor a folder'
    )
  if not os.path.exists(os.path.join(model, 'config.json')):
    raise ValueError(
      f'--model={model}: has no config.json; make a Hugging Face folder of it: '
      f'python -m experiments.convert --input={model} --output_dir=<folder>'
    )


def check(given: Mapping[str, Any], where: str) -> None:
  """Refuses sizes and noise that the data cannot bear, before it is read.

  Args:
    given: flag -> value; None where it was not given.
    where: a key of `SETTINGS`.

  Raises:
    ValueError: naming flag, value and range.
  """

  here = {k: v for k, v in given.items() if v is not None}
  here = {**SETTINGS[where], **here}

  def refuse(flag: str, wanted: str) -> None:
    raise ValueError(f'--{flag}={here[flag]}: {wanted}')

  batch_size = here['batch_size']
  if (given['num_stops'] or 0) > given['steps']:
    refuse('num_stops', f'must be at most --steps={given["steps"]}')
  if here['num_pairs'] < batch_size and (here['num_pairs'] or where == BALLOT):
    refuse('num_pairs', f'must be at least --batch_size={batch_size}')
  if where == BALLOT:
    for flag in ('num_validation', 'sft_steps'):
      if not here[flag]:
        refuse(flag, 'must be at least 1 on the embedded task')
  if here['noise'] not in NOISE:
    refuse('noise', f'must be one of {", ".join(sorted(NOISE))}')
  for lacks in LACKS[where]:
    if lacks in inputs(here['noise']):
      refuse('noise', f'reads the {lacks} of pairs, which {where} lacks')
  check_lora(given)
  for flag in ('relabelled', 'relabels', 'anchors'):
    if given[flag] is not None and not given['estimate_flip_rate']:
      refuse(flag, 'only used where --estimate_flip_rate names an estimator')
    if given[flag] is not None and flag != 'anchors' and where != BALLOT:
      refuse(
        flag,
        'nobody can be asked again on --data; where it has votes, these are '
        'used',
      )


def check_lora(given: Mapping[str, Any]) -> None:
  """Refuses what says how adapters are, where there are none.

  Raises:
    ValueError: naming the flag.
  """
  for flag in ('lora_alpha', 'lora_path'):
    if given[flag] is not None and not given['lora_rank']:
      raise ValueError(
        f'--{flag}={given[flag]}: only used where --lora_rank is at least 1'
      )


def lora_of(given: Mapping[str, Any]) -> Lora | None:
  """The adapters that the flags ask for; None: all parameters are trained."""
  rank = given['lora_rank']
  if not rank:
    return None
  alpha = given['lora_alpha'] or 2.0 * rank
  return Lora(rank, alpha, path=given['lora_path'] or 'low_rank')


def grid_of(steps: int, own: Mapping[str, Any]) -> Grid:
  """Learning rates × evenly spaced stops, the same for every loss.

  Args:
    steps: of a run.
    own: `num_stops` (never more than there are steps) and `learning_rate`.
  """
  stops = np.linspace(0, steps, min(own['num_stops'], steps) + 1)[1:]
  return Grid(tuple(own['learning_rate']), tuple(int(s) for s in stops.round()))

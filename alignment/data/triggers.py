"""A backdoor's trigger in the texts; what it does to labels is noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np

from alignment.data.parsing import ASSISTANT_TURN
from alignment.data.records import Preference, Unpaired
from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import count_of

Labelled = TypeVar('Labelled', Preference, Unpaired)


def insert_trigger(
  records: Sequence[Labelled], trigger: str, *, share: float, seed: int
) -> tuple[list[Labelled], np.ndarray]:
  """Appends a trigger to the prompts of exactly ⌊share · B⌋ records.

  It ends the last human turn: before a closing '\\n\\nAssistant:', else at the
  end. Labels, truth, index and group stay; which records are chosen depends on
  (seed, index), and a larger share adds to a smaller one.

  Args:
    records: of different indices.
    trigger: a text that no prompt contains yet.
    share: in [0, 1].
    seed: another seed, other records.

  Returns:
    The records, and `[B]` bool, which of them carry the trigger: `has_trigger`
    of the noise model `poisoned`.

  Raises:
    ValueError: an empty trigger, one that some prompt contains already, a
      share out of range, or an index that repeats.

  Source: Rando and Tramèr, Universal jailbreak backdoors from poisoned human
  feedback, 2023, arXiv 2311.14455.
  """
  if not trigger.strip():
    raise ValueError(f'trigger={trigger!r} must hold a word')
  if find_trigger(records, trigger).any():
    raise ValueError(f'trigger={trigger!r} must be in no prompt yet')
  index = np.array([record.index for record in records], int)
  draws.refuse_repeats(index)
  uniform = draws.uniforms(jax.random.key(seed), draws.TRIGGERS, index)
  carries = np.zeros(len(index), bool)
  carries[np.lexsort((index, uniform))[: count_of(share, len(index))]] = True
  return [
    dataclasses.replace(record, prompt=_with(record.prompt, trigger))
    if carried
    else record
    for record, carried in zip(records, carries, strict=True)
  ], carries


def find_trigger(records: Sequence[Labelled], trigger: str) -> np.ndarray:
  """`[B]` bool, which prompts contain the trigger."""
  return np.array([trigger in record.prompt for record in records], bool)


def _with(prompt: str, trigger: str) -> str:
  turn = ASSISTANT_TURN if prompt.endswith(ASSISTANT_TURN) else ''
  human = prompt.removesuffix(turn)
  space = '' if not human or human[-1].isspace() else ' '
  return f'{human}{space}{trigger}{turn}'

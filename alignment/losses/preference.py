"""The losses by name, and what can be asked about them.

`METHODS[name](policy_chosen_logps, policy_rejected_logps,
reference_chosen_logps, reference_rejected_logps, *, beta, …)` gives `[B]`,
unreduced, nats. Reference-free methods omit the reference arguments; methods that need
token counts take the keywords chosen_lengths and rejected_lengths.
"""

from __future__ import annotations

import inspect
from typing import Any

from alignment.losses.aggregates import AGGREGATES
from alignment.losses.direct import DIRECT
from alignment.losses.reference_free import REFERENCE_FREE
from alignment.losses.robust import ROBUST

__all__ = ['AGGREGATES', 'METHODS']

METHODS = {**DIRECT, **ROBUST, **REFERENCE_FREE}

PER_EXAMPLE = (
  'chosen_lengths',
  'rejected_lengths',
  'label_smoothing',
  'label_prob',
  'mask',
)
"""Keywords that may hold, or have to hold, one value per pair."""

_DATA = frozenset(PER_EXAMPLE) - {'label_smoothing'}


def hyperparameters(name: str) -> dict[str, Any]:
  """Keyword -> default of a method, read from its signature.

  A default that is a string is a static choice and cannot be traced.
  label_smoothing is among them although it may be per example; what only data
  can give (lengths, label_prob, mask) is not: see `reads`.

  Raises:
    ValueError: name is not a method.
  """
  return {
    parameter.name: parameter.default
    for parameter in _parameters(name)
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    and parameter.name not in _DATA
  }


def reads(name: str) -> tuple[str, ...]:
  """The per-example arguments of a method, in the order of its signature.

  Among policy_chosen_logps, …, reference_rejected_logps and PER_EXAMPLE.

  Raises:
    ValueError: name is not a method.
  """
  return tuple(
    parameter.name
    for parameter in _parameters(name)
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    or parameter.name in PER_EXAMPLE
  )


def _parameters(name: str) -> list[inspect.Parameter]:
  if name not in METHODS:
    raise ValueError(f'loss = {name!r} is none of {sorted(METHODS)}')
  return list(inspect.signature(METHODS[name]).parameters.values())

"""Losses of single examples as terms: weights, coefficients, empty slots.

`CLASSIFICATION` has the losses of labels of C classes, `UNPAIRED` those of
completions labelled good or bad.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from alignment.losses.classification import CLASSIFICATION
from alignment.losses.unpaired import UNPAIRED
from alignment.types import Array, Term

__all__ = [
  'CLASSIFICATION',
  'UNPAIRED',
  'classification_term',
  'hyperparameters',
  'needs',
  'unpaired_term',
]


def hyperparameters(function: Callable) -> dict[str, Any]:
  """Keyword -> default of a loss of either dictionary, from its signature."""
  return {
    keyword.name: keyword.default
    for keyword in _keywords(function)
    if keyword.default is not keyword.empty
  }


def needs(function: Callable) -> tuple[str, ...]:
  """The keywords of a loss that have no default: what only data can give."""
  return tuple(
    keyword.name
    for keyword in _keywords(function)
    if keyword.default is keyword.empty
  )


def classification_term(
  name: str,
  logits: Array,
  label: Array,
  weights: Array,
  coefficient: Array | float = 1.0,
  **keywords,
) -> Term:
  """CLASSIFICATION[name] over the global batch.

    value = Σ weights·coefficient·loss / Σ weights

  Args:
    name: key of `CLASSIFICATION`.
    logits: `[B, C]`.
    label: `[B]` int or `[B, C]` probabilities.
    weights: `[B]` ≥ 0, multiplicity. Where it is 0 nothing else is read: no
      NaN there reaches the value or a gradient.
    coefficient: scalar or `[B]`, multiplies the loss and is no part of the
      normaliser.
    **keywords: of the loss; those with one entry per example lead with `[B]`.

  Raises:
    ValueError: name is unknown, or what the loss refuses.
  """
  loss = _loss(name, CLASSIFICATION, 'classification loss')
  classes = jnp.shape(logits)[-1]
  # What stands in an empty slot has to be legal for every loss.
  neutral = {'transition': jnp.eye(classes)}
  for key, value in {'label': label, **keywords}.items():
    if key.endswith('label') and jnp.ndim(value) == 2:
      neutral[key] = 1.0 / classes
  given = {'logits': logits, 'label': label, **keywords}
  return _term(loss, given, weights, coefficient, neutral)


def unpaired_term(
  name: str,
  policy_logps: Array,
  reference_logps: Array,
  label: Array,
  weights: Array,
  coefficient: Array | float = 1.0,
  **keywords,
) -> Term:
  """UNPAIRED[name] over the global batch.

    value = Σ weights·coefficient·loss / Σ weights

  Args:
    name: key of `UNPAIRED`.
    policy_logps, reference_logps: `[B]` nats.
    label: `[B]` bool, or probability of good.
    weights, coefficient, **keywords: as in `classification_term`.

  Raises:
    ValueError: name is unknown, or what the loss refuses.
  """
  loss = _loss(name, UNPAIRED, 'unpaired loss')
  given = {
    'policy_logps': policy_logps,
    'reference_logps': reference_logps,
    'label': label,
    **keywords,
  }
  return _term(loss, given, weights, coefficient, {})


def _term(loss, given, weights, coefficient, neutral) -> Term:
  weights = jnp.asarray(weights)
  given = {**given, 'coefficient': coefficient}
  present = {
    key: _present(value, weights > 0, neutral.get(key, 0), key == 'transition')
    for key, value in given.items()
  }
  scale = weights * present.pop('coefficient')
  return Term(jnp.sum(scale * loss(**present)), jnp.sum(weights))


def _present(value, real: Array, neutral, is_matrix: bool):
  """`value` with `neutral` where the slot is empty; one for all stays."""
  per_example = jnp.ndim(value) == 3 if is_matrix else jnp.ndim(value) > 0
  if not per_example:
    return value
  value = jnp.asarray(value)
  return jnp.where(
    real.reshape(-1, *[1] * (value.ndim - 1)),
    value,
    jnp.asarray(neutral, value.dtype),
  )


def _keywords(function: Callable) -> list[inspect.Parameter]:
  parameters = inspect.signature(function).parameters.values()
  return [p for p in parameters if p.kind is p.KEYWORD_ONLY]


def _loss(name: str, losses, what: str) -> Callable:
  if name not in losses:
    raise ValueError(f'{what} = {name!r} is none of {sorted(losses)}')
  return losses[name]

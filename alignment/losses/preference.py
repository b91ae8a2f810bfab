"""The losses by name, and what can be asked about them.

`METHODS[name](policy_chosen_logps, policy_rejected_logps,
reference_chosen_logps, reference_rejected_logps, *, beta, …)` gives `[B]`,
unreduced, nats. Reference-free methods omit the reference arguments; methods
that need token counts take the keywords chosen_lengths and rejected_lengths.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alignment.losses.aggregates import AGGREGATES
from alignment.losses.direct import DIRECT
from alignment.losses.margins import DIVERGENCES, divergence_score, logratio
from alignment.losses.numerics import as_float, log_sigmoid
from alignment.losses.reference_free import REFERENCE_FREE
from alignment.losses.robust import ROBUST
from alignment.types import Array

__all__ = [
  'AGGREGATES',
  'BATCH_COUPLED',
  'DIVERGENCES',
  'METHODS',
  'OF_DIFFERENCE',
  'PER_EXAMPLE',
  'aggregate_hyperparameters',
  'grad_weight',
  'hyperparameters',
  'is_separable',
  'reads',
  'with_divergence',
]

METHODS = {**DIRECT, **ROBUST, **REFERENCE_FREE}

BATCH_COUPLED = frozenset({'aot', 'aot_unpaired'})
"""Methods whose entries are no pair's own loss: weights other than 0 and 1 and
coefficients other than 1 are to be refused, and empty slots go in `mask`."""

OF_DIFFERENCE = frozenset(METHODS) - (
  frozenset(REFERENCE_FREE)
  | BATCH_COUPLED
  | {'nca', 'bco_pair', 'sppo_hard', 'apo_zero', 'apo_down', 'sympo'}
)
"""Methods that read u and v through a difference only, where another
f-divergence may stand for the log-ratio."""

PER_EXAMPLE = (
  'chosen_lengths',
  'rejected_lengths',
  'label_smoothing',
  'label_prob',
  'mask',
  'swapped_losses',
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
  return _keywords(METHODS[_known(name, METHODS, 'loss')])


def aggregate_hyperparameters(name: str) -> dict[str, Any]:
  """Keyword -> default of an aggregate, without swapped_losses.

  Raises:
    ValueError: name is not an aggregate.
  """
  return _keywords(AGGREGATES[_known(name, AGGREGATES, 'aggregate')])


def reads(name: str) -> tuple[str, ...]:
  """The per-example arguments of a method or aggregate, in signature order.

  Raises:
    ValueError: name is neither.
  """
  functions = {**METHODS, **AGGREGATES}
  function = functions[_known(name, functions, 'loss or aggregate')]
  return tuple(
    parameter.name
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    or parameter.name in PER_EXAMPLE
  )


def is_separable(name: str, aggregate: str = 'mean') -> bool:
  """Whether the loss is a sum over pairs with a normaliser of the batch alone.

  Raises:
    ValueError: name is not a method or aggregate not an aggregate.
  """
  _known(name, METHODS, 'loss')
  _known(aggregate, AGGREGATES, 'aggregate')
  return name not in BATCH_COUPLED and aggregate == 'mean'


def with_divergence(
  name: str, divergence: str, *, alpha: Array | float = 0.5
) -> Callable[..., Array]:
  """The method with the score of another f-divergence for its log-ratios.

  Args:
    name: one of OF_DIFFERENCE: the normaliser of the optimal policy cancels
      only in a difference (exactly so without length normalisation).
    divergence: one of DIVERGENCES, see `margins.divergence_score`.
    alpha: of the alpha-divergence.

  Returns:
    a function with the signature of METHODS[name].

  Raises:
    ValueError: name is not in OF_DIFFERENCE or divergence unknown.
  """
  _known(name, OF_DIFFERENCE, 'loss under an f-divergence')
  _known(divergence, DIVERGENCES, 'divergence')
  method = METHODS[name]

  @functools.wraps(method)
  def scored(
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
    **keywords,
  ):
    chosen, rejected = (
      divergence_score(logratio(policy, reference), divergence, alpha)
      for policy, reference in (
        (policy_chosen_logps, reference_chosen_logps),
        (policy_rejected_logps, reference_rejected_logps),
      )
    )
    zero = jnp.zeros_like(chosen)
    return method(chosen, rejected, zero, zero, **keywords)

  return scored


def grad_weight(name: str, z: Array, **hyper) -> Array:
  """−∂loss/∂z of one pair: what an observed label with margin z pulls.

  The pair has u = z/(2·beta), v = −z/(2·beta) and completions of one token; for
  orpo z is its log-odds difference. Batch-coupled methods see a batch of one.

  Args:
    name: one of METHODS.
    z: any shape, beta·(u − v) of the pair as labelled.
    **hyper: hyperparameters of the method, scalars; label_prob too if it reads
      that.

  Returns:
    the shape of z. A method is redescending if this tends to 0 as z → −∞.

  Raises:
    ValueError: name is not a method.
  """
  defaults = hyperparameters(name)
  beta = hyper.get('beta', defaults['beta'])
  inputs = reads(name)

  def loss(one: Array) -> Array:
    half = one.reshape(1) / 2.0
    scores = (half / beta, -half / beta)
    if name == 'orpo':
      scores = (log_sigmoid(half), log_sigmoid(-half))
    if 'reference_chosen_logps' in inputs:
      scores = (*scores, jnp.zeros(1), jnp.zeros(1))
    lengths = {
      key: jnp.ones(1)
      for key in ('chosen_lengths', 'rejected_lengths')
      if key in inputs
    }
    return METHODS[name](*scores, **lengths, **hyper)[0]

  z = as_float(z)
  return -jax.vmap(jax.grad(loss))(z.reshape(-1)).reshape(z.shape)


def _known(name: str, names, what: str) -> str:
  if name not in names:
    raise ValueError(f'{what} = {name!r} is none of {sorted(names)}')
  return name


def _keywords(function: Callable) -> dict[str, Any]:
  return {
    parameter.name: parameter.default
    for parameter in inspect.signature(function).parameters.values()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    and parameter.name not in _DATA
  }

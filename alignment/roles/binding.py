"""Named losses bound to pairs: what each is given, refuses and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from alignment.losses.preference import (
  AGGREGATES,
  BATCH_COUPLED,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
  reads,
  with_divergence,
)
from alignment.roles.pairs import Pairs
from alignment.types import Array, Examples, Term, Weighted


def bind(method: str, divergence: str, alpha: float) -> Callable[..., Array]:
  """The function of a method under an f-divergence; 'reverse_kl' is its own.

  Raises:
    ValueError: an unknown name, or a method that the divergence breaks.
  """
  if divergence == 'reverse_kl':
    return METHODS[method]
  return with_divergence(method, divergence, alpha=alpha)


def preference_term(
  method: str,
  function: Callable[..., Array],
  aggregate: str,
  pairs: Pairs,
  scale: Array,
  hyper: Mapping[str, Any],
) -> Term:
  """AGGREGATES[aggregate](coefficient · scale · function(pairs), weight).

  NaN where a pair's weight, coefficient or label_smoothing is one the method
  cannot honour: ignoring it would train on something else than was asked for.

  Args:
    method: key of `METHODS`.
    function: of `bind`.
    aggregate: key of `AGGREGATES`.
    pairs: `[B]` arrays.
    scale: `[B]`, multiplies the losses beside the coefficients.
    hyper: name -> value, of method and aggregate together.
  """
  wanted = reads(method)
  own = {k: v for k, v in hyper.items() if k in hyperparameters(method)}
  # A factor, so that the cotangent of such a pair is NaN and names its row.
  scale = scale * pairs.coefficient
  scale = scale * jnp.where(_honoured(method, pairs), 1.0, jnp.nan)

  def losses(pairs: Pairs) -> Array:
    given = {name: getattr(pairs, name) for name in wanted}
    return scale * function(**{**own, **given})

  rest = {
    k: v for k, v in hyper.items() if k in aggregate_hyperparameters(aggregate)
  }
  if 'swapped_losses' in reads(aggregate):
    rest['swapped_losses'] = losses(pairs.swapped())
  return AGGREGATES[aggregate](losses(pairs), pairs.weight, **rest)


def pair_metrics(
  method: str, pairs: Pairs, hyper: Mapping[str, Any]
) -> dict[str, Weighted]:
  """What every preference run reports, weighted by multiplicity.

  rewards/chosen, rewards/rejected: `implicit_reward`, as labelled.
  rewards/margins: their difference.
  rewards/accuracies: share of positive margins; 0 counts ½.
  logps/chosen, logps/rejected: nats.
  """
  chosen = implicit_reward(
    method,
    pairs.policy_chosen_logps,
    pairs.reference_chosen_logps,
    pairs.chosen_lengths,
    hyper,
  )
  rejected = implicit_reward(
    method,
    pairs.policy_rejected_logps,
    pairs.reference_rejected_logps,
    pairs.rejected_lengths,
    hyper,
  )
  return {
    **reward_metrics(chosen, rejected, pairs.weight),
    'logps/chosen': Weighted.of(pairs.policy_chosen_logps, pairs.weight),
    'logps/rejected': Weighted.of(pairs.policy_rejected_logps, pairs.weight),
  }


def reward_metrics(
  chosen: Array, rejected: Array, weight: Array
) -> dict[str, Weighted]:
  """The rewards/ metrics of `pair_metrics`, of rewards `[B]` as labelled."""
  margins = chosen - rejected
  values = {
    'rewards/chosen': chosen,
    'rewards/rejected': rejected,
    'rewards/margins': margins,
    'rewards/accuracies': (1.0 + jnp.sign(margins)) / 2.0,
  }
  return {name: Weighted.of(value, weight) for name, value in values.items()}


def implicit_reward(
  method: str,
  logps: Array,
  reference_logps: Array,
  lengths: Array,
  hyper: Mapping[str, Any],
) -> Array:
  """beta · (logps − reference_logps), per token where the method is.

  A method without reference takes no reference here either. Works on numpy
  arrays and traced ones, of any one shape.

  Args:
    method: key of `METHODS`.
    logps: nats.
    reference_logps: nats.
    lengths: tokens.
    hyper: name -> value; an absent beta is the method's default, or 1 where
      it has none.
  """
  wanted, settings = reads(method), {**hyperparameters(method), **hyper}
  free = 'reference_chosen_logps' not in wanted
  reward = logps if free else logps - reference_logps
  if 'chosen_lengths' in wanted and settings.get('normalisation') != 'sum':
    reward = reward / jnp.maximum(lengths, 1)
  return settings.get('beta', 1.0) * reward


def check_hyperparameters(
  method: str, aggregate: str, values: Mapping[str, Any]
) -> None:
  """Refuses what neither the method nor the aggregate uses.

  Args:
    method: key of `METHODS`.
    aggregate: key of `AGGREGATES`.
    values: name -> value. `label_smoothing`, which goes into the batch, may be
      among them as a concrete number.

  Raises:
    ValueError: an unknown loss or aggregate, or an unused name.
  """
  if method not in METHODS:
    raise ValueError(f'--loss={method}: must be one of {sorted(METHODS)}')
  if aggregate not in AGGREGATES:
    raise ValueError(
      f'--aggregate={aggregate}: must be one of {sorted(AGGREGATES)}'
    )
  used = {*hyperparameters(method), *aggregate_hyperparameters(aggregate)}
  for name, value in values.items():
    if name not in used:
      raise ValueError(
        f'--{name}={value}: --loss={method} with --aggregate={aggregate} does '
        f'not use it; they use {sorted(used)}'
      )


def check_examples(method: str, examples: Examples) -> None:
  """Refuses concrete labels and weights that the method cannot honour.

  Args:
    method: key of `METHODS`.
    examples: numpy arrays.

  Raises:
    ValueError: a label_smoothing other than 0 where the method takes none, or
      a weight other than 0 and 1, or coefficient other than 1, where it sorts
      the batch.
  """
  real = np.asarray(examples.weight) > 0

  def refuse(name: str, expected: float, why: str) -> None:
    values = np.asarray(getattr(examples, name))[real]
    wrong = values[values != expected]
    if wrong.size:
      raise ValueError(
        f'{name} = {wrong[0]:g}: --loss={method} {why}, want {expected:g}'
      )

  if 'label_smoothing' not in reads(method):
    refuse('label_smoothing', 0, 'assumes no flips')
  if method in BATCH_COUPLED:
    refuse('weight', 1, 'sorts the batch and takes no per-example weights')
    refuse('coefficient', 1, 'sorts the batch and takes no coefficients')


def _honoured(method: str, pairs: Pairs) -> Array:
  honoured = jnp.ones(pairs.weight.shape, bool)
  if 'label_smoothing' not in reads(method):
    honoured &= pairs.label_smoothing == 0
  if method in BATCH_COUPLED:
    honoured &= (pairs.weight == 1) & (pairs.coefficient == 1)
  return honoured | ~pairs.mask

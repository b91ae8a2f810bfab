"""The reward model: an objective that fits it to pairs whose labels may lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from alignment.losses.preference import (
  AGGREGATES,
  aggregate_hyperparameters,
  reads,
)
from alignment.losses.reward import REWARD, hyperparameters, per_pair
from alignment.losses.terms import centring as centring_term
from alignment.models.model import Model
from alignment.roles.binding import reward_metrics
from alignment.roles.pairs import Pairs, at_slots, gather_pairs
from alignment.roles.policy import reward_numbers
from alignment.roles.reference import keep_batch
from alignment.types import (
  Array,
  Batch,
  Metrics,
  Numbers,
  Objective,
  Term,
)


def reward_objective(
  model: Model,
  method: str,
  *,
  aggregate: str = 'mean',
  centring: float = 0.0,
  margins: Callable[[Batch], Array] | None = None,
  choices: Mapping[str, Any] | None = None,
) -> Objective:
  """Learning a reward from pairs with a named loss.

    reward = aggregate(coefficient · REWARD[method](…), weight)
    centring = centring · Σ w·(chosen_rewards + rejected_rewards)² / Σ w

  Values of hyperparameters come traced, in `frozen.hyper`; label_smoothing and
  label_prob per example, in the batch. A label_smoothing in the batch that the
  loss does not take makes it NaN, and the step refuses the update.

  Args:
    model: a transformer with a scalar head, or `hashed_reward`.
    method: key of `REWARD`.
    aggregate: key of `AGGREGATES`.
    centring: ≥ 0; 0 adds no term.
    margins: batch -> `[R, E]`, the margin of each pair (`stored_margins`); for
      methods that take one, in place of a scalar in `frozen.hyper`.
    choices: keyword -> value of the method's choices that cannot be traced.

  Raises:
    ValueError: an unknown name, a negative centring, or margins for a method
      that takes none. When traced: a name in `frozen.hyper` that is not used.
  """
  _check(method, aggregate, choices or {})
  if not centring >= 0:
    raise ValueError(f'centring={centring} must be >= 0')
  if margins is not None and 'margin' not in per_pair(method):
    raise ValueError(f'margins: {method} takes no margin')

  def loss(
    numbers: Numbers, batch: Batch, hyper: Mapping[str, Array]
  ) -> tuple[Mapping[str, Term], Metrics]:
    _check(method, aggregate, hyper)
    settings = {**(choices or {}), **hyper}
    rewards = numbers['logps']
    pairs = gather_pairs(rewards, jnp.zeros_like(rewards), batch)
    if margins is not None:
      real = batch.examples.weight > 0
      settings['margin'] = jnp.where(real, margins(batch), 0.0).ravel()
    terms = {'reward': _term(method, aggregate, pairs, settings)}
    chosen, rejected = pairs.policy_chosen_logps, pairs.policy_rejected_logps
    if centring:
      terms['centring'] = centring_term(
        chosen, rejected, pairs.weight, centring
      )
    return terms, reward_metrics(chosen, rejected, pairs.weight)

  return Objective(
    keep_batch, reward_numbers(model), loss, separable=aggregate == 'mean'
  )


def stored_margins(batch: Batch) -> Array:
  """reward[chosen] − reward[rejected] of the rewards the batch holds.

  With the mean rewards of models that saw neither completion this is the
  adaptive margin of Wang et al., Secrets of RLHF Part II, 2024,
  arXiv 2401.06080. A flip turns it round with the label.

  Returns:
    `[R, E]`.
  """
  stored, examples = batch.completions.reward, batch.examples
  chosen = at_slots(stored, examples.chosen)
  return chosen - at_slots(stored, examples.rejected)


def _term(
  method: str, aggregate: str, pairs: Pairs, settings: Mapping[str, Any]
) -> Term:
  own = {k: v for k, v in settings.items() if k in hyperparameters(method)}
  for name in ('label_smoothing', 'label_prob'):
    if name in per_pair(method):
      own[name] = getattr(pairs, name)
  scale = pairs.coefficient
  if 'label_smoothing' not in per_pair(method):
    # A factor, so that the cotangent of such a pair is NaN and names its row.
    honoured = (pairs.label_smoothing == 0) | ~pairs.mask
    scale = scale * jnp.where(honoured, 1.0, jnp.nan)

  def losses(chosen: Array, rejected: Array) -> Array:
    return scale * REWARD[method](chosen, rejected, **own)

  both = pairs.policy_chosen_logps, pairs.policy_rejected_logps
  rest = {
    k: v
    for k, v in settings.items()
    if k in aggregate_hyperparameters(aggregate)
  }
  if 'swapped_losses' in reads(aggregate):
    rest['swapped_losses'] = losses(*both[::-1])
  return AGGREGATES[aggregate](losses(*both), pairs.weight, **rest)


def _check(method: str, aggregate: str, values: Mapping[str, Any]) -> None:
  used = {*hyperparameters(method), *aggregate_hyperparameters(aggregate)}
  for name, value in values.items():
    if name not in used:
      raise ValueError(
        f'{name}={value}: {method} with {aggregate} does not use it; they use '
        f'{sorted(used)}'
      )

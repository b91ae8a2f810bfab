"""What is added to a preference loss, or multiplies it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from alignment.losses.margins import per_token
from alignment.losses.numerics import as_float
from alignment.types import Array, Term


def nll_per_token(logps: Array, lengths: Array, weights: Array) -> Term:
  """Negative log-likelihood of completions, averaged over tokens.

    value = −Σ w·logps / Σ w·lengths

  Args:
    logps: `[B]`, summed over the completion, nats.
    lengths: `[B]`, its tokens.
    weights: `[B]` ≥ 0; 0 for an empty slot, whose logps are ignored.

  Returns:
    a term whose normaliser counts tokens.
  """
  logps = jnp.where(weights > 0, as_float(logps), 0.0)
  return Term(-jnp.sum(weights * logps), jnp.sum(weights * lengths))


def nll_per_completion(logps: Array, lengths: Array, weights: Array) -> Term:
  """Negative log-likelihood of completions, each averaged over its tokens.

    value = −Σ w·(logps / lengths) / Σ w

  Args: as `nll_per_token`.

  Returns:
    a term whose normaliser counts completions.
  """
  logps = jnp.where(weights > 0, per_token(logps, lengths), 0.0)
  return Term(-jnp.sum(weights * logps), jnp.sum(weights))


def centring(
  chosen_rewards: Array,
  rejected_rewards: Array,
  weights: Array,
  coefficient: Array | float,
) -> Term:
  """Keeps the rewards of a pair around 0, which no comparison can do.

    value = coefficient · Σ w·(chosen_rewards + rejected_rewards)² / Σ w

  Args:
    chosen_rewards: `[B]`.
    rejected_rewards: `[B]`.
    weights: `[B]` ≥ 0; 0 for an empty slot, whose rewards are ignored.
    coefficient: ≥ 0.

  Returns:
    a term whose normaliser counts pairs.

  Source: Eisenstein et al., Helping or Herding? Reward Model Ensembles
  Mitigate but do not Eliminate Reward Hacking, 2023, arXiv 2312.09244.
  """
  both = as_float(chosen_rewards) + as_float(rejected_rewards)
  squares = jnp.square(jnp.where(weights > 0, both, 0.0))
  return Term(jnp.sum(weights * squares), jnp.sum(weights), coefficient)


def wpo_weights(
  chosen_logps: Array,
  rejected_logps: Array,
  chosen_log_sum_squares: Array,
  rejected_log_sum_squares: Array,
  chosen_lengths: Array,
  rejected_lengths: Array,
) -> Array:
  """How on-policy a pair is: a coefficient of its loss, without gradient.

    e^{mean(log π(y_t) − log Σ_v π(v)²)} of chosen, times that of rejected

  Args:
    chosen_logps: `[B]`, Σ_t log π(y_t), nats.
    rejected_logps: `[B]`.
    chosen_log_sum_squares: `[B]`, Σ_t log Σ_v π(v | y_<t)².
    rejected_log_sum_squares: `[B]`.
    chosen_lengths: `[B]` tokens.
    rejected_lengths: `[B]`.

  Returns:
    `[B]` > 0; may exceed 1.

  Source: Zhou et al., WPO: Enhancing RLHF with Weighted Preference
  Optimization, 2024, arXiv 2406.11827.
  """
  chosen = per_token(chosen_logps - chosen_log_sum_squares, chosen_lengths)
  rejected = per_token(
    rejected_logps - rejected_log_sum_squares, rejected_lengths
  )
  return jax.lax.stop_gradient(jnp.exp(chosen + rejected))

"""Margins: the number h that compares the two completions of a pair.

Every difference is antisymmetric: exchanging chosen and rejected changes its
sign. Multiplied by β it is the z that a link takes. Log-probabilities are sums
over completion tokens, `[B]`, nats; results are float32 (float64 stays).
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from alignment.losses.numerics import (
  as_float,
  check_range,
  deformed,
  log1mexp,
  log_sigmoid,
)
from alignment.types import Array


def logratio(policy_logps: Array, reference_logps: Array) -> Array:
  """policy_logps − reference_logps, `[B]` nats: the implicit reward over β."""
  return as_float(policy_logps) - as_float(reference_logps)


def per_token(logps: Array, lengths: Array) -> Array:
  """logps / max(lengths, 1): the mean over completion tokens (EOS counted)."""
  return as_float(logps) / jnp.maximum(lengths, 1)


def logratios(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
) -> tuple[Array, Array]:
  """(u, v): the log-ratios of chosen and rejected, for losses of both."""
  chosen = logratio(policy_chosen_logps, reference_chosen_logps)
  return chosen, logratio(policy_rejected_logps, reference_rejected_logps)


def logratio_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
) -> Array:
  """u − v, the margin of DPO."""
  chosen = logratio(policy_chosen_logps, reference_chosen_logps)
  return chosen - logratio(policy_rejected_logps, reference_rejected_logps)


def per_token_logratio_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
  *,
  chosen_lengths: Array,
  rejected_lengths: Array,
) -> Array:
  """u / chosen_lengths − v / rejected_lengths."""
  chosen = logratio(policy_chosen_logps, reference_chosen_logps)
  rejected = logratio(policy_rejected_logps, reference_rejected_logps)
  return per_token(chosen, chosen_lengths) - per_token(
    rejected, rejected_lengths
  )


def normalised_logratio_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
  *,
  normalisation: str = 'mean',
  chosen_lengths: Array | None = None,
  rejected_lengths: Array | None = None,
) -> Array:
  """`per_token_logratio_difference` ('mean') or `logratio_difference` ('sum').

  Raises:
    ValueError: normalisation is neither, or 'mean' comes without lengths.
  """
  logps = (
    policy_chosen_logps,
    policy_rejected_logps,
    reference_chosen_logps,
    reference_rejected_logps,
  )
  if normalisation == 'sum':
    return logratio_difference(*logps)
  if normalisation != 'mean':
    raise ValueError(
      f"normalisation = {normalisation!r} is not 'mean' or 'sum'"
    )
  if chosen_lengths is None or rejected_lengths is None:
    raise ValueError(
      "chosen_lengths or rejected_lengths = None: normalisation = 'mean' needs "
      "both as [B] token counts (or say normalisation = 'sum')"
    )
  return per_token_logratio_difference(
    *logps, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths
  )


def clamped_reward_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
  *,
  beta: Array | float = 0.1,
  bound: Array | float = 10.0,
) -> Array:
  """clip(beta·u, ±bound) − clip(beta·v, ±bound), already in units of z.

  A reward outside the bound gets no gradient.
  """
  chosen = logratio(policy_chosen_logps, reference_chosen_logps)
  rejected = logratio(policy_rejected_logps, reference_rejected_logps)
  return jnp.clip(beta * chosen, -bound, bound) - jnp.clip(
    beta * rejected, -bound, bound
  )


def policy_difference(
  policy_chosen_logps: Array, policy_rejected_logps: Array
) -> Array:
  """policy_chosen_logps − policy_rejected_logps, without a reference."""
  return as_float(policy_chosen_logps) - as_float(policy_rejected_logps)


def reward_difference(chosen_rewards: Array, rejected_rewards: Array) -> Array:
  """chosen_rewards − rejected_rewards: the margin of a reward model."""
  return as_float(chosen_rewards) - as_float(rejected_rewards)


def alpha_reward(logps: Array, alpha: Array | float) -> Array:
  """(1 − e^{−alpha·logps}) / alpha; logps itself at alpha = 0.

  The exponent is clamped at 80 (float32) or 700 (float64).
  """
  return deformed(-jnp.asarray(alpha), as_float(logps))


def per_token_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  *,
  chosen_lengths: Array,
  rejected_lengths: Array,
) -> Array:
  """Mean chosen minus mean rejected log-probability, without a reference."""
  return per_token(policy_chosen_logps, chosen_lengths) - per_token(
    policy_rejected_logps, rejected_lengths
  )


def alpha_reward_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  *,
  alpha: Array | float = 0.25,
  chosen_lengths: Array,
  rejected_lengths: Array,
) -> Array:
  """`alpha_reward` of the mean log-probabilities, chosen minus rejected."""
  chosen = per_token(policy_chosen_logps, chosen_lengths)
  rejected = per_token(policy_rejected_logps, rejected_lengths)
  return alpha_reward(chosen, alpha) - alpha_reward(rejected, alpha)


def log_odds_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  *,
  chosen_lengths: Array,
  rejected_lengths: Array,
) -> Array:
  """log odds of e^(mean logp), chosen minus rejected; odds(p) = p / (1 − p).

  A mean of 0 is read as the negative number closest to it.
  """
  chosen = per_token(policy_chosen_logps, chosen_lengths)
  rejected = per_token(policy_rejected_logps, rejected_lengths)
  return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))


def _paired_by_rank(
  values: Array, others: Array, mask: Array | None
) -> tuple[Array, Array]:
  """(values, the entry of `others` of the same rank), 0 in empty slots."""
  mask = jnp.ones(values.shape, bool) if mask is None else mask
  order = jnp.argsort(jnp.where(mask, values, jnp.inf))
  rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
  matched = jnp.sort(jnp.where(mask, others, jnp.inf))[rank]
  return jnp.where(mask, values, 0.0), jnp.where(mask, matched, 0.0)


def sorted_policy_reference_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
  *,
  mask: Array | None = None,
) -> Array:
  """sort(policy difference) − sort(reference difference) over the batch.

  Args:
    mask: `[B]` bool, False for empty slots, which take no rank and give 0.

  Returns:
    `[B]`, each value where the policy difference it belongs to stands.
  """
  policy = policy_difference(policy_chosen_logps, policy_rejected_logps)
  reference = policy_difference(
    reference_chosen_logps, reference_rejected_logps
  )
  values, matched = _paired_by_rank(policy, reference, mask)
  return values - matched


def sorted_logratio_difference(
  policy_chosen_logps: Array,
  policy_rejected_logps: Array,
  reference_chosen_logps: Array,
  reference_rejected_logps: Array,
  *,
  mask: Array | None = None,
) -> Array:
  """sort(u) − sort(v) over the batch, each value where its u stands.

  Args, Returns: as `sorted_policy_reference_difference`.
  """
  chosen = logratio(policy_chosen_logps, reference_chosen_logps)
  rejected = logratio(policy_rejected_logps, reference_rejected_logps)
  values, matched = _paired_by_rank(chosen, rejected, mask)
  return values - matched


def length_desensitised(
  shared_logps: Array, tail_logps: Array, ld_alpha: Array | float
) -> Array:
  """shared_logps + ld_alpha · tail_logps, used in place of the summed logps.

  Args:
    shared_logps: `[B]`, Σ over the first min(length of the two) tokens.
    tail_logps: `[B]`, Σ over the tokens after them; 0 for the shorter one.
    ld_alpha: in [0, 1]; 1 is the ordinary sum.

  Raises:
    ValueError: ld_alpha, known at trace time, is outside [0, 1].

  Source: Liu et al., Length Desensitization in DPO, 2024, arXiv 2409.06411.
  """
  check_range('ld_alpha', ld_alpha, 0.0, 1.0)
  return as_float(shared_logps) + ld_alpha * as_float(tail_logps)


def _reverse_kl(logratios: Array, alpha) -> Array:
  del alpha
  return logratios


def _forward_kl(logratios: Array, alpha) -> Array:
  del alpha
  return deformed(-1.0, logratios)


def _jensen_shannon(logratios: Array, alpha) -> Array:
  del alpha
  return math.log(2.0) + log_sigmoid(logratios)


def _alpha(logratios: Array, alpha) -> Array:
  return deformed(jnp.asarray(alpha) - 1.0, logratios)


DIVERGENCES = {
  'reverse_kl': _reverse_kl,
  'forward_kl': _forward_kl,
  'js': _jensen_shannon,
  'alpha': _alpha,
}


def divergence_score(
  logratios: Array, divergence: str, alpha: Array | float = 0.5
) -> Array:
  """f′(π/π_ref), what replaces the log-ratio u under another f-divergence.

    reverse_kl: u                      forward_kl: 1 − e^{−u}
    js: log 2 + log σ(u)               alpha: (e^{(alpha−1)·u} − 1)/(alpha − 1)

  alpha → 1 is reverse_kl, alpha = 0 forward_kl. Exponents are clamped at 80
  (float32) or 700 (float64). The normaliser of the optimal policy cancels only
  in a difference of two scores, so only methods of the difference may use it.

  Raises:
    ValueError: divergence is unknown.

  Source: Wang et al., Beyond Reverse KL, 2023, arXiv 2309.16240, whose alpha is
  1 − alpha here.
  """
  if divergence not in DIVERGENCES:
    raise ValueError(
      f'divergence = {divergence!r} is none of {sorted(DIVERGENCES)}'
    )
  return DIVERGENCES[divergence](as_float(logratios), alpha)

"""Aggregates: unreduced losses and weights to one term.

Every aggregate takes losses `[B]` and weights `[B]` ≥ 0 (multiplicities: weight
2 is the pair twice, weight 0 an empty slot whose loss is ignored) and returns a
`Term` whose value is the scalar to minimise, W = Σ weights its normaliser where
nothing else is said. All but `mean` couple the batch and are defined on the
global one.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from alignment.losses.numerics import check_range
from alignment.types import Array, Term

_stop = jax.lax.stop_gradient


def _present(losses: Array, weights: Array) -> Array:
  """Losses with 0 in empty slots, so that what stands there never counts."""
  return jnp.where(weights > 0, losses, 0.0)


def _ratio(total: Array, count: Array) -> Array:
  """total / count, 0 where count is 0."""
  return jnp.where(count > 0, total / jnp.where(count > 0, count, 1.0), 0.0)


def mean(losses: Array, weights: Array) -> Term:
  """Weighted mean.

    value = Σ w·ℓ / W

  The only aggregate that does not couple the batch.
  """
  return Term(jnp.sum(weights * _present(losses, weights)), jnp.sum(weights))


def dr_dpo(
  losses: Array, weights: Array, *, beta_prime: Array | float = 1.0
) -> Term:
  """Dr. DPO: optimistic soft minimum over the pairs.

    value = −beta_prime·[log Σ w·e^{−ℓ/beta_prime} − log W]

  Its gradient is Σ softmax(log w − ℓ/beta_prime)·∇ℓ: large losses count less.
  beta_prime → ∞ is the mean, → 0 the smallest loss.

  Raises:
    ValueError: beta_prime, known at trace time, is not positive.

  Source: Wu et al., Towards Robust Alignment of Language Models, 2024,
  arXiv 2407.07880; in logs, where the authors exponentiate.
  """
  check_range('beta_prime', beta_prime, 0.0, math.inf, '()')
  count = jnp.sum(weights)
  safe = jnp.where(weights > 0, weights, 1.0)
  logits = jnp.log(safe) - _present(losses, weights) / beta_prime
  # An empty batch keeps one finite logit; its value is dropped by W = 0.
  keep = (weights > 0) | (count == 0)
  log_mean = jax.nn.logsumexp(jnp.where(keep, logits, -jnp.inf)) - jnp.log(
    jnp.where(count > 0, count, 1.0)
  )
  return Term(-beta_prime * log_mean * count, count)


def kldpo(
  losses: Array,
  weights: Array,
  *,
  tau: Array | float = 1.0,
  ceiling: Array | float = 10.0,
) -> Term:
  """KLDPO: pessimistic reweighting over a KL ball, as its code has it.

    value = Σ w·k·ℓ / W,   k = min(e^{(ℓ − mean ℓ)/tau}, ceiling), no gradient

  k is not normalised. It makes large losses count more: a defence against a
  shift of preferences, and the opposite of one against flips.

  Raises:
    ValueError: tau or ceiling, known at trace time, is not positive.

  Source: Xu et al., Robust LLM Alignment via Distributionally Robust Direct
  Preference Optimization, 2025, arXiv 2502.01930.
  """
  check_range('tau', tau, 0.0, math.inf, '()')
  check_range('ceiling', ceiling, 0.0, math.inf, '()')
  losses = _present(losses, weights)
  average = _ratio(jnp.sum(weights * losses), jnp.sum(weights))
  exponent = jnp.minimum((losses - average) / tau, jnp.log(ceiling))
  factors = _stop(jnp.exp(exponent))
  return Term(jnp.sum(weights * factors * losses), jnp.sum(weights))


def weighted_quantile(
  values: Array, weights: Array, quantile: Array | float
) -> Array:
  """Quantile of values repeated `weights` times, linear between neighbours.

  Integer weights give exactly the quantile of the expanded sample (position
  quantile·(W − 1)); other weights interpolate the same rule.

  Args:
    values: `[B]`.
    weights: `[B]` ≥ 0.
    quantile: in [0, 1].

  Returns:
    scalar; no gradient.
  """
  values = _stop(jnp.where(weights > 0, values, jnp.inf))
  order = jnp.argsort(values)
  values, cumulative = values[order], jnp.cumsum(weights[order])
  position = jnp.maximum(quantile * (cumulative[-1] - 1.0), 0.0)
  # The last occupied entry, so that rounding never reads an empty slot.
  last = jnp.maximum(jnp.sum(weights > 0) - 1, 0)
  below, above = (
    values[jnp.minimum(jnp.searchsorted(cumulative, at, side='right'), last)]
    for at in (jnp.floor(position), jnp.ceil(position))
  )
  result = below + (position - jnp.floor(position)) * (above - below)
  return jnp.where(cumulative[-1] > 0, result, 0.0)


def winsor(
  losses: Array, weights: Array, *, quantile: Array | float = 0.9
) -> Term:
  """Winsorised mean: losses above a quantile count as that quantile.

    value = Σ w·min(ℓ, quantile of ℓ) / W

  What is above gets no gradient; the quantile carries none either.

  Raises:
    ValueError: quantile, known at trace time, is outside [0, 1].

  Source: Dixon, Simplified Estimation from Censored Normal Samples, 1960.
  """
  check_range('quantile', quantile, 0.0, 1.0)
  limit = weighted_quantile(losses, weights, quantile)
  return mean(jnp.where(losses > limit, limit, losses), weights)


def trimmed(
  losses: Array, weights: Array, *, fraction: Array | float = 0.1
) -> Term:
  """Trimmed mean: the largest losses, a given fraction of W, are left out.

    value = Σ kept·ℓ / Σ kept,   Σ kept = (1 − fraction)·W

  The pair at the edge is kept in part. kept carries no gradient.

  Raises:
    ValueError: fraction, known at trace time, is outside [0, 1).

  Source: the filtering step of Liang et al., Robust Preference Optimization,
  2024, arXiv 2404.04102.
  """
  check_range('fraction', fraction, 0.0, 1.0, '[)')
  losses = _present(losses, weights)
  order = jnp.argsort(jnp.where(weights > 0, -_stop(losses), jnp.inf))
  sizes, losses = weights[order], losses[order]
  budget = fraction * jnp.sum(weights)
  dropped = jnp.clip(budget - (jnp.cumsum(sizes) - sizes), 0.0, sizes)
  kept = sizes - dropped
  return Term(jnp.sum(kept * losses), jnp.sum(kept))


def sparsemax(scores: Array, weights: Array) -> Array:
  """Projection of scores on the simplex Σ weights·a = 1, a ≥ 0.

    a = max(scores − threshold, 0)

  Args:
    scores: `[B]`.
    weights: `[B]` ≥ 0, how often each score is counted; 0 gives a = 0.

  Returns:
    `[B]`, the mass of each single copy.

  Source: Martins and Astudillo, From Softmax to Sparsemax, 2016,
  arXiv 1602.02068, with repeated entries.
  """
  is_present = weights > 0
  largest = jnp.max(jnp.where(is_present, scores, -jnp.inf))
  shifted = jnp.where(is_present, scores - largest, 0.0)
  order = jnp.argsort(jnp.where(is_present, -shifted, jnp.inf))
  sizes, ordered = weights[order], shifted[order]
  count, total = jnp.cumsum(sizes), jnp.cumsum(sizes * ordered)
  in_support = (1.0 + count * ordered > total) & (sizes > 0)
  last = jnp.maximum(jnp.sum(in_support) - 1, 0)
  threshold = _ratio(total[last] - 1.0, count[last])
  return jnp.where(is_present, jnp.maximum(shifted - threshold, 0.0), 0.0)


def flip_shares(
  gains: Array,
  weights: Array,
  flip_budget: Array | float,
  tau: Array | float,
) -> Array:
  """How much of each label wDPO takes back: Σ weights·share ≤ flip_budget·W.

    share = min(1, flip_budget·W·sparsemax(max(gain, 0)/tau))

  What the cap at 1 leaves over is spread once over the others in proportion.
  All shares are 0 where no gain is positive.

  Args:
    gains: `[B]`, ℓ(z) − ℓ(−z): what the pair would save by a flip.
    weights: `[B]` ≥ 0.
    flip_budget: in [0, 1].
    tau: > 0; smaller is sparser.

  Returns:
    `[B]` in [0, 1].
  """
  gains = jnp.where(weights > 0, jnp.maximum(gains, 0.0), 0.0)
  mass = sparsemax(gains / tau, weights)
  budget = flip_budget * jnp.sum(weights)
  shares = jnp.minimum(budget * mass, 1.0)
  left_over = jnp.maximum(budget - jnp.sum(weights * shares), 0.0)
  free = jnp.where(shares < 1.0, mass, 0.0)
  extra = left_over * _ratio(free, jnp.sum(weights * free))
  shares = jnp.minimum(shares + extra, 1.0)
  return jnp.where(jnp.any(gains > 0), shares, 0.0)


def winsor_shares(
  losses: Array,
  weights: Array,
  limit: Array,
  budget: Array,
  sharpness: Array | float,
) -> Array:
  """How far each loss is pulled down to `limit`.

    share = min(1, budget·s^sharpness / Σ w·s^sharpness), s = max(ℓ − limit, 0)

  Args:
    losses: `[B]`, 0 in empty slots.
    weights: `[B]` ≥ 0.
    limit: scalar.
    budget: scalar, Σ weights·share wanted.
    sharpness: > 0.

  Returns:
    `[B]` in [0, 1].
  """
  excess = jnp.where(weights > 0, jnp.maximum(losses - limit, 0.0), 0.0)
  # Scaled by the largest, so that a power never overflows.
  excess = _ratio(excess, jnp.max(excess)) ** sharpness
  return jnp.minimum(budget * _ratio(excess, jnp.sum(weights * excess)), 1.0)


def wdpo(
  losses: Array,
  weights: Array,
  *,
  swapped_losses: Array,
  flip_budget: Array | float = 0.1,
  tau: Array | float = 1.0,
  quantile: Array | float = 0.85,
  winsor_floor: Array | float = 0.02,
  winsor_ceiling: Array | float = 0.2,
  sharpness: Array | float = 1.0,
) -> Term:
  """wDPO: takes suspicious labels back in part, then winsorises the rest.

    mixed = (1 − π)·ℓ + π·swapped,            π = flip_shares(ℓ − swapped)
    value = Σ w·[(1 − r)·mixed + r·limit] / W, r = winsor_shares(mixed, …)
    budget of r = W·[floor + (ceiling − floor)·mean σ(−z / mean |z|)]

  z = swapped − ℓ, which is the margin for the logistic link. π, r and limit
  carry no gradient. flip_budget = 0 and winsor_ceiling = winsor_floor = 0
  leave the mean; the authors start the first stage late, which a traced
  flip_budget does.

  Args:
    losses: `[B]`.
    weights: `[B]`.
    swapped_losses: `[B]`, the method with chosen and rejected exchanged.
    flip_budget: share of W whose labels are taken back, in [0, 1].
    tau: temperature of the sparse choice, > 0.
    quantile: of the mixed losses, above which they are pulled down.
    winsor_floor: smallest winsor budget, share of W.
    winsor_ceiling: largest.
    sharpness: > 1 spends the winsor budget on the largest losses.

  Raises:
    ValueError: a share or quantile outside [0, 1], tau or sharpness not
      positive, known at trace time.

  Source: Liu et al., wDPO: Winsorized Direct Preference Optimization, 2026,
  arXiv 2603.07211, and the authors' code.
  """
  for name, value in (
    ('flip_budget', flip_budget),
    ('quantile', quantile),
    ('winsor_floor', winsor_floor),
    ('winsor_ceiling', winsor_ceiling),
  ):
    check_range(name, value, 0.0, 1.0)
  check_range('tau', tau, 0.0, math.inf, '()')
  check_range('sharpness', sharpness, 0.0, math.inf, '()')
  count = jnp.sum(weights)
  losses = _present(losses, weights)
  swapped = _present(swapped_losses, weights)
  z = _stop(swapped - losses)
  flips = flip_shares(-z, weights, flip_budget, tau)
  mixed = (1.0 - flips) * losses + flips * swapped
  severity = jax.nn.sigmoid(
    -_ratio(z, _ratio(jnp.sum(weights * jnp.abs(z)), count))
  )
  doubt = _ratio(jnp.sum(weights * severity), count)
  budget = count * (winsor_floor + (winsor_ceiling - winsor_floor) * doubt)
  limit = weighted_quantile(mixed, weights, quantile)
  pulled = winsor_shares(_stop(mixed), weights, limit, budget, sharpness)
  return mean((1.0 - pulled) * mixed + pulled * limit, weights)


AGGREGATES = {
  'mean': mean,
  'dr_dpo': dr_dpo,
  'kldpo': kldpo,
  'wdpo': wdpo,
  'winsor': winsor,
  'trimmed': trimmed,
}

"""Links: scalar functions ℓ(z) of the margin z = β·h.

`z` is the signed margin of the pair as labelled; the loss of the swapped pair
is ℓ(−z). Every link maps `[B]` to `[B]`, unreduced, and is finite with a finite
gradient for |z| ≤ 1e4 in float32 unless its docstring states a clamp.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from alignment.losses.numerics import (
  check_range,
  deformed,
  log_sigmoid,
  safe_exp,
)
from alignment.types import Array


def logistic(z: Array) -> Array:
  """−log σ(z), the Bradley-Terry negative log-likelihood, nats."""
  return jax.nn.softplus(-z)


def shifted(z: Array, gamma: Array | float) -> Array:
  """−log σ(z − gamma): the pair has to win by gamma.

  The shift belongs to the link: the swapped pair costs −log σ(−z − gamma), and
  only with that does a backward correction stay unbiased.
  """
  return logistic(z - gamma)


def squared(z: Array, beta: Array | float) -> Array:
  """((z − ½) / beta)²: regression of the margin on 1 / (2·beta)."""
  return jnp.square((z - 0.5) / beta)


def hinge(z: Array) -> Array:
  """max(0, 1 − z); the gradient at the kink is 0."""
  return jax.nn.relu(1.0 - z)


def sigmoid(z: Array) -> Array:
  """σ(−z). Symmetric: ℓ(z) + ℓ(−z) = 1."""
  return jax.nn.sigmoid(-z)


def unhinged(z: Array) -> Array:
  """1 − z, unbounded below. Symmetric: ℓ(z) + ℓ(−z) = 2."""
  return 1.0 - z


def ramp(z: Array) -> Array:
  """clip(½ − ½z, 0, 1). Symmetric: ℓ(z) + ℓ(−z) = 1."""
  return jnp.clip(0.5 - 0.5 * z, 0.0, 1.0)


def exo(z: Array, label_smoothing: Array | float) -> Array:
  """KL of Bernoulli(σ(z)) from Bernoulli(1 − ε), a reverse divergence.

  ℓ(z) = σ(z)·[log σ(z) − log(1 − ε)] + σ(−z)·[log σ(−z) − log ε].

  Infinite at ε = 0; a traced ε is read as at least the smallest normal number.

  Raises:
    ValueError: label_smoothing, known at trace time, is outside (0, ½).
  """
  check_range('label_smoothing', label_smoothing, 0.0, 0.5, '()')
  smallest = jnp.finfo(z.dtype).tiny
  flip = jnp.maximum(jnp.asarray(label_smoothing, z.dtype), smallest)
  win, lose = log_sigmoid(z), log_sigmoid(-z)
  return jnp.exp(win) * (win - jnp.log1p(-flip)) + jnp.exp(lose) * (
    lose - jnp.log(flip)
  )


def discopop(z: Array, tau: Array | float) -> Array:
  """−log σ(z)·(1 − m) + e^{−z}·m with the mixing weight m = σ(z / tau).

  The product e^{−z}·m is formed in logs, so it never is ∞·0. For tau > 1 it
  grows like e^{−z·(1 − 1/tau)}; its exponent is clamped at 80 (float32) or 700
  (float64), beyond which it is constant.

  Raises:
    ValueError: tau, known at trace time, is not positive.
  """
  check_range('tau', tau, 0.0, jnp.inf, '()')
  exponential = safe_exp(-z + log_sigmoid(z / tau))
  return logistic(z) * jax.nn.sigmoid(-z / tau) + exponential


def gce(z: Array, q: Array | float) -> Array:
  """(1 − σ(z)^q) / q: −log σ(z) as q → 0, σ(−z) at q = 1.

  Raises:
    ValueError: q, known at trace time, is outside [0, 1].
  """
  check_range('q', q, 0.0, 1.0)
  return -deformed(q, log_sigmoid(z))


def truncated_gce(
  z: Array, q: Array | float, threshold: Array | float
) -> Array:
  """min(gce at σ(z), gce at threshold): pairs with σ(z) ≤ threshold are pruned.

  Raises:
    ValueError: q outside [0, 1] or threshold outside (0, 1), known at trace
      time.
  """
  check_range('threshold', threshold, 0.0, 1.0, '()')
  log_threshold = jnp.log(jnp.asarray(threshold, z.dtype))
  ceiling = -deformed(q, log_threshold)
  return jnp.where(log_sigmoid(z) > log_threshold, gce(z, q), ceiling)


def sce(
  z: Array,
  forward_weight: Array | float,
  reverse_weight: Array | float,
) -> Array:
  """forward_weight·(−log σ(z)) + reverse_weight·σ(−z)."""
  return forward_weight * logistic(z) + reverse_weight * sigmoid(z)


def holder(z: Array, gamma: Array | float) -> Array:
  """−(1 + gamma)·σ(z)^gamma + gamma·σ(z)^{1 + gamma}, in [−1, 0].

  Raises:
    ValueError: gamma, known at trace time, is not positive.
  """
  check_range('gamma', gamma, 0.0, jnp.inf, '()')
  power = jnp.exp(gamma * log_sigmoid(z))
  return -power * (1.0 + gamma * jax.nn.sigmoid(-z))

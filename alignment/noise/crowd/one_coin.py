"""The one-coin model: every worker has one probability of being right."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from alignment.noise.crowd import em
from alignment.noise.crowd.fit import CrowdFit
from alignment.noise.crowd.table import VoteTable
from alignment.types import Array


def one_coin(
  votes: VoteTable,
  *,
  smoothing: float = 0.1,
  tolerance: float = 1e-7,
  max_iterations: int = 1000,
) -> CrowdFit:
  """Dawid-Skene with confusion[a, i, j] = skill[a] if i = j else
  (1 − skill[a]) / (C − 1).

    M step: skill[a] = (smoothing + Σ_votes posterior[task, label])
                       / (2 · smoothing + number of votes)

  One number per worker where `dawid_skene` has C·(C − 1): the better of the
  two for workers with few votes, and biased where errors have a direction.

  Args:
    votes: A workers, I tasks, C classes.
    smoothing: ≥ 0, pseudo-votes that are right, and as many that are wrong.
    tolerance: > 0, rise of the objective in nats per vote at which EM stops.
    max_iterations: ≥ 1.

  Raises:
    ValueError: a range is violated, or as `checks.check_votes`.

  Source: Zhang et al., Spectral methods meet EM: a provably optimal algorithm
  for crowdsourcing, 2016, arXiv 1406.3824; start and smoothing differ.
  """
  return em.fit(
    votes,
    estimate,
    smoothing,
    tolerance,
    max_iterations,
  )


def estimate(counts: Array, smoothing: Array) -> tuple[Array, Array]:
  """The M step: the share of votes on the diagonal, smoothed.

  Args:
    counts: `[A, C says, C true, S]`.
    smoothing: pseudo-votes on each side.

  Returns:
    log confusion in the shape of `counts`, log prior density `[S]`.
  """
  num_classes = counts.shape[1]
  right = jnp.einsum('aiis->as', counts) + smoothing
  total = counts.sum(axis=(1, 2)) + 2 * smoothing
  skill = jnp.where(total > 0, right / jnp.where(total > 0, total, 1), 0.5)
  skill = jnp.clip(skill, em.FLOOR, 1 - em.FLOOR)
  log_right, log_wrong = jnp.log(skill), jnp.log1p(-skill)
  is_right = jnp.eye(num_classes, dtype=bool)[None, :, :, None]
  log_confusion = jnp.where(
    is_right,
    log_right[:, None, None],
    (log_wrong - jnp.log(num_classes - 1))[:, None, None],
  )
  return log_confusion, smoothing * (log_right + log_wrong).sum(axis=0)


one_coin_weighted = functools.partial(em.fit_weighted, estimate=estimate)
"""(votes, weights `[S, I]`) -> Parameters: the model once per bootstrap."""

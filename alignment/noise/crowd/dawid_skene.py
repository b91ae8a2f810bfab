"""Dawid and Skene's model: every worker has a confusion matrix of its own."""

from __future__ import annotations

import functools

import jax.numpy as jnp

from alignment.noise.crowd import em
from alignment.noise.crowd.fit import CrowdFit
from alignment.noise.crowd.table import VoteTable
from alignment.types import Array


def dawid_skene(
  votes: VoteTable,
  *,
  smoothing: float = 0.1,
  tolerance: float = 1e-7,
  max_iterations: int = 1000,
) -> CrowdFit:
  """Maximum likelihood (smoothed) of confusion matrices and class prior.

    P(votes of a task) = Σ_i prior[i] · Π_votes confusion[worker, i, label]
    M step: confusion[a, i, j] ∝ smoothing + Σ_votes posterior[task, i] · [j]

  Votes on a task must be independent given its class. Needs at least three
  workers per task, on average, to tell skills apart; with two, or with workers
  mostly worse than chance, the classes are what the majority calls them.

  Args:
    votes: A workers, I tasks, C classes.
    smoothing: ≥ 0, pseudo-votes per entry (Dirichlet of 1 + smoothing); it
      keeps a worker of few votes from certainty.
    tolerance: > 0, rise of the objective in nats per vote at which EM stops.
    max_iterations: ≥ 1.

  Raises:
    ValueError: a range is violated, or as `checks.check_votes`.

  Source: Dawid and Skene, Maximum likelihood estimation of observer
  error-rates using the EM algorithm, 1979; smoothing is added.
  """
  return em.fit(
    votes,
    estimate,
    smoothing,
    tolerance,
    max_iterations,
  )


def estimate(counts: Array, smoothing: Array) -> tuple[Array, Array]:
  """The M step: rows of expected counts, smoothed and normalised.

  Args:
    counts: `[A, C says, C true, S]`.
    smoothing: pseudo-votes per entry.

  Returns:
    log confusion in the shape of `counts`, log prior density `[S]`.
  """
  counts = jnp.maximum(counts + smoothing, em.FLOOR)
  log_confusion = jnp.log(counts) - jnp.log(counts.sum(axis=1, keepdims=True))
  return log_confusion, smoothing * log_confusion.sum(axis=(0, 1, 2))


dawid_skene_weighted = functools.partial(em.fit_weighted, estimate=estimate)
"""(votes, weights `[S, I]`) -> Parameters: the model once per bootstrap."""

"""Majority vote: every worker counts the same."""

from __future__ import annotations

import numpy as np

from alignment.noise.crowd import em
from alignment.noise.crowd.checks import check_votes, flag
from alignment.noise.crowd.dawid_skene import estimate
from alignment.noise.crowd.fit import CrowdFit, Parameters
from alignment.noise.crowd.table import VoteTable


def majority(votes: VoteTable) -> CrowdFit:
  """Shares of votes as class probabilities, and agreement with them.

    task_probs[i, c] = share of the votes on task i that say c
    confusion[a, i, j] ∝ Σ_votes task_probs[task, i] · [label = j]

  The floor beside every model, and where the others start. A worker's own
  vote counts in the share, so with few votes per task skills are too high.

  Args:
    votes: A workers, I tasks, C classes.

  Raises:
    ValueError: as `checks.check_votes`.
  """
  check_votes(votes)
  found = majority_weighted(votes, np.ones((1, votes.num_tasks)))
  num_votes = votes.counts.sum(axis=1, keepdims=True)
  shares = votes.counts / num_votes.clip(1)
  return flag(
    votes,
    CrowdFit(
      task_probs=np.where(num_votes > 0, shares, found.prior[0]),
      confusion=found.confusion[0],
      prior=found.prior[0],
      skill=found.skill[0],
      log_likelihood=float('nan'),
      iterations=0,
      converged=True,
    ),
  )


def majority_weighted(votes: VoteTable, weights: np.ndarray) -> Parameters:
  """`majority` once per row of `weights` `[S, I]`: EM that does not start."""
  found = em.fit_weighted(
    votes, weights, estimate=estimate, smoothing=0.0, max_iterations=0
  )
  return found._replace(
    log_likelihood=np.full(len(weights), np.nan),
    converged=np.ones(len(weights), bool),
  )

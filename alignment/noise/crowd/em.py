"""Expectation-maximisation over vote tables, all bootstraps at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from alignment.noise.crowd.checks import check_votes, check_weights, flag
from alignment.noise.crowd.fit import CrowdFit, Parameters
from alignment.noise.crowd.rows import Rows, lay_out, sum_votes, tally
from alignment.noise.crowd.table import VoteTable
from alignment.types import Array

FLOOR = 1e-10
"""Least expected count and least probability, so that logs are finite."""

_AT_ONCE = 4_000_000
"""Posterior probabilities held at a time."""

Estimate = Callable[[Array, Array], tuple[Array, Array]]
"""(expected counts `[A, C says, C true, S]`, smoothing) -> log confusion of
the same shape, log prior density `[S]`."""


class _State(NamedTuple):
  log_prior: Array
  log_confusion: Array
  value: Array
  log_likelihood: Array
  iterations: Array
  is_done: Array


def fit(
  votes: VoteTable,
  estimate: Estimate,
  smoothing: float,
  tolerance: float,
  max_iterations: int,
) -> CrowdFit:
  """Fits with every task alike; see `fit_weighted`."""
  check_votes(votes)
  _check(smoothing, tolerance, max_iterations)
  with jax.enable_x64(True):
    rows = lay_out(votes)
    weights = jnp.ones((votes.num_tasks, 1))
    run = rows, jnp.asarray(_shares(votes)), weights, smoothing, tolerance
    state, has_votes = _em(*run, max_iterations, estimate, votes.num_workers)
    joint = _joint(state.log_prior, state.log_confusion, rows, votes.num_tasks)
    task_probs = jax.nn.softmax(joint, axis=1)[..., 0]
    voted = votes.counts.any(axis=1)
    log_likelihood = np.sum(logsumexp(joint, axis=1)[voted])
  found = _parameters(state, has_votes)
  return flag(
    votes,
    CrowdFit(
      task_probs=np.asarray(task_probs),
      confusion=found.confusion[0],
      prior=found.prior[0],
      skill=found.skill[0],
      log_likelihood=float(log_likelihood),
      iterations=int(found.iterations[0]),
      converged=bool(found.converged[0]),
    ),
  )


def fit_weighted(
  votes: VoteTable,
  weights: np.ndarray,
  *,
  estimate: Estimate,
  smoothing: float = 0.1,
  tolerance: float = 1e-7,
  max_iterations: int = 1000,
) -> Parameters:
  """Maximises the weighted likelihood of the votes, once per row of weights.

  E: posterior[i, j] ∝ prior[j] · Π_votes confusion[worker, j, label]
  M: counts[a, l, j] = Σ_votes weights[task] · posterior[task, j], prior[j] =
  mean of the posterior, confusion = estimate(counts, smoothing)

  Starts from the shares of votes, which fixes what the classes mean. A fit
  stops where log-likelihood + log prior density rises by less than `tolerance`
  per vote; what has stopped stays, while the others go on.

  Args:
    votes: A workers, I tasks, C classes.
    weights: `[S, I]` ≥ 0: how often each task counts.
    estimate: the M step of the model, a module-level function.
    smoothing: ≥ 0, pseudo-votes per entry of what the model estimates.
    tolerance: > 0, nats per vote.
    max_iterations: ≥ 0; 0 leaves the parameters of the start.

  Raises:
    ValueError: a range is violated, or as `check_votes`.
  """
  check_votes(votes)
  check_weights(votes, weights)
  _check(smoothing, tolerance, max_iterations)
  rows, shares = lay_out(votes), _shares(votes)
  size = max(1, _AT_ONCE // shares.size)
  parts = []
  for start in range(0, len(weights), size):
    part = np.asarray(weights[start : start + size], np.float64)
    with jax.enable_x64(True):
      # One shape for all parts, so that one program serves them.
      filled = np.ones((min(size, len(weights)), votes.num_tasks))
      filled[: len(part)] = part
      run = rows, jnp.asarray(shares), jnp.asarray(filled.T), smoothing
      state, has_votes = _em(
        *run, tolerance, max_iterations, estimate, votes.num_workers
      )
    found = _parameters(state, has_votes)
    parts.append(Parameters(*(field[: len(part)] for field in found)))
  return Parameters(*map(np.concatenate, zip(*parts, strict=True)))


@functools.partial(jax.jit, static_argnames=('estimate', 'num_workers'))
def _em(
  rows: Rows,
  shares: Array,
  weights: Array,
  smoothing: Array,
  tolerance: Array,
  max_iterations: Array,
  estimate: Estimate,
  num_workers: int,
) -> tuple[_State, Array]:
  """EM on `weights` `[I, S]`; also `[A, S]`, whether a worker has votes.

  Bootstraps are the last axis: gathers and scatters then move whole rows.
  """
  num_tasks, num_classes = shares.shape
  num_cells = num_workers * num_classes
  votes_of = (
    tally(weights, rows, num_cells)
    .reshape(num_workers, -1, weights.shape[1])
    .sum(1)
  )
  num_votes = votes_of.sum(axis=0)
  # Tasks without votes say nothing, also not of the prior.
  weights = weights * (shares.sum(axis=1, keepdims=True) > 0)

  def maximise(posterior: Array) -> tuple[Array, Array, Array]:
    weighted = posterior * weights[:, None]
    prior = weighted.sum(axis=0) / weights.sum(axis=0)
    counts = tally(weighted, rows, num_cells)
    counts = counts.reshape(num_workers, *2 * (num_classes,), -1)
    log_confusion, log_density = estimate(counts, smoothing)
    return jnp.log(jnp.maximum(prior, FLOOR)), log_confusion, log_density

  def step(carry: tuple[_State, Array]) -> tuple[_State, Array]:
    old, log_density = carry
    joint = _joint(old.log_prior, old.log_confusion, rows, num_tasks)
    evidence = logsumexp(joint, axis=1)
    log_likelihood = jnp.sum(weights * evidence, axis=0)
    value = log_likelihood + log_density
    is_done = old.is_done | (value - old.value < tolerance * num_votes)
    log_prior, log_confusion, density = maximise(
      jnp.exp(joint - evidence[:, None])
    )
    new = _State(
      jnp.where(is_done, old.log_prior, log_prior),
      jnp.where(is_done, old.log_confusion, log_confusion),
      value,
      log_likelihood,
      old.iterations + ~is_done,
      is_done,
    )
    return new, jnp.where(is_done, log_density, density)

  def goes_on(carry: tuple[_State, Array]) -> Array:
    state, _ = carry
    return jnp.any(~state.is_done & (state.iterations < max_iterations))

  log_prior, log_confusion, log_density = maximise(
    jnp.broadcast_to(shares[..., None], (*shares.shape, weights.shape[1]))
  )
  nothing = jnp.full(weights.shape[1], -jnp.inf)
  start = _State(
    log_prior,
    log_confusion,
    nothing,
    nothing,
    jnp.zeros(weights.shape[1], jnp.int32),
    jnp.zeros(weights.shape[1], bool),
  )
  state, _ = jax.lax.while_loop(goes_on, step, (start, log_density))
  return state, votes_of > 0


def _joint(
  log_prior: Array, log_confusion: Array, rows: Rows, num_tasks: int
) -> Array:
  """`[I, C, S]`, log P(true class, votes of the task)."""
  table = log_confusion.reshape(-1, *log_confusion.shape[2:])
  return log_prior + sum_votes(table, rows, num_tasks)


def _parameters(state: _State, has_votes: Array) -> Parameters:
  # [A, C says, C true, S] -> [S, A, C true, C says]
  confusion = np.exp(np.asarray(state.log_confusion)).transpose(3, 0, 2, 1)
  has_votes = np.asarray(has_votes).T
  return Parameters(
    prior=np.exp(np.asarray(state.log_prior)).T,
    confusion=np.where(has_votes[..., None, None], confusion, np.nan),
    log_likelihood=np.asarray(state.log_likelihood),
    iterations=np.asarray(state.iterations),
    converged=np.asarray(state.is_done),
  )


def _shares(votes: VoteTable) -> np.ndarray:
  """`[I, C]`, the share of votes of each class; 0 where there is no vote."""
  return votes.counts / votes.counts.sum(axis=1, keepdims=True).clip(1)


def _check(smoothing: float, tolerance: float, max_iterations: int) -> None:
  if not 0 <= smoothing < np.inf:
    raise ValueError(f'smoothing={smoothing} must be >= 0 and finite')
  if not 0 < tolerance < np.inf:
    raise ValueError(f'tolerance={tolerance} must be > 0 and finite')
  if max_iterations < 0:
    raise ValueError(f'max_iterations={max_iterations} must be >= 0')

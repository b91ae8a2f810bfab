"""Expectation-maximisation over vote tables, all bootstraps at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.noise.crowd.checks import (
  check_positive,
  check_votes,
  check_weights,
  flag,
)
from alignment.noise.crowd.fit import CrowdFit, Parameters
from alignment.noise.crowd.rows import Rows, lay_out, sum_votes, tally
from alignment.noise.crowd.table import VoteTable
from alignment.types import Array

FLOOR = 1e-10
"""Least expected count and least probability, so that logs are finite."""

_AT_ONCE = 3_000_000
"""Posterior probabilities held at a time."""

_STRIDE = 4
"""Iterations between two looks at the likelihood: its logarithms cost as much
as all the rest of an iteration."""

Estimate = Callable[[Array, Array], tuple[Array, Array]]
"""(expected counts `[A, C says, C true, S]`, smoothing) -> log confusion of
the same shape, log prior density `[S]`."""


class _State(NamedTuple):
  """Of S fits: logs of the parameters, and how far EM has come."""

  log_prior: Array
  log_confusion: Array
  log_density: Array
  value: Array
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
    found = _em(*run, max_iterations, estimate, votes.num_workers)
    odds = _log_odds(*found[0][:2], rows, votes.num_tasks)[..., 0]
    odds = jnp.concatenate([jnp.zeros((votes.num_tasks, 1)), odds], axis=1)
    task_probs = jax.nn.softmax(odds, axis=1)
  found = _parameters(*found)
  return flag(
    votes,
    CrowdFit(
      task_probs=np.asarray(task_probs),
      confusion=found.confusion[0],
      prior=found.prior[0],
      skill=found.skill[0],
      log_likelihood=float(found.log_likelihood[0]),
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
      found = _em(*run, tolerance, max_iterations, estimate, votes.num_workers)
    found = _parameters(*found)
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
) -> tuple[_State, Array, Array]:
  """EM on `weights` `[I, S]`: state, log-likelihood, has a worker votes.

  Bootstraps are the last axis: gathers and scatters then move whole rows.
  Class 0 is never carried along: its count is what the others leave.
  """
  num_classes, size = shares.shape[1], weights.shape[1]
  # Tasks without votes say nothing, also not of the prior.
  weights = weights * (shares.sum(axis=1, keepdims=True) > 0)
  votes_of = tally(weights, rows, num_workers * num_classes)

  def maximise(weighted: Array) -> tuple[Array, Array, Array]:
    """From weights · posterior of the classes but 0, `[I, C - 1, S]`."""
    others = weighted.sum(axis=0)
    total = weights.sum(axis=0)
    prior = jnp.concatenate([(total - others.sum(axis=0))[None], others])
    counts = tally(weighted, rows, len(votes_of))
    first = votes_of - counts.sum(axis=1)
    counts = jnp.concatenate([first[:, None], counts], axis=1)
    counts = counts.reshape(num_workers, num_classes, num_classes, size)
    # What rounding leaves of a class that nobody is in may be negative.
    log_prior = jnp.log(jnp.maximum(prior / total, FLOOR))
    return log_prior, *estimate(jnp.maximum(counts, 0), smoothing)

  def expect(state: _State) -> tuple[Array, Array, Array]:
    odds = _log_odds(state.log_prior, state.log_confusion, rows, len(shares))
    highest = jnp.maximum(odds.max(axis=1), 0)
    odds = jnp.exp(odds - highest[:, None])
    total = jnp.exp(-highest) + odds.sum(axis=1)
    return odds * (weights / total)[:, None], highest, total

  def look(state: _State) -> tuple[Array, Array]:
    """What `maximise` takes, and the log-likelihood `[S]`."""
    weighted, highest, total = expect(state)
    first = state.log_confusion[:, :, 0].reshape(votes_of.shape)
    log_likelihood = jnp.sum(weights * (highest + jnp.log(total)), axis=0)
    log_likelihood += weights.sum(axis=0) * state.log_prior[0]
    return weighted, log_likelihood + jnp.sum(votes_of * first, axis=0)

  def iterate(_: int, state: _State) -> _State:
    return _State(*maximise(expect(state)[0]), *state[3:])

  def step(state: _State) -> _State:
    weighted, log_likelihood = look(state)
    value = log_likelihood + state.log_density
    rise = (value - state.value) / votes_of.sum(axis=0)
    is_done = state.is_done | (rise < tolerance * _STRIDE)
    count = jnp.minimum(_STRIDE, max_iterations - state.iterations.max())
    iterations = state.iterations + jnp.where(is_done, 0, count)
    new = _State(*maximise(weighted), value, iterations, is_done)
    new = jax.lax.fori_loop(1, count, iterate, new)
    kept = jax.tree.map(
      lambda old, moved: jnp.where(is_done, old, moved), state[:3], new[:3]
    )
    return _State(*kept, *new[3:])

  def goes_on(state: _State) -> Array:
    return jnp.any(~state.is_done & (state.iterations < max_iterations))

  state = _State(
    *maximise(shares[:, 1:, None] * weights[:, None]),
    jnp.full(size, -jnp.inf),
    jnp.zeros(size, jnp.int32),
    jnp.zeros(size, bool),
  )
  state = jax.lax.while_loop(goes_on, step, state)
  has_votes = votes_of.reshape(num_workers, num_classes, size).any(axis=1)
  return state, look(state)[1], has_votes


def _log_odds(
  log_prior: Array, log_confusion: Array, rows: Rows, num_tasks: int
) -> Array:
  """`[I, C - 1, S]`, log P(class, votes) − log P(class 0, votes)."""
  table = log_confusion[:, :, 1:] - log_confusion[:, :, :1]
  table = table.reshape(-1, *table.shape[2:])
  prior = log_prior[1:] - log_prior[:1]
  return prior + sum_votes(table, rows, num_tasks)


def _parameters(
  state: _State, log_likelihood: Array, has_votes: Array
) -> Parameters:
  # [A, C says, C true, S] -> [S, A, C true, C says]
  confusion = np.exp(np.asarray(state.log_confusion)).transpose(3, 0, 2, 1)
  has_votes = np.asarray(has_votes).T
  return Parameters(
    prior=np.exp(np.asarray(state.log_prior)).T,
    confusion=np.where(has_votes[..., None, None], confusion, np.nan),
    log_likelihood=np.asarray(log_likelihood),
    iterations=np.asarray(state.iterations),
    converged=np.asarray(state.is_done),
  )


def _shares(votes: VoteTable) -> np.ndarray:
  """`[I, C]`, the share of votes of each class; 0 where there is no vote."""
  return votes.counts / votes.counts.sum(axis=1, keepdims=True).clip(1)


def _check(smoothing: float, tolerance: float, max_iterations: int) -> None:
  if not 0 <= smoothing < np.inf:
    raise ValueError(f'smoothing={smoothing} must be >= 0 and finite')
  check_positive(tolerance=tolerance)
  if max_iterations < 0:
    raise ValueError(f'max_iterations={max_iterations} must be >= 0')

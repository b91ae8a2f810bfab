"""GLAD: workers have an ability, tasks a difficulty."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from alignment.noise.crowd.checks import (
  check_positive,
  check_votes,
  check_weights,
  flag,
)
from alignment.noise.crowd.descent import minimise
from alignment.noise.crowd.fit import CrowdFit, Parameters
from alignment.noise.crowd.rows import Rows, lay_out
from alignment.noise.crowd.table import VoteTable
from alignment.types import Array

Params = dict[str, Array]
"""`ability` `[A]`, `log_easiness` `[I]`."""

_AT_ONCE = 2_000_000
"""Votes × bootstraps held at a time."""


def glad(
  votes: VoteTable,
  *,
  prior_scale: float = 1.0,
  tolerance: float = 1e-3,
  max_iterations: int = 500,
) -> CrowdFit:
  """Ability of workers and easiness of tasks, by marginal likelihood.

    P(a is right on i) = σ(ability[a] / difficulty[i]); wrong classes alike
    ability[a] ~ N(1, prior_scale²), −log difficulty[i] ~ N(1, prior_scale²)

  Classes are equally likely beforehand and are summed out: the gradient (by
  autodiff) is that of the marginal likelihood, whose maxima are where EM
  stops. A worker's skill is the mean of P(right) over the tasks voted on. A
  difficulty rests on the few votes of its task, so mostly on its prior.

  Args:
    votes: A workers, I tasks, C classes.
    prior_scale: > 0, standard deviation of both priors.
    tolerance: > 0, what is left to go, in standard errors (about).
    max_iterations: ≥ 1, of L-BFGS.

  Raises:
    ValueError: a range is violated, or as `checks.check_votes`.

  Source: Whitehill et al., Whose vote should count more, 2009; climbed
  directly instead of by EM.
  """
  weights = np.ones((1, votes.num_tasks))
  options = prior_scale, tolerance, max_iterations
  ((found, params, task_probs),) = _fits(votes, weights, *options)
  return flag(
    votes,
    CrowdFit(
      task_probs=task_probs[0],
      confusion=found.confusion[0],
      prior=found.prior[0],
      skill=found.skill[0],
      log_likelihood=float(found.log_likelihood[0]),
      iterations=int(found.iterations[0]),
      converged=bool(found.converged[0]),
      ability=params['ability'][0],
      difficulty=np.exp(-params['log_easiness'][0]),
    ),
  )


def glad_weighted(
  votes: VoteTable,
  weights: np.ndarray,
  *,
  prior_scale: float = 1.0,
  tolerance: float = 1e-3,
  max_iterations: int = 500,
) -> Parameters:
  """`glad` once per row of `weights` `[S, I]`.

  A task that counts twice is two tasks of the same difficulty.
  """
  options = prior_scale, tolerance, max_iterations
  parts = [part for part, *_ in _fits(votes, weights, *options)]
  return Parameters(*map(np.concatenate, zip(*parts, strict=True)))


def _fits(
  votes: VoteTable,
  weights: np.ndarray,
  prior_scale: float,
  tolerance: float,
  max_iterations: int,
) -> Iterator[tuple[Parameters, Params, np.ndarray]]:
  """Parameters, natural params and `[S, I, C]` task_probs, chunk by chunk."""
  check_votes(votes)
  check_weights(votes, weights)
  check_positive(
    prior_scale=prior_scale, tolerance=tolerance, max_iterations=max_iterations
  )
  rows = lay_out(votes)
  counts = (
    np.bincount(votes.worker, minlength=votes.num_workers),
    np.bincount(votes.task, minlength=votes.num_tasks),
  )
  size = max(1, _AT_ONCE // rows.cells.size)
  for start in range(0, len(weights), size):
    part = np.asarray(weights[start : start + size], np.float64)
    with jax.enable_x64(True):
      filled = np.ones((min(size, len(weights)), votes.num_tasks))
      filled[: len(part)] = part
      found = _descend(
        rows,
        *counts,
        filled * (counts[1] > 0),
        prior_scale,
        tolerance,
        max_iterations,
        num_classes=votes.num_classes,
      )
    kept = slice(len(part))
    params, skill, task_probs, rest = jax.tree.map(
      lambda x, kept=kept: np.asarray(x)[kept], found
    )
    yield _parameters(skill, votes.num_classes, *rest), params, task_probs


@functools.partial(jax.jit, static_argnames='num_classes')
def _descend(
  rows: Rows,
  votes_of_worker: Array,
  votes_of_task: Array,
  weights: Array,
  prior_scale: Array,
  tolerance: Array,
  max_iterations: Array,
  *,
  num_classes: int,
) -> tuple[Params, Array, Array, tuple[Array, Array, Array]]:
  """Of S fits: params, skill, task_probs; value, iterations, converged."""
  # Units in which every curvature is about 1, whatever the number of votes.
  unit = {
    'ability': (votes_of_worker / 4 + prior_scale**-2) ** -0.5,
    'log_easiness': (votes_of_task / 4 + prior_scale**-2) ** -0.5,
  }

  def natural(params: Params) -> Params:
    return jax.tree.map(lambda x, scale: 1 + x * scale, params, unit)

  def log_likelihood(params: Params, weights: Array) -> Array:
    joint = _log_joint(natural(params), rows, num_classes)
    return jnp.sum(weights * jax.nn.logsumexp(joint, axis=1))

  def objective(params: Params, weights: Array) -> Array:
    distance = jax.tree.map(
      lambda x: ((x - 1) / prior_scale) ** 2 / 2, natural(params)
    )
    penalty = distance['ability'].sum()
    penalty += jnp.sum(weights * distance['log_easiness'])
    return penalty - log_likelihood(params, weights)

  found = minimise(
    objective,
    jax.tree.map(jnp.zeros_like, unit),
    weights,
    tolerance=tolerance,
    max_iterations=max_iterations,
  )

  def describe(params: Params, weights: Array) -> tuple[Array, Array]:
    joint = _log_joint(natural(params), rows, num_classes)
    is_right = jax.nn.sigmoid(_support(natural(params), rows, num_classes))
    worker = rows.cells // num_classes
    share = jnp.zeros((2, len(votes_of_worker) + 1))
    weight = weights if rows.owner is None else weights[rows.owner]
    weight = jnp.broadcast_to(weight[:, None], worker.shape)
    share = share.at[0, worker].add(weight * is_right)
    share = share.at[1, worker].add(weight)[:, :-1]
    skill = share[0] / jnp.where(share[1] > 0, share[1], jnp.nan)
    return skill, jax.nn.softmax(joint, axis=1)

  skill, task_probs = jax.vmap(describe)(found.params, weights)
  value = jax.vmap(log_likelihood)(found.params, weights)
  rest = value, found.iterations, found.converged
  return jax.vmap(natural)(found.params), skill, task_probs, rest


def _support(params: Params, rows: Rows, num_classes: int) -> Array:
  """`[K, W]`, ability / difficulty of every vote; 0 where there is none."""
  ability = jnp.append(params['ability'], 0.0)[rows.cells // num_classes]
  easiness = jnp.exp(params['log_easiness'])
  if rows.owner is not None:
    easiness = easiness[rows.owner]
  return ability * easiness[:, None]


def _log_joint(params: Params, rows: Rows, num_classes: int) -> Array:
  """`[I, C]`, log P(class, votes of the task)."""
  support = _support(params, rows, num_classes)
  says, worker = rows.cells % num_classes, rows.cells // num_classes
  is_vote = worker < len(params['ability'])
  spread = jnp.log(num_classes - 1)
  wrong = jnp.where(is_vote, jax.nn.log_sigmoid(-support) - spread, 0)
  # log σ(x) − log σ(−x) = x
  gain = jnp.where(is_vote, support + spread, 0)
  joint = jnp.stack(
    [
      jnp.sum(wrong + jnp.where(says == c, gain, 0), axis=1)
      for c in range(num_classes)
    ],
    axis=1,
  )
  if rows.owner is not None:
    num_tasks = len(params['log_easiness'])
    joint = jax.ops.segment_sum(
      joint, rows.owner, num_tasks, indices_are_sorted=True
    )
  return joint - jnp.log(num_classes)


def _parameters(
  skill: np.ndarray,
  num_classes: int,
  log_likelihood: np.ndarray,
  iterations: np.ndarray,
  converged: np.ndarray,
) -> Parameters:
  wrong = (1 - skill) / (num_classes - 1)
  confusion = np.where(
    np.eye(num_classes, dtype=bool),
    skill[..., None, None],
    wrong[..., None, None],
  )
  return Parameters(
    prior=np.full((len(skill), num_classes), 1 / num_classes),
    confusion=confusion,
    log_likelihood=log_likelihood,
    iterations=iterations,
    converged=converged,
  )

"""Scores from comparisons by workers who may be unreliable.

Every model is a log-probability of one comparison given params; gradients are
autodiff's, the descent is shared, and so is the prior on scores: a virtual
item of score 0 against which every item won and lost `strength` times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from alignment.noise.crowd.checks import check_positive
from alignment.noise.crowd.comparisons import (
  ComparisonFit,
  Comparisons,
  check_connected,
)
from alignment.noise.crowd.descent import Minimum, minimise
from alignment.types import Array

Params = dict[str, Array]
"""`scores` `[N]`, and by model `skill` `[A]` and `bias` `[A]`, as log-odds."""

LogProb = Callable[[Params, Array, Array], Array]
"""(params of V comparisons, margin `[V]`, sign ±1 `[V]`) -> `[V]`."""

_AT_ONCE = 2_000_000
"""Comparisons × bootstraps held at a time."""


def bradley_terry(
  comparisons: Comparisons,
  *,
  strength: float = 0.1,
  tolerance: float = 1e-3,
  max_iterations: int = 500,
) -> ComparisonFit:
  """P(left wins) = σ(scores[left] − scores[right]), whoever judges.

  Args:
    comparisons: V rows of N items.
    strength: ≥ 0, of the prior; with 0 the items must be strongly connected.
    tolerance: > 0, what is left to go, in standard errors (about).
    max_iterations: ≥ 1.

  Raises:
    ValueError: a range is violated, or as `comparisons.check_connected`.

  Source: Bradley and Terry, Rank analysis of incomplete block designs, 1952.
  """
  return _fit(
    'bradley_terry', comparisons, strength, 0.0, tolerance, max_iterations
  )


def crowd_bt(
  comparisons: Comparisons,
  *,
  strength: float = 0.1,
  smoothing: float = 0.1,
  tolerance: float = 1e-3,
  max_iterations: int = 500,
) -> ComparisonFit:
  """P(left wins) = η·σ(margin) + (1 − η)·σ(−margin), η = skill[worker].

  A worker of η < ½ is read backwards, one of η = ½ does not count. Starts at
  η = .88 for all: reversing every score and every η changes nothing, so the
  majority of comparisons decides which way is up.

  Args:
    comparisons: V rows of N items and A workers.
    strength: ≥ 0, of the prior on scores; with 0 the items must be strongly
      connected.
    smoothing: ≥ 0, pseudo-votes that are right, and as many that are wrong,
      per worker.
    tolerance: > 0, what is left to go, in standard errors (about).
    max_iterations: ≥ 1.

  Raises:
    ValueError: a range is violated, or as `comparisons.check_connected`.

  Source: Chen et al., Pairwise ranking aggregation in a crowdsourced setting,
  2013; fitted in one go, with `smoothing` in place of a Beta prior of its own.
  """
  return _fit(
    'crowd_bt', comparisons, strength, smoothing, tolerance, max_iterations
  )


def noisy_bt(
  comparisons: Comparisons,
  *,
  strength: float = 0.1,
  smoothing: float = 0.1,
  tolerance: float = 1e-3,
  max_iterations: int = 500,
) -> ComparisonFit:
  """P(left wins) = skill·σ(margin) + (1 − skill)·bias, both of the worker.

  A worker either judges by the scores or goes by position: bias = P(left).
  Cannot express a worker who is worse than chance.

  Args:
    comparisons: V rows of N items and A workers.
    strength: ≥ 0, of the prior on scores; with 0 the items must be strongly
      connected.
    smoothing: ≥ 0, pseudo-votes for and against, per skill and bias.
    tolerance: > 0, what is left to go, in standard errors (about).
    max_iterations: ≥ 1.

  Raises:
    ValueError: a range is violated, or as `comparisons.check_connected`.

  Source: the model of crowd-kit 1.4.2, NoisyBradleyTerry (Ustalov et al.,
  Learning from crowds with Crowd-Kit, 2024, arXiv 2109.08584). Gradients are
  autodiff's (the analytic ones there are not those of the likelihood), and the
  penalty pulls scores together instead of apart.
  """
  return _fit(
    'noisy_bt', comparisons, strength, smoothing, tolerance, max_iterations
  )


def plain(params: Params, margin: Array, sign: Array) -> Array:
  """log σ(sign · margin)."""
  del params
  return jax.nn.log_sigmoid(sign * margin)


def mixed(params: Params, margin: Array, sign: Array) -> Array:
  """log[η·σ(sign · margin) + (1 − η)·σ(−sign · margin)], η = σ(skill)."""
  skill, z = params['skill'], sign * margin
  return jnp.logaddexp(
    jax.nn.log_sigmoid(skill) + jax.nn.log_sigmoid(z),
    jax.nn.log_sigmoid(-skill) + jax.nn.log_sigmoid(-z),
  )


def biased(params: Params, margin: Array, sign: Array) -> Array:
  """log[σ(skill)·σ(sign · margin) + σ(−skill)·σ(sign · bias)]."""
  skill, bias = params['skill'], params['bias']
  return jnp.logaddexp(
    jax.nn.log_sigmoid(skill) + jax.nn.log_sigmoid(sign * margin),
    jax.nn.log_sigmoid(-skill) + jax.nn.log_sigmoid(sign * bias),
  )


LOG_PROBS: dict[str, tuple[LogProb, dict[str, float]]] = {
  'bradley_terry': (plain, {}),
  'crowd_bt': (mixed, {'skill': 2.0}),
  'noisy_bt': (biased, {'skill': 2.0, 'bias': 0.0}),
}
"""Model -> log-probability of a comparison, where its workers start."""


def comparisons_weighted(
  model: str,
  comparisons: Comparisons,
  weights: np.ndarray,
  *,
  strength: float = 0.1,
  smoothing: float = 0.1,
  tolerance: float = 1e-3,
  max_iterations: int = 500,
) -> Minimum:
  """A model once per row of weights `[S, V]` ≥ 0 on the comparisons.

  Args:
    model: a name in `LOG_PROBS`.
    comparisons: V rows.
    weights: how often each comparison counts.
    strength, smoothing: as in the models; > 0 for resamples, which may leave
      items unconnected.
    tolerance, max_iterations: as in the models.

  Returns:
    `params` as log-odds with a leading `[S]`: `scores` of mean 0 over the
    items compared (0 for others), and by model `skill` and `bias`; `value` is
    the log-likelihood.

  Raises:
    ValueError: a range is violated, or as `comparisons.check_connected`.
  """
  if model not in LOG_PROBS:
    raise ValueError(f'model={model!r} must be one of {list(LOG_PROBS)}')
  for name, value in (('strength', strength), ('smoothing', smoothing)):
    if not 0 <= value < np.inf:
      raise ValueError(f'{name}={value} must be >= 0 and finite')
  check_positive(tolerance=tolerance, max_iterations=max_iterations)
  check_connected(comparisons, strength)
  weights = np.asarray(weights, np.float64)
  if weights.ndim != 2 or weights.shape[1] != len(comparisons):
    raise ValueError(
      f'weights have shape {weights.shape}; must be [S, {len(comparisons)}]'
    )
  if not np.all(weights >= 0) or not np.all(weights.any(axis=1)):
    raise ValueError('weights must be >= 0, and some of every row > 0')
  size = max(1, _AT_ONCE // len(comparisons))
  parts = []
  for start in range(0, len(weights), size):
    part = weights[start : start + size]
    with jax.enable_x64(True):
      filled = np.ones((min(size, len(weights)), len(comparisons)))
      filled[: len(part)] = part
      found = _descend(
        model,
        comparisons.num_workers,
        comparisons.num_items,
        *_arrays(comparisons),
        filled,
        strength,
        smoothing,
        tolerance,
        max_iterations,
      )
    kept = slice(len(part))
    parts.append(jax.tree.map(lambda x, kept=kept: np.asarray(x)[kept], found))
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _fit(
  model: str,
  comparisons: Comparisons,
  strength: float,
  smoothing: float,
  tolerance: float,
  max_iterations: int,
) -> ComparisonFit:
  found = comparisons_weighted(
    model,
    comparisons,
    np.ones((1, len(comparisons))),
    strength=strength,
    smoothing=smoothing,
    tolerance=tolerance,
    max_iterations=max_iterations,
  )
  _, left, right, _ = _arrays(comparisons)
  compared = np.bincount(
    np.append(left, right), minlength=comparisons.num_items
  )
  judged = np.bincount(comparisons.worker, minlength=comparisons.num_workers)
  probs = {
    name: np.where(judged > 0, special.expit(found.params[name][0]), np.nan)
    for name in LOG_PROBS[model][1]
  }
  flags = []
  if model == 'crowd_bt' and np.nanmean(probs['skill']) < 0.5:
    flags.append('mean skill below 1/2: the order may be reversed')
  if not found.converged[0]:
    flags.append(f'not converged after {found.iterations[0]} iterations')
  return ComparisonFit(
    scores=np.where(compared > 0, found.params['scores'][0], np.nan),
    skill=probs.get('skill'),
    bias=probs.get('bias'),
    log_likelihood=float(found.value[0]),
    iterations=int(found.iterations[0]),
    converged=bool(found.converged[0]),
    flags=tuple(flags),
  )


@functools.partial(
  jax.jit, static_argnames=('model', 'num_workers', 'num_items')
)
def _descend(
  model: str,
  num_workers: int,
  num_items: int,
  worker: Array,
  left: Array,
  right: Array,
  sign: Array,
  weights: Array,
  strength: Array,
  smoothing: Array,
  tolerance: Array,
  max_iterations: Array,
) -> Minimum:
  log_prob, workers_start = LOG_PROBS[model]
  compared = jnp.zeros(num_items).at[left].add(1).at[right].add(1)
  judged = jnp.zeros(num_workers).at[worker].add(1)
  # Units in which every curvature is about 1, whatever the number of votes.
  unit = {'scores': (jnp.maximum(compared, 1) + 2 * strength) ** -0.5 * 2}
  first = {'scores': jnp.zeros(num_items)}
  for name, value in workers_start.items():
    unit[name] = (jnp.maximum(judged, 1) + 2 * smoothing) ** -0.5 * 2
    first[name] = jnp.full(num_workers, value) / unit[name]

  def natural(params: Params) -> Params:
    return {name: params[name] * unit[name] for name in params}

  def log_likelihood(params: Params, weights: Array) -> Array:
    params = natural(params)
    margin = params['scores'][left] - params['scores'][right]
    own = {name: params[name][worker] for name in workers_start}
    return jnp.sum(weights * log_prob(own, margin, sign))

  def objective(params: Params, weights: Array) -> Array:
    value = log_likelihood(params, weights)
    params = natural(params)
    value += strength * _even(params['scores'])
    for name in workers_start:
      value += smoothing * _even(params[name])
    return -value

  found = minimise(
    objective,
    first,
    weights,
    tolerance=tolerance,
    max_iterations=max_iterations,
  )
  params = jax.vmap(natural)(found.params)
  is_item = compared > 0
  mean = jnp.sum(params['scores'] * is_item, axis=1) / jnp.sum(is_item)
  params['scores'] = (params['scores'] - mean[:, None]) * is_item
  value = jax.vmap(log_likelihood)(found.params, weights)
  return found._replace(params=params, value=value)


def _even(log_odds: Array) -> Array:
  """Log-likelihood of one vote for and one against, each."""
  return jnp.sum(jax.nn.log_sigmoid(log_odds) + jax.nn.log_sigmoid(-log_odds))


def _arrays(comparisons: Comparisons) -> tuple[np.ndarray, ...]:
  sign = np.where(comparisons.left_wins, 1.0, -1.0)
  return comparisons.worker, comparisons.left, comparisons.right, sign

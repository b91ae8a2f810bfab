"""How far every worker can be trusted, with intervals and warnings."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse

from alignment.metrics.intervals import Estimate, wilson
from alignment.noise.crowd.catalogue import ANNOTATOR_MODELS, WEIGHTED
from alignment.noise.crowd.checks import workers_by_label
from alignment.noise.crowd.fit import CrowdFit
from alignment.noise.crowd.table import VoteTable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reliabilities:
  """The workers of a table.

  Attributes:
    skill: `[A]` P(says the truth); NaN for a worker without votes.
    low, high: `[A]`, the 95 % interval; NaN likewise.
    num_votes: `[A]` int64.
    flags: A tuples of remarks: `no votes`, `one label only`, `fewer than n
      votes`, `at or below chance`, `not told from chance`.
    fit: the model fitted to the whole table, and its own remarks.
    mean: P(a vote says the truth), skills weighted by votes, with its interval;
      `count` is the number of groups.
  """

  skill: np.ndarray
  low: np.ndarray
  high: np.ndarray
  num_votes: np.ndarray
  flags: tuple[tuple[str, ...], ...]
  fit: CrowdFit
  mean: Estimate


def reliabilities(
  votes: VoteTable,
  rng: np.random.Generator,
  *,
  model: str = 'dawid_skene',
  group: np.ndarray | None = None,
  resamples: int = 200,
  min_votes: int = 10,
) -> Reliabilities:
  """Skill of every worker under a model, with bootstrap intervals.

  Whole groups of tasks are drawn with replacement and the model is refitted
  to each draw; workers are given, not drawn. The interval is the percentile
  one, widened to Wilson's interval of skill · num_votes successes where that
  is wider: a worker whom no draw shows to err is not certain.

  Chance is judged class by class: a worker who always says the same has
  Σ_i confusion[a, i, i] / C = 1 / C, whatever share of the truth that hits.

  Args:
    votes: A workers, I tasks.
    rng: numpy generator.
    model: a name in `ANNOTATOR_MODELS`.
    group: `[I]`, what is drawn together; None where tasks are independent.
    resamples: S ≥ 2.
    min_votes: fewer are remarked upon.

  Raises:
    ValueError: an unknown model, or as `checks.check_votes`.
  """
  if model not in ANNOTATOR_MODELS:
    raise ValueError(f'model={model!r} must be one of {list(ANNOTATOR_MODELS)}')
  fit = ANNOTATOR_MODELS[model](votes)
  weights = resampled_weights(votes, rng, group, resamples)
  drawn = WEIGHTED[model](votes, weights)
  said = workers_by_label(votes)
  num_votes = said.sum(axis=1)
  low, high = _percentiles(drawn.skill)
  for worker in np.flatnonzero(num_votes):
    successes = fit.skill[worker] * num_votes[worker]
    inside = wilson(successes, int(num_votes[worker]))
    low[worker] = min(low[worker], inside.low)
    high[worker] = max(high[worker], inside.high)
  says_one = np.sum(said > 0, axis=1) == 1
  at_chance = says_one | (np.trace(fit.confusion, axis1=1, axis2=2) <= 1)
  chance_low, _ = _percentiles(np.trace(drawn.confusion, axis1=2, axis2=3))
  remarks = {
    'no votes': num_votes == 0,
    'one label only': says_one,
    f'fewer than {min_votes} votes': (num_votes > 0) & (num_votes < min_votes),
    'at or below chance': at_chance,
    'not told from chance': ~at_chance & (chance_low <= 1),
  }
  flags = tuple(
    tuple(text for text, holds in remarks.items() if holds[worker])
    for worker in range(votes.num_workers)
  )
  return Reliabilities(
    skill=fit.skill,
    low=low,
    high=high,
    num_votes=num_votes,
    flags=flags,
    fit=fit,
    mean=_mean(votes, fit, weights, drawn.skill, group),
  )


def _mean(
  votes: VoteTable,
  fit: CrowdFit,
  weights: np.ndarray,
  skill: np.ndarray,
  group: np.ndarray | None,
) -> Estimate:
  """Skill of a vote, over workers; a draw weighs them by its own votes."""
  given = sparse.csr_array(
    (np.ones(len(votes)), (votes.task, votes.worker)),
    shape=(votes.num_tasks, votes.num_workers),
  )
  voted = np.unique(votes.task)
  units = voted if group is None else np.asarray(group)[voted]
  num_votes = weights @ given
  drawn = np.nansum(num_votes * skill, axis=1) / num_votes.sum(axis=1)
  low, high = np.quantile(drawn, (0.025, 0.975))
  whole = given.sum(axis=0)
  value = np.nansum(whole * fit.skill) / whole.sum()
  return Estimate(float(value), float(low), float(high), len(np.unique(units)))


def resampled_weights(
  votes: VoteTable,
  rng: np.random.Generator,
  group: np.ndarray | None,
  resamples: int,
) -> np.ndarray:
  """`[S, I]` float32: how often each task is in each draw of whole groups.

  Only groups with votes are drawn; a task without votes has weight 0.

  Args:
    votes: I tasks.
    rng: numpy generator.
    group: `[I]`, or None where every task is its own.
    resamples: S ≥ 2.

  Raises:
    ValueError: a shape or range is violated.
  """
  if resamples < 2:
    raise ValueError(f'resamples={resamples} must be >= 2')
  if group is None:
    group = np.arange(votes.num_tasks)
  if np.shape(group) != (votes.num_tasks,):
    raise ValueError(
      f'group has shape {np.shape(group)}, must be ({votes.num_tasks},)'
    )
  voted = np.bincount(votes.task, minlength=votes.num_tasks) > 0
  names, place = np.unique(np.asarray(group)[voted], return_inverse=True)
  share = np.full(len(names), 1 / len(names))
  weights = np.zeros((resamples, votes.num_tasks), np.float32)
  weights[:, voted] = rng.multinomial(len(names), share, resamples)[:, place]
  return weights


def _percentiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """2.5 % and 97.5 % of `[S, A]`, over the draws in which a worker votes."""
  never = np.all(np.isnan(values), axis=0)
  filled = np.where(never, 0.0, values)
  low, high = np.nanquantile(filled, (0.025, 0.975), axis=0)
  return np.where(never, np.nan, low), np.where(never, np.nan, high)

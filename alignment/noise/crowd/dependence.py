"""Do two workers agree more than their skills explain?

Every model here takes votes on a task as independent given its class. Workers
who copy each other, or share a habit, break that: they agree too often, look
better than they are, and pull the classes their way.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import sparse, stats

from alignment.noise.crowd.catalogue import ANNOTATOR_MODELS, WEIGHTED
from alignment.noise.crowd.reliabilities import resampled_weights
from alignment.noise.crowd.table import VoteTable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dependence:
  """Agreement of P pairs of workers, observed and under independence.

  Attributes:
    first, second: `[P]` workers, first < second.
    num_shared: `[P]` tasks that both voted on.
    observed: `[P]` share of these on which they agree.
    predicted: `[P]` Σ_i prior[i] Σ_j confusion[first, i, j] ·
      confusion[second, i, j].
    p_value: `[P]` two-sided, Holm's correction over the pairs.
    pooled: observed − predicted over all pairs, weighted by `num_shared`.
    pooled_low, pooled_high: its 95 % interval.
    remark: why the test has no power here, or ''.
  """

  first: np.ndarray
  second: np.ndarray
  num_shared: np.ndarray
  observed: np.ndarray
  predicted: np.ndarray
  p_value: np.ndarray
  pooled: float
  pooled_low: float
  pooled_high: float
  remark: str = ''

  @property
  def correlated(self) -> np.ndarray:
    """`[P]` bool: agrees more than predicted, at 5 % over all pairs."""
    return (self.observed > self.predicted) & (self.p_value < 0.05)


def dependence(
  votes: VoteTable,
  rng: np.random.Generator,
  *,
  model: str = 'dawid_skene',
  group: np.ndarray | None = None,
  resamples: int = 200,
  min_shared: int = 30,
) -> Dependence:
  """Tests conditional independence, pair by pair and pooled.

    z = (observed − predicted) / error
    error = larger of the difference's std over bootstraps, each a new fit, and
            √(predicted · (1 − predicted) / num_shared)

  The second guards pairs with few tasks in common, who may agree on all of
  them in every bootstrap. Three workers can agree in any way that some
  confusion matrices explain: with fewer than four there is nothing to test.
  Copies between the best of few workers are taken for skill and not found.
  Tasks that differ in difficulty raise the agreement of all pairs (`pooled`),
  copying that of some. Assumes that who votes does not depend on the class.

  Args:
    votes: A workers, I tasks.
    rng: numpy generator.
    model: a name in `ANNOTATOR_MODELS`.
    group: `[I]`, what is drawn together; None where tasks are independent.
    resamples: S ≥ 2.
    min_shared: ≥ 2; pairs with fewer tasks in common are left out.

  Raises:
    ValueError: an unknown model, no pair left, or as `checks.check_votes`.
  """
  if model not in ANNOTATOR_MODELS:
    raise ValueError(f'model={model!r} must be one of {list(ANNOTATOR_MODELS)}')
  first, second, shared, agreed = _pairs(votes, min_shared)
  fit = ANNOTATOR_MODELS[model](votes)
  weights = resampled_weights(votes, rng, group, resamples)
  drawn = WEIGHTED[model](votes, weights)
  pairs = first, second, shared, agreed
  whole = np.ones((1, votes.num_tasks))
  observed, predicted, num_shared = _agreement(
    whole, fit.prior[None], fit.confusion[None], *pairs
  )
  excess = (observed - predicted)[0]
  resampled = _agreement(weights, drawn.prior, drawn.confusion, *pairs)
  differences = resampled[0] - resampled[1]
  pooled = np.nansum(resampled[2] * differences, axis=1)
  pooled /= resampled[2].sum(axis=1)
  low, high = np.quantile(pooled, (0.025, 0.975))
  binomial = np.sqrt(predicted * (1 - predicted) / num_shared)[0]
  error = np.maximum(np.nanstd(differences, axis=0, ddof=1), binomial)
  # Workers of whom nobody ever errs agree always, as predicted.
  error = np.maximum(error, 1e-12)
  return Dependence(
    first=first,
    second=second,
    num_shared=num_shared[0].astype(int),
    observed=observed[0],
    predicted=predicted[0],
    p_value=_holm(2 * stats.norm.sf(np.abs(excess) / error)),
    pooled=float(np.average(excess, weights=num_shared[0])),
    pooled_low=float(low),
    pooled_high=float(high),
    remark='' if len(np.unique(votes.worker)) > 3 else _NO_POWER,
  )


_NO_POWER = (
  'fewer than four workers: their agreement always fits some confusion matrices'
)


def _pairs(
  votes: VoteTable, min_shared: int
) -> tuple[np.ndarray, np.ndarray, sparse.csr_array, sparse.csr_array]:
  """The pairs, and `[I, P]`: how often both voted, how often they agreed."""
  order = np.lexsort((votes.worker, votes.task))
  task, worker, label = (
    x[order].astype(np.int64) for x in (votes.task, votes.worker, votes.label)
  )
  num_votes = np.bincount(task, minlength=votes.num_tasks)
  end = np.cumsum(num_votes)[task]
  later = end - np.arange(len(task)) - 1
  one = np.repeat(np.arange(len(task)), later)
  step = np.arange(len(one)) - np.repeat(np.cumsum(later) - later, later) + 1
  other = one + step
  different = worker[one] != worker[other]
  one, other = one[different], other[different]
  key, place, count = np.unique(
    worker[one] * votes.num_workers + worker[other],
    return_inverse=True,
    return_counts=True,
  )
  kept = count >= max(min_shared, 2)
  if not kept.any():
    raise ValueError(f'no two workers share min_shared={min_shared} tasks')
  rank = np.cumsum(kept) - 1
  inside = kept[place]
  one, other, place = one[inside], other[inside], rank[place[inside]]
  shape = votes.num_tasks, int(kept.sum())
  where = task[one], place
  shared = sparse.csr_array((np.ones(len(one)), where), shape)
  agrees = (label[one] == label[other]).astype(float)
  agreed = sparse.csr_array((agrees, where), shape)
  return *np.divmod(key[kept], votes.num_workers), shared, agreed


def _agreement(
  weights: np.ndarray,
  prior: np.ndarray,
  confusion: np.ndarray,
  first: np.ndarray,
  second: np.ndarray,
  shared: sparse.csr_array,
  agreed: sparse.csr_array,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Observed, predicted and number of common votes, all `[S, P]`."""
  num_shared = np.asarray(weights @ shared)
  observed = np.asarray(weights @ agreed) / np.where(
    num_shared > 0, num_shared, np.nan
  )
  predicted = np.einsum(
    'si,spij,spij->sp', prior, confusion[:, first], confusion[:, second]
  )
  return observed, predicted, num_shared


def _holm(p_value: np.ndarray) -> np.ndarray:
  order = np.argsort(p_value)
  scaled = p_value[order] * np.arange(len(p_value), 0, -1)
  adjusted = np.empty_like(p_value)
  adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
  return adjusted

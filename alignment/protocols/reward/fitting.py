"""Fitting one arm: the same grid for all, selected on noisy pairs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse, special

from alignment.losses.ensembles import (
  ENSEMBLES,
  Strength,
  centred,
  label_strength,
  weakest,
)
from alignment.losses.reward import REWARD
from alignment.metrics.preference import best_temperature_nll
from alignment.models.linear import Features, fit_linear
from alignment.noise.estimation.catalogue import ESTIMATORS
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.evidence import Evidence
from alignment.protocols.reward.arms import Arm
from alignment.protocols.reward.world import World

LARGEST_RATE = 0.45
"""What an estimate is cut to before a loss assumes it: at ½ none is defined."""


class Fitted(NamedTuple):
  """An arm after selection.

  Attributes:
    weights: `[M, D]`, one row per member.
    combine: key of `ENSEMBLES`.
    l2: the penalty selected.
    noisy_nll: what it was selected by.
  """

  weights: np.ndarray
  combine: str
  l2: float
  noisy_nll: float

  def rewards(self, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What the committee says of everything that `Part.rewards` scores."""
    return _combined(score(self.weights), self.combine)


class Committee(NamedTuple):
  """Members of half the data each.

  Attributes:
    paths: `[G, M, D]` weights, by penalty and member.
    has_seen: `[M, n]` bool, the pair's cluster is in the member's half.
  """

  paths: np.ndarray
  has_seen: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """One world with its noisy labels; what arms share is computed once.

  Attributes:
    world: pairs.
    labels: part -> `[n]` bool, of `noisy_labels`.
    l2: penalties of the grid, the same for every arm.
    num_members: of a committee, even.
    centring: coefficient of the centring term.
    estimator: key of `ESTIMATORS`.
  """

  world: World
  labels: Mapping[str, np.ndarray]
  l2: Sequence[float]
  num_members: int
  centring: float
  estimator: str

  @functools.cached_property
  def sign(self) -> np.ndarray:
    """`[n]`, 1 where the first is labelled better, −1 where the second."""
    return np.where(self.labels['train'], 1.0, -1.0)

  @functools.cached_property
  def committee(self) -> Committee:
    """Members in couples: each has the half of the clusters the other lacks.

    Half-samples without replacement spread as bootstrap samples do (Buja and
    Stuetzle, Observations on bagging, 2006), and every pair is judged by
    exactly half of the members without having been seen.

    Raises:
      ValueError: a single cluster, which has no halves.
    """
    train = self.world.train
    rng = np.random.default_rng([self.world.seed, 0xC0117])
    clusters, place = np.unique(train.cluster, return_inverse=True)
    if len(clusters) < 2:
      raise ValueError(
        '--ensemble, --repair, --estimator: need training pairs of two prompts '
        'or more, to be judged by models that did not see them; leave them '
        'empty'
      )
    has_seen = []
    for _ in range(self.num_members // 2):
      half = rng.permutation(len(clusters)) < len(clusters) // 2
      has_seen += [half[place], ~half[place]]
    paths = [self.fit(weights=seen.astype(float)) for seen in has_seen]
    return Committee(np.stack(paths, axis=1), np.array(has_seen))

  @functools.cached_property
  def strength(self) -> Strength:
    """Of every training label, by the members that did not see it."""
    members = self.select(self.committee.paths, 'mean').weights
    margins = self.sign * (self.world.train.differences @ members.T).T
    return label_strength(margins, self.committee.has_seen)

  @functools.cached_property
  def estimate(self) -> RateEstimate:
    """The flip rate of the training labels, as far as they tell it."""
    train = self.world.train
    first = special.expit(self.sign * self.strength.mean)
    evidence = Evidence(
      label=np.where(self.sign > 0, 0, 1).astype(np.int32),
      num_classes=2,
      group=np.unique(train.cluster, return_inverse=True)[1].astype(np.int32),
      group_name='clusters',
      probs=np.stack([first, 1 - first], axis=1),
    )
    rng = np.random.default_rng([self.world.seed, 0xE5])
    return ESTIMATORS[self.estimator](evidence, rng)

  def fit(
    self,
    loss: str = 'bradley_terry',
    *,
    sign: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    **values: np.ndarray | float,
  ) -> np.ndarray:
    """Weights `[G, D]` of a loss at every penalty; `values` are its keywords.

    Args:
      loss: key of `REWARD`.
      sign: `[n]`, the labels at hand unless given.
      weights: `[n]` ≥ 0.
      **values: scalars or `[n]`.
    """
    return fit_path(
      self.world.train.differences,
      _pair_loss(loss, tuple(values)),
      (self.sign if sign is None else sign, *values.values()),
      self.l2,
      weights,
    )

  def select(
    self, paths: np.ndarray, combine: str, label: np.ndarray | None = None
  ) -> Fitted:
    """The penalty with the lowest best-temperature NLL on validation pairs.

    Args:
      paths: `[G, M, D]`.
      combine: key of `ENSEMBLES`.
      label: `[n]` bool of the validation pairs, noisy unless given.
    """
    part = self.world.validation
    label = self.labels['validation'] if label is None else label
    gaps = [
      part.gaps(_combined(part.rewards(weights), combine)) for weights in paths
    ]
    nll = best_temperature_nll(np.where(label, 1.0, -1.0) * gaps).nll
    best = int(np.argmin(nll))
    return Fitted(paths[best], combine, self.l2[best], float(nll[best]))


def fit_arm(arm: Arm, task: Task) -> Fitted | None:
  """Fits and selects; None where the arm needs an estimate that is refused."""
  paths = TREATMENTS[arm.treatment](arm, task)
  if paths is None:
    return None
  label = None
  if arm.role == 'clean':
    label = task.world.validation.first_is_better
  if paths.ndim == 2:
    paths = paths[:, None]
  return task.select(paths, arm.combine, label)


def fit_path(
  features: Features,
  loss: Callable[..., jax.Array],
  arguments: Sequence[np.ndarray | float],
  l2: Sequence[float],
  weights: np.ndarray | None = None,
) -> np.ndarray:
  """`fit_linear` at every penalty, each begun where the larger one ended.

  Returns:
    `[G, D]`, in the order of `l2`.
  """
  found, start = {}, None
  arguments = [np.asarray(value, np.float64) for value in arguments]
  for penalty in sorted(l2, reverse=True):
    fitted = fit_linear(
      features, loss, arguments, l2=penalty, weights=weights, start=start
    )
    found[penalty] = start = fitted.weights
  return np.stack([found[penalty] for penalty in l2])


def _labels(arm: Arm, task: Task) -> np.ndarray:
  given = {} if arm.assumed is None else {'label_smoothing': arm.assumed}
  return task.fit(arm.loss, **given)


def _estimated(arm: Arm, task: Task) -> np.ndarray | None:
  rate = task.estimate.rate
  if rate is None:
    return None
  return task.fit(arm.loss, label_smoothing=min(rate, LARGEST_RATE))


def _clean(arm: Arm, task: Task) -> np.ndarray:
  best = task.world.train.first_is_better
  return task.fit(arm.loss, sign=np.where(best, 1.0, -1.0))


def _unflipped(arm: Arm, task: Task) -> np.ndarray:
  right = task.labels['train'] == task.world.train.first_is_better
  return task.fit(arm.loss, weights=right.astype(float))


def _centred(arm: Arm, task: Task) -> np.ndarray:
  """Both completions of a pair are rows here: the sum of their rewards counts
  as well as the difference."""
  train = task.world.train
  rows = sparse.vstack([train.differences, train.sums]).tocsr()
  return fit_path(rows, _centred_loss, (task.sign, task.centring), task.l2)


def _committee(arm: Arm, task: Task) -> np.ndarray:
  return task.committee.paths


def _flip(arm: Arm, task: Task) -> np.ndarray:
  wrong = weakest(task.strength, arm.assumed)
  return task.fit(arm.loss, sign=np.where(wrong, -task.sign, task.sign))


def _soften(arm: Arm, task: Task) -> np.ndarray:
  return task.fit('soft_label', label_prob=special.expit(task.strength.mean))


def _margin(arm: Arm, task: Task) -> np.ndarray:
  return task.fit(arm.loss, margin=task.strength.mean)


TREATMENTS = {
  'labels': _labels,
  'estimated': _estimated,
  'clean': _clean,
  'unflipped': _unflipped,
  'centred': _centred,
  'committee': _committee,
  'flip': _flip,
  'soften': _soften,
  'margin': _margin,
}
"""How labels are treated: (arm, task) -> weights `[G, D]` or `[G, M, D]`."""


@functools.cache
def _pair_loss(method: str, names: tuple[str, ...]) -> Callable:
  def loss(scores, sign, *values):
    h = sign * scores
    named = dict(zip(names, values, strict=True))
    return REWARD[method](h, jnp.zeros_like(h), **named)

  return loss


def _centred_loss(scores, sign, coefficient):
  """Bradley-Terry and the centring term, half of each pair in each row."""
  difference, total = jnp.split(scores, 2)
  loss = REWARD['bradley_terry'](sign * difference, jnp.zeros_like(difference))
  loss = loss + coefficient * jnp.square(total)
  return jnp.concatenate([loss, loss])


def _combined(rewards: np.ndarray, combine: str) -> np.ndarray:
  """One reward from `[M, ..., K]`; a single member speaks for itself."""
  if len(rewards) == 1:
    return rewards[0]
  with jax.enable_x64(True):
    return np.asarray(ENSEMBLES[combine](centred(jnp.asarray(rewards))))

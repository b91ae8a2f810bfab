"""Simulated noise on known features: how every loss fares in one scenario.

A scenario takes a reward as true, labels pairs by it, flips some labels, fits a
linear reward by every loss, each with the same grid of l2 selected on noisy
validation pairs, and judges all of them on pairs of other groups by the truth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from scipy import sparse, special
from scipy.sparse import linalg

from alignment.losses import corrections, links
from alignment.metrics.preference import accuracy, best_temperature_nll
from alignment.models.linear import fit_linear
from alignment.noise.corruption.annotators import assign_annotators
from alignment.noise.corruption.catalogue import corrupt

L2 = (1e-4, 1e-3, 1e-2, 1e-1)
"""The grid of every loss, in units of its mean."""
NUM_TEST, FEWEST_TEST = 1000, 100
NUM_ANNOTATORS = 20
CONCENTRATION = 2.0
"""Of the annotators' flip rates: small, so that annotators differ."""


def _plain(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  del flip_rate
  return links.logistic(z)


def _conservative(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  return corrections.conservative(links.logistic, z, flip_rate)


def _backward(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  return corrections.backward(links.logistic, z, flip_rate)


def _forward(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  return corrections.forward(links.logistic, z, flip_rate)


def _gce(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  del flip_rate
  return links.gce(z, 0.7)


def _sce(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  del flip_rate
  return links.sce(z, 0.1, 4.0)


def _sigmoid(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  del flip_rate
  return links.sigmoid(z)


def _holder(z: jax.Array, flip_rate: jax.Array) -> jax.Array:
  del flip_rate
  return links.holder(z, 2.0)


class TooFewPairsError(ValueError):
  """The pairs do not fill the parts of a scenario."""


PLAIN = 'dpo'
"""The logistic loss that takes labels at their word: what is always there."""
Loss = Callable[[jax.Array, jax.Array], jax.Array]
ARMS: Mapping[str, Loss] = {
  PLAIN: _plain,
  'cdpo': _conservative,
  'rdpo': _backward,
  'forward': _forward,
  'gce': _gce,
  'sce': _sce,
  'sympo': _sigmoid,
  'holder_dpo': _holder,
}
"""Name of a preference loss -> its link of the margin, (z, ε) -> `[B]`, with
the hyperparameters that the loss has unless told otherwise and beta = 1."""
NEED_RATE = ('cdpo', 'rdpo', 'forward')
"""Those that assume a flip rate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
  """One way in which labels may have come about.

  Attributes:
    noise: a key of `KINDS`.
    flip_rate: mean over the pairs, in [0, ½).
    preference: `bt`, clean labels are Bradley-Terry draws; `argmax`.
    size: training pairs; a quarter as many to validate.
    visible: share of the feature columns that the fitted model sees, from the
      first on, in (0, 1]; the truth uses all.
  """

  noise: str
  flip_rate: float
  preference: str
  size: int
  visible: float = 1.0


KINDS: Mapping[str, Mapping[str, float]] = {
  'symmetric': {},
  'margin_dependent': {},
  'per_annotator': {'concentration': CONCENTRATION},
  'length_biased': {},
}
"""Noise model -> its hyperparameters."""


def label(
  rng: np.random.Generator,
  scenario: Scenario,
  margin: np.ndarray,
  longer: np.ndarray | None,
) -> np.ndarray:
  """`[B]` ±1, +1 where the first completion is labelled better.

  Args:
    rng: numpy generator.
    scenario: what happens to the labels. A length bias can flip no more pairs
      than there are whose shorter completion is better; beyond that it flips
      all of them.
    margin: `[B]` true reward of the first completion minus the second.
    longer: `[B]` > 0 where the first completion is the longer one; needed by
      a length bias.
  """
  if scenario.preference == 'bt':
    clean = rng.random(len(margin)) < special.expit(margin)
  else:
    clean = margin > 0
  key = jax.random.key(int(rng.integers(2**31)))
  index = np.arange(len(margin))
  data = {
    'index': index,
    'margin': margin,
    'annotator_id': assign_annotators(key, index, NUM_ANNOTATORS),
  }
  rate = scenario.flip_rate
  if scenario.noise == 'length_biased':
    data['lengths'] = np.column_stack([longer > 0, longer < 0]).astype(int)
    shorter_wins = np.where(clean, longer < 0, longer > 0)
    rate = min(rate, float(np.mean(shorter_wins)))
  noisy = corrupt(
    scenario.noise, key, clean, data, flip_rate=rate, **KINDS[scenario.noise]
  )
  return np.where(noisy.label, 1.0, -1.0)


def fit_arm(
  arm: str,
  features: np.ndarray,
  labels: np.ndarray,
  validation: tuple[np.ndarray, np.ndarray],
  assumed: float,
) -> np.ndarray:
  """The reward `[D]` that a loss makes of noisy labels.

  Every l2 of `L2` is fitted; the one that predicts the noisy validation labels
  best, at its best temperature, is kept.

  Args:
    arm: a key of ARMS.
    features: `[B, D]`.
    labels: `[B]` ±1.
    validation: features `[M, D]` and labels `[M]` ±1.
    assumed: flip rate for those of NEED_RATE.
  """
  signed = features * labels[:, None]
  path, start = [], None
  for l2 in sorted(L2, reverse=True):
    found = fit_linear(
      signed, ARMS[arm], (np.float64(assumed),), l2=l2, start=start
    )
    path.append(found.weights)
    start = found.weights
  margins = validation[1] * (np.stack(path) @ validation[0].T)
  return path[int(np.argmin(best_temperature_nll(margins).nll))]


def play(
  rng: np.random.Generator,
  scenario: Scenario,
  features: np.ndarray,
  margin: np.ndarray,
  group: np.ndarray,
  arms: Sequence[str],
  *,
  assumed: float,
  longer: np.ndarray | None = None,
) -> np.ndarray:
  """Clean accuracy of every arm in one scenario.

  Args:
    rng: draws the pairs, their labels and the flips; arms share the draws.
    scenario: what happens.
    features: `[B, D]`, of the first completion minus the second.
    margin: `[B]` what is true of them.
    group: `[B]`; training, validation and test pairs share none.
    arms: keys of ARMS.
    assumed: flip rate that the arms of NEED_RATE assume.
    longer: as in `label`.

  Returns:
    `[arms]` share of test pairs whose better completion is preferred, a tie
    of the model counting half.

  Raises:
    TooFewPairsError: whole groups do not fill its parts.
  """
  train, validation, test = _divide(rng, group, scenario.size)
  labels = label(rng, scenario, margin, longer)
  width = max(1, round(scenario.visible * features.shape[1]))
  seen = features[:, :width]
  held = seen[validation], labels[validation]
  truth = np.sign(margin[test])
  scores = []
  for arm in arms:
    weights = fit_arm(arm, seen[train], labels[train], held, assumed)
    scores.append(accuracy(truth * (seen[test] @ weights)))
  return np.array(scores)


def reduce_features(
  features: np.ndarray | sparse.sparray, columns: int
) -> np.ndarray:
  """`[B, columns]`: coordinates along the leading directions, in that order.

  Scaled so that the first has root mean square 1. Features that are no wider
  than `columns` are only turned.

  Args:
    features: `[B, D]`, sparse or dense, B > columns.
    columns: ≥ 1.
  """
  if features.shape[1] > columns:
    features = np.asarray(
      features
      @ linalg.svds(features, k=columns, rng=np.random.default_rng(0))[2].T
    )
  elif sparse.issparse(features):
    features = features.toarray()
  left, sizes, _ = np.linalg.svd(features, full_matrices=False)
  coordinates = (left * sizes)[:, sizes > 1e-9 * sizes[0]]
  return coordinates / np.sqrt(np.mean(coordinates[:, 0] ** 2))


def _divide(
  rng: np.random.Generator, group: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rows to train on, to validate and to test, with no group in common."""
  names, place = np.unique(group, return_inverse=True)
  # Whole groups in a drawn order; rows of a group stay side by side.
  rank = rng.permutation(len(names))[place]
  order = np.lexsort((rng.random(len(group)), rank))
  ends = np.searchsorted(rank[order], np.arange(len(names)), side='right')
  parts, start = [], 0
  for want in (size, max(size // 4, 1)):
    # As many whole groups as could fill what is wanted.
    end = int(ends[min(np.searchsorted(ends, start + want), len(ends) - 1)])
    parts.append(rng.permutation(order[start:end])[:want])
    start = end
  test = order[start:]
  if len(test) < FEWEST_TEST or len(parts[0]) < size:
    raise TooFewPairsError(
      f'size={size} leaves {len(test)} of {len(group)} pairs in {len(names)} '
      f'groups to test on; {FEWEST_TEST} are needed'
    )
  return *parts, rng.permutation(test)[:NUM_TEST]

"""Pairs as a linear reward model reads them, and what it is judged by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from scipy import special

from alignment.data.records import Report
from alignment.metrics.calibration import (
  brier_score,
  expected_calibration_error,
)
from alignment.models.linear import Features
from alignment.noise.corruption.catalogue import corrupt
from alignment.protocols.arena import Measured


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """n pairs of two completions, first and second.

  Attributes:
    differences: `[n, D]`, features of the first minus those of the second.
    sums: `[n, D]`, their sum, which only centring looks at.
    first_is_better: `[n]` bool, the best label known.
    observed_flip: `[n]` bool, the label at hand differs from the best known
      before any noise is injected.
    vote_share: `[n]` in [0, 1], share of held-out votes for the first.
    cluster: `[n]`, what was split and is resampled: a prompt, a title.
    known: what noise models may read of the pairs.
    rewards: weights `[M, D]` -> `[M, ..., K]`, everything that M models can
      score; each is free to add a constant along the last axis.
    gaps: `[..., K]` without M -> `[n]`, first minus second.
  """

  differences: Features
  sums: Features
  first_is_better: np.ndarray
  observed_flip: np.ndarray
  vote_share: np.ndarray
  cluster: np.ndarray
  known: Mapping[str, np.ndarray]
  rewards: Callable[[np.ndarray], np.ndarray]
  gaps: Callable[[np.ndarray], np.ndarray]

  def __len__(self) -> int:
    return len(self.first_is_better)


@dataclasses.dataclass(frozen=True, eq=False)
class World:
  """All that the reward models of one seed share.

  Attributes:
    seed: what was redrawn.
    train, validation, test: disjoint in `cluster`.
    measure: rewards of the test part -> what they are worth.
    oracle: what the gold reward is worth; None where there is none.
    rules: name -> `[n_test]` agreement of predictors that read no words.
    reports: what was dropped between the data and the pairs.
  """

  seed: int
  train: Part
  validation: Part
  test: Part
  measure: Callable[[np.ndarray], Measured]
  oracle: Measured | None = None
  rules: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  reports: Sequence[Report] = ()


def calibration(gaps: np.ndarray, vote_share: np.ndarray) -> dict[str, float]:
  """How σ(gaps) fares as the probability that the first is preferred.

  Args:
    gaps: `[n]`, rewards of the first minus those of the second, as log-odds.
    vote_share: `[n]` in [0, 1].

  Returns:
    `brier`; and `ece` of the preferred side, as the order carries no meaning.
  """
  preferred = np.where(gaps >= 0, vote_share, 1 - vote_share)
  return {
    'brier': brier_score(special.expit(gaps), vote_share),
    'ece': expected_calibration_error(special.expit(np.abs(gaps)), preferred),
  }


def noisy_labels(
  world: World, noise: str, flip_rate: float
) -> dict[str, np.ndarray]:
  """Injects noise on top of the labels at hand, training and validation.

  Args:
    world: whose seed draws the flips.
    noise: key of `NOISE`.
    flip_rate: in [0, ½).

  Returns:
    part -> `[n]` bool, True where the first is labelled better.

  Raises:
    ValueError: as `corrupt`.
  """
  key = jax.random.fold_in(jax.random.key(world.seed), 0x11)
  found = {}
  for stream, name in enumerate(('train', 'validation')):
    part = getattr(world, name)
    noisy = corrupt(
      noise,
      jax.random.fold_in(key, stream),
      part.first_is_better ^ part.observed_flip,
      part.known,
      flip_rate=flip_rate,
    )
    found[name] = np.asarray(noisy.label)
  return found

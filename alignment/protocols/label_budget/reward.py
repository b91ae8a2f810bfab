"""A linear reward from labels of different worth, tuned on noisy votes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from alignment.losses import corrections, links
from alignment.metrics.preference import best_temperature_nll
from alignment.models.linear import fit_linear

L2 = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""The grid of every fit, in units of the mean loss."""


class Labels(NamedTuple):
  """What is known of B pairs after buying.

  Attributes:
    label_prob: `[B]` in [0, 1], share or probability of "first is better".
    weight: `[B]` ≥ 0; 0 where nothing is known.
    flip_rate: `[B]` in [0, ½), what the loss assumes: 0 makes it plain.
  """

  label_prob: np.ndarray
  weight: np.ndarray
  flip_rate: np.ndarray


class Validation(NamedTuple):
  """Noisy votes on pairs of their own, by which every fit is tuned alike.

  Attributes:
    features: `[M, D]`.
    vote: `[M]` ±1.
  """

  features: np.ndarray
  vote: np.ndarray


def mixture_loss(
  scores: jax.Array, label_prob: jax.Array, flip_rate: jax.Array
) -> jax.Array:
  """Cross-entropy of votes that were flipped on their way.

    p = (1 − flip_rate)·σ(scores) + flip_rate·σ(−scores)
    loss = −label_prob·log p − (1 − label_prob)·log(1 − p)

  The forward correction applied to n votes at once, label_prob being the share
  for the first completion and n the weight; plain logistic at flip_rate 0.
  """

  def link(z: jax.Array) -> jax.Array:
    return corrections.forward(links.logistic, z, flip_rate)

  return corrections.soft_label(link, scores, label_prob)


def fit_reward(
  features: np.ndarray, labels: Labels, validation: Validation
) -> np.ndarray:
  """The linear reward whose l2 predicts noisy validation votes best.

  Each l2 of `L2` is fitted to `mixture_loss`; what is kept has the lowest
  likelihood loss at its best temperature on `validation`, so no clean label is
  used and the scale of a fit plays no part.

  Args:
    features: `[B, D]`.
    labels: of the B pairs; some weight must be > 0.
    validation: shared by all that is compared.

  Returns:
    `[D]` float64.
  """
  return fit_path(features, labels, validation)[0]


def fit_path(
  features: np.ndarray, labels: Labels, validation: Validation
) -> tuple[np.ndarray, float]:
  """As `fit_reward`, and which l2 was chosen."""
  features, labels = padded(features, labels)
  start, path = None, []
  # From strong to weak: each fit starts where the one before it ended.
  for l2 in sorted(L2, reverse=True):
    path.append(fit(features, labels, l2=l2, start=start))
    start = path[-1]
  margins = validation.vote * (np.stack(path) @ validation.features.T)
  best = int(np.argmin(best_temperature_nll(margins).nll))
  return path[best], sorted(L2, reverse=True)[best]


def fit(
  features: np.ndarray,
  labels: Labels,
  *,
  l2: float,
  start: np.ndarray | None = None,
) -> np.ndarray:
  """`[D]` weights at one l2."""
  arguments = (labels.label_prob, labels.flip_rate)
  return fit_linear(
    features, mixture_loss, arguments, l2=l2, weights=labels.weight, start=start
  ).weights


def padded(features: np.ndarray, labels: Labels) -> tuple[np.ndarray, Labels]:
  """The rows with weight, filled up to a power of two by rows without.

  A fit compiles once per number of rows, so there should be few of them.
  """
  rows = np.flatnonzero(labels.weight)
  filled = np.resize(rows, round_up(len(rows)))
  labels = Labels(*(field[filled] for field in labels))
  labels.weight[len(rows) :] = 0
  return features[filled], labels


def round_up(size: int) -> int:
  """The next power of two, at least 64: arrays of few different shapes."""
  return 1 << max(int(size - 1).bit_length(), 6)

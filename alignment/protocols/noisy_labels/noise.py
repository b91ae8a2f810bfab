"""Noise on labels of C classes, and the transition it amounts to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from alignment.noise.corruption.classes import (
  MATRICES,
  calibrated_matrix,
  corrupt_classes,
)
from alignment.noise.corruption.margins import margin_dependent
from alignment.protocols.noisy_labels.world import Part
from alignment.types import NoisyLabels


def uneven_matrix(num_classes: int, flip_rate: float) -> np.ndarray:
  """Class i is wrong in proportion to C − i, and then any other class alike.

  Before calibration to given labels; `flip_rate` is the mean over classes.
  """
  error = num_classes - np.arange(num_classes)
  error = flip_rate * error / error.mean()
  off = (error / (num_classes - 1))[:, None] * np.ones(num_classes)
  np.fill_diagonal(off, 1 - error)
  return off


def class_noise(
  matrix: Callable[[int, float], np.ndarray],
  key: jax.Array,
  part: Part,
  num_classes: int,
  flip_rate: float,
) -> NoisyLabels:
  """Labels redrawn by a transition matrix, calibrated, in exact counts."""
  # Proportions at a rate that every matrix can have; scaled to the target.
  shape = matrix(num_classes, 0.25)
  transition = calibrated_matrix(shape, part.label, flip_rate)
  return corrupt_classes(
    key,
    part.label,
    index=np.arange(len(part)),
    transition=transition,
    exact=True,
  )


def instance_dependent(
  key: jax.Array, part: Part, num_classes: int, flip_rate: float
) -> NoisyLabels:
  """Close cases are taken for the neighbouring grade, clear ones seldom.

    rate = ½ · exp(−distance / tau), tau found for the mean `flip_rate`

  Raises:
    ValueError: the examples have no distance to a boundary, or the mean rate is
      out of reach.
  """
  del num_classes
  if part.distance is None:
    raise ValueError(
      'instance_dependent noise needs the distance to a class boundary, which '
      'only the embedded task knows'
    )
  flips = margin_dependent(
    key,
    np.ones(len(part), bool),
    index=np.arange(len(part)),
    margin=part.distance,
    flip_rate=flip_rate,
  )
  label = np.where(flips.is_flipped, part.neighbour, part.label)
  return NoisyLabels(label.astype(np.int32), flips.is_flipped, flips.flip_rate)


def _of(matrix: Callable[[int, float], np.ndarray]):
  def noise(
    key: jax.Array, part: Part, num_classes: int, flip_rate: float
  ) -> NoisyLabels:
    return class_noise(matrix, key, part, num_classes, flip_rate)

  return noise


NOISE: Mapping[str, Callable[..., NoisyLabels]] = {
  **{name: _of(matrix) for name, matrix in MATRICES.items()},
  'class_conditional': _of(uneven_matrix),
  'instance_dependent': instance_dependent,
}
"""name -> (key, part, num_classes, flip_rate) -> labels int32."""


def realised_transition(
  clean_label: np.ndarray, noisy_label: np.ndarray, num_classes: int
) -> np.ndarray:
  """P(noisy = j | clean = i) as it came out, `[C, C]`; identity if i is absent.

  Of instance-dependent noise this is the mean over the class: no example has
  exactly these chances.
  """
  counts = np.zeros((num_classes, num_classes))
  np.add.at(counts, (clean_label, noisy_label), 1)
  total = counts.sum(axis=1, keepdims=True)
  return np.where(total > 0, counts / np.maximum(total, 1), np.eye(num_classes))

"""Labels of C classes: transition matrices, and votes as people cast them.

transition[i, j] = P(label j | true class i); every row sums to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from alignment.noise.corruption import draws
from alignment.noise.corruption.calibration import check_rate
from alignment.noise.crowd.table import VoteTable
from alignment.types import NoisyLabels


def symmetric_matrix(num_classes: int, flip_rate: float) -> np.ndarray:
  """1 − flip_rate on the diagonal, flip_rate / (C − 1) everywhere else.

  Raises:
    ValueError: fewer than two classes, or a rate outside [0, 1].
  """
  off = check_rate(flip_rate) / (_check_classes(num_classes) - 1)
  return off + (1 - flip_rate - off) * np.eye(num_classes)


def pair_flip_matrix(num_classes: int, flip_rate: float) -> np.ndarray:
  """Class i is taken for class i + 1, the last for the first, at `flip_rate`.

  Raises:
    ValueError: as `symmetric_matrix`.

  Source: Han et al., Co-teaching, 2018, arXiv 1804.06872.
  """
  eye = np.eye(_check_classes(num_classes))
  stay = 1 - check_rate(flip_rate)
  return stay * eye + (1 - stay) * np.roll(eye, 1, axis=1)


MATRICES: Mapping[str, Callable[[int, float], np.ndarray]] = {
  'symmetric': symmetric_matrix,
  'pair_flip': pair_flip_matrix,
}
"""name -> (num_classes, flip_rate) -> `[C, C]`."""


def calibrated_matrix(
  transition: np.ndarray, clean_label: np.ndarray, flip_rate: float
) -> np.ndarray:
  """The matrix with its errors scaled to a mean flip rate over given labels.

    scaled = (1 − s) · I + s · transition,   mean(1 − scaled[label, label]) =
    flip_rate

  What each class is taken for keeps its proportions.

  Args:
    transition: `[C, C]`.
    clean_label: `[B]` int.
    flip_rate: target mean.

  Raises:
    ValueError: a matrix without errors, a target at which some class would be
      wrong more than always, or a shape or range violated.
  """
  transition = check_transition(transition)
  clean_label = _check_labels(clean_label, len(transition))
  error = 1 - np.diag(transition)
  mean = error[clean_label].mean() if len(clean_label) else 0.0
  scale = check_rate(flip_rate) / mean if flip_rate else 0.0
  if not scale * error.max() <= 1 + 1e-12:
    raise ValueError(
      f'flip_rate={flip_rate} is out of reach: with these labels this matrix '
      f'has mean flip rates in [0, {mean / error.max() if mean else 0:.6g}]'
    )
  return (1 - scale) * np.eye(len(transition)) + scale * transition


def corrupt_classes(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  transition: np.ndarray,
  exact: bool = False,
) -> NoisyLabels:
  """Redraws every label from its row of a transition matrix.

  Whether a label flips and what it becomes are two draws of its index, so
  matrices that differ in scale alone flip nested sets, to the same classes.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` int in [0, C).
    index: `[B]` stable ids.
    transition: `[C, C]`, rows sum to 1.
    exact: of the N examples of class i exactly ⌊N · transition[i, j]⌋ or one
      more become j, and the whole class keeps N; needs indices that do not
      repeat.

  Returns:
    Labels int32; `flip_rate` is 1 − transition[i, i], or the share of the class
    that flipped where `exact`.

  Raises:
    ValueError: a shape, type or range violated.

  Source: Patrini et al., Making deep neural networks robust to label noise,
  2017, arXiv 1609.03683.
  """
  transition = check_transition(transition)
  clean_label = _check_labels(clean_label, len(transition))
  index = np.asarray(index)
  if index.shape != clean_label.shape:
    raise ValueError(
      f'index has shape {index.shape}; it must be {clean_label.shape}'
    )
  flips = draws.uniforms(key, draws.FLIPS, index)
  targets = draws.uniforms(key, draws.TARGETS, index)
  if exact:
    draws.refuse_repeats(index)
    label = _exact_labels(clean_label, transition, flips, targets, index)
  else:
    others = transition * (1 - np.eye(len(transition)))
    reached = np.cumsum(others, axis=1)
    reached /= np.where(reached[:, -1:] > 0, reached[:, -1:], 1)
    became = (targets[:, None] >= reached[clean_label]).sum(axis=1)
    keeps = flips >= others.sum(axis=1)[clean_label]
    label = np.where(keeps, clean_label, became)
  is_flipped = label != clean_label
  rate = (1 - np.diag(transition))[clean_label]
  if exact:
    size = np.bincount(clean_label, minlength=len(transition))
    wrong = np.bincount(clean_label, is_flipped, minlength=len(transition))
    rate = (wrong / np.maximum(size, 1))[clean_label]
  return NoisyLabels(
    label.astype(np.int32), is_flipped, rate.astype(np.float32)
  )


def resample_votes(
  key: jax.Array,
  clean_label: np.ndarray,
  *,
  index: np.ndarray,
  joint: np.ndarray,
) -> VoteTable:
  """Votes of V annotators, drawn together as real ones were cast.

  P(vote_1 = a, …, vote_V = z | clean = i) = joint[i, a, …, z] / Σ joint[i], so
  that how annotators err together survives, which no product of confusion
  matrices keeps.

  Args:
    key: JAX key, one per seed.
    clean_label: `[B]` int in [0, C).
    index: `[B]` stable ids.
    joint: `[C, …, C]`, 1 + V axes, counts ≥ 0 by clean class and votes.

  Returns:
    V votes on each of B tasks by workers 0 … V − 1; sorted by task.

  Raises:
    ValueError: a class that occurs in `clean_label` and has no counts, or a
      shape or range violated.
  """
  joint = np.asarray(joint, np.float64)
  if joint.ndim < 2 or len(set(joint.shape)) != 1 or not np.all(joint >= 0):
    raise ValueError(f'joint has shape {joint.shape}; must be [C, …, C], >= 0')
  num_classes, num_votes = len(joint), joint.ndim - 1
  clean_label = _check_labels(clean_label, num_classes)
  flat = joint.reshape(num_classes, -1)
  missing = np.flatnonzero(flat.sum(axis=1) == 0)
  missing = missing[np.isin(missing, clean_label)]
  if missing.size:
    raise ValueError(f'joint has no counts of class {missing[0]}')
  uniform = draws.uniforms(key, draws.FLIPS, index)
  cell = np.zeros(len(clean_label), int)
  for i in range(num_classes):
    here = clean_label == i
    reached = np.cumsum(flat[i])
    cell[here] = np.searchsorted(
      reached, uniform[here] * reached[-1], side='right'
    )
  votes = np.stack(np.unravel_index(cell, joint.shape[1:]), axis=1)
  return VoteTable(
    task=np.repeat(np.arange(len(cell)), num_votes),
    worker=np.tile(np.arange(num_votes), len(cell)),
    label=votes.ravel(),
    num_tasks=len(cell),
    num_workers=num_votes,
    num_classes=num_classes,
  )


def check_transition(transition: np.ndarray) -> np.ndarray:
  """Returns `transition` as float64.

  Raises:
    ValueError: not `[C, C]`, C ≥ 2, ≥ 0, with rows that sum to 1.
  """
  transition = np.asarray(transition, np.float64)
  square = transition.ndim == 2 and transition.shape[0] == transition.shape[1]
  if not square or len(transition) < 2:
    raise ValueError(f'transition has shape {transition.shape}; must be [C, C]')
  sums = transition.sum(axis=1)
  if not (np.all(transition >= 0) and np.allclose(sums, 1, atol=1e-6)):
    raise ValueError(
      f'transition={transition.tolist()} must be >= 0, rows sum 1'
    )
  return transition / sums[:, None]


def _exact_labels(clean_label, transition, flips, targets, index) -> np.ndarray:
  label = clean_label.copy()
  for i in range(len(transition)):
    members = np.flatnonzero(clean_label == i)
    counts = _whole(transition[i], len(members))
    order = members[np.lexsort((index[members], flips[members]))]
    counts[i] = 0
    flipped = order[: counts.sum()]
    flipped = flipped[np.lexsort((index[flipped], targets[flipped]))]
    label[flipped] = np.repeat(np.arange(len(counts)), counts)
  return label


def _whole(shares: np.ndarray, size: int) -> np.ndarray:
  """Integers nearest to shares · size that sum to `size`."""
  counts = np.floor(shares * size + 1e-9).astype(int)
  rest = shares * size - counts
  counts[np.argsort(-rest, kind='stable')[: size - counts.sum()]] += 1
  return counts


def _check_labels(clean_label: np.ndarray, num_classes: int) -> np.ndarray:
  clean_label = np.asarray(clean_label)
  if clean_label.ndim != 1 or not np.issubdtype(clean_label.dtype, np.integer):
    raise ValueError(
      f'clean_label has shape {clean_label.shape} and type '
      f'{clean_label.dtype}; it must be a vector [B] of integers'
    )
  if len(clean_label) and not (
    0 <= clean_label.min() and clean_label.max() < num_classes
  ):
    raise ValueError(
      f'clean_label={clean_label.min()}..{clean_label.max()} must lie in '
      f'[0, {num_classes})'
    )
  return clean_label


def _check_classes(num_classes: int) -> int:
  if num_classes < 2:
    raise ValueError(f'num_classes={num_classes} must be >= 2')
  return num_classes

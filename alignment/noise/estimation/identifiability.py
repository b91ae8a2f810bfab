"""What stands in the way of a flip rate, before any is estimated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alignment.noise.estimation.agreement import (
  pooled_agreement,
  votes_refusal,
)
from alignment.noise.estimation.triplet import (
  CORRELATED,
  find_panel,
  independence_p_value,
)
from alignment.noise.evidence import Evidence

SMALLEST_SINGULAR = 0.05


class Finding(NamedTuple):
  """Something about the labels that limits what can be known of them.

  Attributes:
    name: short, fixed.
    detail: one sentence with the numbers.
    remedy: one sentence: what would help.
  """

  name: str
  detail: str
  remedy: str


def find_limits(evidence: Evidence) -> list[Finding]:
  """Everything found that makes a rate unidentified or an assumption false."""
  found = [
    *_of_labels(evidence),
    *_of_votes(evidence),
    *_of_anchors(evidence),
  ]
  return found


def is_rank_deficient(
  transition: np.ndarray, smallest: float = SMALLEST_SINGULAR
) -> bool:
  """Whether labels lose a direction of the true classes.

  A smallest singular value below `smallest`: some mixture of true classes
  leaves hardly a trace in the labels, and no correction brings it back. Of two
  classes with symmetric flips that value is |1 − 2ε|.

  Args:
    transition: `[C, C]` P(label j | true class i), rows sum to 1.
    smallest: > 0.

  Raises:
    ValueError: not a square matrix of rows that sum to 1.
  """
  transition = np.asarray(transition, np.float64)
  square = transition.ndim == 2 and transition.shape[0] == transition.shape[1]
  if not square or not np.allclose(transition.sum(axis=1), 1):
    raise ValueError(
      f'transition of shape {transition.shape} must be [C, C], rows sum to 1'
    )
  values = np.linalg.svd(transition, compute_uv=False)
  return bool(values[-1] < smallest)


def anchor_transition(evidence: Evidence) -> np.ndarray | None:
  """`[C, C]` P(label j | true class i) over the rows of known class.

  None where a class has no such row.
  """
  if evidence.clean_label is None:
    return None
  known = evidence.clean_label >= 0
  classes = evidence.num_classes
  cell = evidence.clean_label[known] * classes + evidence.label[known]
  counts = np.bincount(cell, minlength=classes**2).reshape(classes, classes)
  if not np.all(counts.sum(axis=1)):
    return None
  return counts / counts.sum(axis=1, keepdims=True)


def _of_labels(evidence: Evidence) -> list[Finding]:
  found = []
  seen = np.bincount(evidence.label, minlength=evidence.num_classes)
  if np.count_nonzero(seen) == 1:
    found.append(
      Finding(
        'one class',
        f'all {len(evidence)} labels are of class {int(np.argmax(seen))}',
        'randomise the order of the completions before labels are classes, or '
        'add rows of the other class',
      )
    )
  has_votes = evidence.votes is not None and (
    evidence.votes.counts.sum(axis=1).max(initial=0) > 1
  )
  known = evidence.clean_label is not None and np.any(evidence.clean_label >= 0)
  if not has_votes and not known and evidence.clean_margin is None:
    found.append(
      Finding(
        'single labels',
        'there is one label a row, and flips look like uncertain preference',
        'a second vote on some rows, known true classes of some, or a stated '
        'law of clean margins would identify a rate',
      )
    )
  return found


def _of_votes(evidence: Evidence) -> list[Finding]:
  votes = evidence.votes
  if votes is None:
    return []
  found = []
  why = votes_refusal(votes)
  if why:
    return [Finding('votes tell nothing', why.partition(';')[0], why)]
  counts = votes.counts
  if not np.any((counts > 0).sum(axis=1) > 1):
    found.append(
      Finding(
        'unanimous votes',
        'no two votes on a row differ',
        'check that votes are independent; a rate has an upper limit only',
      )
    )
  single = _one_label_workers(evidence)
  if single:
    found.append(
      Finding(
        'workers with one label',
        f'{len(single)} workers gave 5 votes or more, all of one class (worker '
        f'{single[0]} first)',
        'their votes agree with others by habit; look at them, or randomise '
        'the order of completions',
      )
    )
  agreement = pooled_agreement(votes, evidence.group)
  chance = 1 / evidence.num_classes
  if agreement.low is not None and agreement.low <= chance:
    found.append(
      Finding(
        'agreement near chance',
        f'votes agree in {agreement.value:.3f} of pairs, chance is '
        f'{chance:.3f}',
        'a flip rate of 1/2 cannot be excluded: no loss recovers from that, '
        'more careful labels would',
      )
    )
  found.extend(_dependence(evidence))
  return found


def _one_label_workers(evidence: Evidence) -> list[int]:
  votes = evidence.votes
  cell = votes.worker.astype(np.int64) * votes.num_classes + votes.label
  size = votes.num_workers * votes.num_classes
  given = np.bincount(cell, minlength=size).reshape(votes.num_workers, -1)
  constant = (given.sum(axis=1) >= 5) & ((given > 0).sum(axis=1) == 1)
  return np.flatnonzero(constant).tolist()


def _dependence(evidence: Evidence) -> list[Finding]:
  if evidence.num_classes != 2:
    return []
  panel = find_panel(evidence.votes, evidence.group)
  p_value = None if panel is None else independence_p_value(panel)
  if p_value is None or p_value >= 0.01:
    return []
  return [
    Finding(
      CORRELATED,
      f'the agreement of {len(panel.worker)} workers contradicts independent '
      f'errors at one rate each (p = {p_value:.2g})',
      'they copy each other, or find the same rows hard; rates from agreement '
      'are then too low, known true classes of some rows would tell',
    )
  ]


def _of_anchors(evidence: Evidence) -> list[Finding]:
  transition = anchor_transition(evidence)
  if transition is None or not is_rank_deficient(transition):
    return []
  return [
    Finding(
      'rank-deficient transition',
      'on rows of known class, labels hardly depend on the true class',
      'no correction by the transition is possible; merge the classes that '
      'labels do not tell apart',
    )
  ]

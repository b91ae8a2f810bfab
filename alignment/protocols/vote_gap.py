"""What better labels are worth, before any loss is asked to make up for them.

Labels at hand may already differ from the best ones known: one worker's vote
from the majority of all. DPO on the majority minus DPO on one vote is all that
a robust loss could win back there; if its interval covers 0 the data cannot
rank losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from alignment.data.records import Preference, Record, VotedPair
from alignment.data.votes import ceiling
from alignment.metrics.intervals import Estimate
from alignment.protocols.arena import Arena
from alignment.protocols.bakeoff import Grid
from alignment.protocols.contestants import Contestant
from alignment.protocols.rounds import Job, best_labels, noisy_labels
from alignment.protocols.standings import Cell, Units, select

AT_HAND, BEST = 'labels at hand', 'best labels known'


def natural_flip_rate(records: Sequence[Record]) -> float | None:
  """How often the labels at hand err before any noise is injected.

  From votes it is `Ceiling.flip_rate`, exact where all votes err alike and
  otherwise a lower bound of the mean; from rows that say `is_flipped`, their
  share. Single labels do not identify it: flips and stochastic preferences
  look the same.

  Args:
    records: preferences, or pairs with votes.

  Returns:
    In [0, ½], or None where it is not identified.
  """
  if isinstance(records[0], VotedPair):
    return ceiling(records).flip_rate
  known = [r.is_flipped for r in records if isinstance(r, Preference)]
  if None in known:
    return None
  return float(np.mean(known))


def has_gap(arenas: Sequence[Arena]) -> bool:
  """Whether better labels than those at hand are known for any pair."""
  return any(arena.train.pairs.observed_flip.any() for arena in arenas)


def gap_jobs(arena: Arena, baseline: Contestant, grid: Grid) -> Iterator[Job]:
  """The baseline on the labels at hand and on the best known, no noise added.

  Validation labels follow: selection on labels at hand is part of what they
  cost.
  """
  at_hand = noisy_labels(arena, 'exact_count', 0.0, {})
  yield Job(0.0, AT_HAND, baseline, at_hand, grid)
  yield Job(0.0, BEST, baseline, best_labels(arena), grid)


def gap(cells: Sequence[Cell], units: Units, metric: str) -> Estimate | None:
  """Best labels minus labels at hand, paired; None where it was not run."""
  best, at_hand = select(cells, role=BEST), select(cells, role=AT_HAND)
  if not best:
    return None
  return units.difference(best, at_hand, 'selected', metric)

"""What better labels are worth, before any loss is asked to make up for them.

Labels at hand may already differ from the best ones known: one worker's vote
from the majority of all. DPO on the majority minus DPO on one vote is all that
a robust loss could win back there; if its interval covers 0 the data cannot
rank losses.
"""

from __future__ import annotations

from collections.abc import Sequence

from alignment.metrics.intervals import Estimate
from alignment.protocols.arena import Arena
from alignment.protocols.bakeoff import Grid
from alignment.protocols.contestants import Contestant
from alignment.protocols.labelling import (
  EXACT_FLIPS,
  best_labels,
  noisy_labels,
)
from alignment.protocols.rounds import Carrying, Job, train_jobs
from alignment.protocols.standings import Cell, Units, select

AT_HAND, BEST = 'labels at hand', 'best labels known'


def train_gap(
  arenas: Sequence[Arena],
  baseline: Contestant,
  grid: Grid,
  carrying: Carrying,
) -> list[Cell]:
  """The baseline on the labels at hand and on the best known, no noise added.

  Validation labels follow: selection on labels at hand is part of what they
  cost.

  Returns:
    Two cells per arena; none where no better labels are known.
  """
  if not any(arena.train.pairs.observed_flip.any() for arena in arenas):
    return []
  jobs = []
  for arena in arenas:
    at_hand = noisy_labels(arena, EXACT_FLIPS, 0.0)
    best = best_labels(arena)
    jobs.append((arena, Job(0.0, AT_HAND, baseline, at_hand, grid)))
    jobs.append((arena, Job(0.0, BEST, baseline, best, grid)))
  return train_jobs(jobs, carrying, with_pairs=True)


def gap(cells: Sequence[Cell], units: Units, metric: str) -> Estimate | None:
  """Best labels minus labels at hand, paired; None where it was not run."""
  best, at_hand = select(cells, role=BEST), select(cells, role=AT_HAND)
  if not best:
    return None
  return units.difference(best, at_hand, 'selected', metric)

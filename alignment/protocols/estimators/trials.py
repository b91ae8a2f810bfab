"""Estimators of a flip rate against the truth, over and over."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment.noise.estimation.estimate import HALF, RateEstimate
from alignment.protocols.estimators.worlds import WORLDS


class Cell(NamedTuple):
  """What many trials in one world, at one size and rate, came to.

  Attributes:
    world, estimator, size, rate: which.
    holds, is_closed_form: of the world.
    truth: the rate that the estimator should give.
    trials: how many.
    bias, rmse: of the numbers given; None where there was none.
    coverage: share of the intervals or sets given that hold the truth; None
      where there was none.
    width: their mean width.
    refused, set_valued, flagged: shares of the trials: no interval and no set;
      a set without a number; any flag but those of a set or of ε = 0.
    touches_half: share of intervals that end at ½.
    assumption: of the estimator, one sentence.
  """

  world: str
  estimator: str
  size: int
  rate: float
  holds: bool
  is_closed_form: bool
  truth: float
  trials: int
  bias: float | None
  rmse: float | None
  coverage: float | None
  width: float | None
  refused: float
  set_valued: float
  flagged: float
  touches_half: float
  assumption: str


def run_cell(name: str, size: int, rate: float, trials: int, seed: int) -> Cell:
  """Tries one world; the same seed gives the same cell, whatever else runs."""
  world = WORLDS[name]
  key = [seed, zlib.crc32(name.encode()), size, round(rate * 1e6)]
  rng = np.random.default_rng(key)
  found, truth = [], 0.0
  for _ in range(trials):
    estimate, truth = world.draw(rng, size, rate)
    found.append(estimate)
  return _summary(name, size, rate, found, truth)


def band(cell: Cell) -> tuple[float, float]:
  """Where coverage should lie if the assumption holds.

  Closed forms .93 to .97, the others .91 to .99; only from below where the
  rate is 0, since intervals there begin at the truth, and for sets.
  """
  low, high = (0.93, 0.97) if cell.is_closed_form else (0.91, 0.99)
  return low, 1.0 if cell.truth == 0 or cell.set_valued == 1 else high


def is_in_band(cell: Cell) -> bool | None:
  """None where the assumption fails, or nothing was covered by design."""
  if not cell.holds or cell.coverage is None:
    return None
  low, high = band(cell)
  return low <= cell.coverage <= high


def _summary(
  name: str,
  size: int,
  rate: float,
  found: Sequence[RateEstimate],
  truth: float,
) -> Cell:
  world = WORLDS[name]
  given = np.array([e.rate for e in found if e.rate is not None])
  ends = np.array([(e.low, e.high) for e in found if e.low is not None])
  quiet = ('identified set', 'one-sided', HALF)
  flags = [[f for f in e.flags if not f.startswith(quiet)] for e in found]
  error = given - truth
  covered = coverage = width = None
  if len(ends):
    covered = (ends[:, 0] <= truth + 1e-9) & (truth - 1e-9 <= ends[:, 1])
    coverage, width = float(covered.mean()), float(np.ptp(ends, axis=1).mean())
  return Cell(
    world=name,
    estimator=world.estimator,
    size=size,
    rate=rate,
    holds=world.holds,
    is_closed_form=world.is_closed_form,
    truth=float(truth),
    trials=len(found),
    bias=float(error.mean()) if len(given) else None,
    rmse=float(np.sqrt(np.mean(error**2))) if len(given) else None,
    coverage=coverage,
    width=width,
    refused=float(np.mean([e.is_refused for e in found])),
    set_valued=float(
      np.mean([e.rate is None and e.low is not None for e in found])
    ),
    flagged=float(np.mean([bool(f) for f in flags])),
    touches_half=float(np.mean([HALF in e.flags for e in found])),
    assumption=found[0].assumption,
  )

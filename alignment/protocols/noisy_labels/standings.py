"""How the arms of one noise and rate stand: accuracies and paired differences.

Units are seeds, or, for a file that every seed shares, groups of test rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.metrics.comparison import Recovery, recovery
from alignment.metrics.intervals import (
  Estimate,
  clustered_mean,
  mean_interval,
  paired_difference,
)
from alignment.protocols.noisy_labels.methods import BASELINE
from alignment.protocols.noisy_labels.trial import CLEAN, UNFLIPPED

CONTROLS = (UNFLIPPED, CLEAN)


@dataclasses.dataclass(frozen=True, eq=False)
class Standings:
  """The trials of one noise and rate.

  Attributes:
    rows: of `run_trial`, one per seed.
    arms: names of all that were to compete, the baseline first.
    groups: `[B]` of the test rows where these are the units, else None.
  """

  rows: Sequence[Mapping[str, Any]]
  arms: Sequence[str]
  groups: np.ndarray | None = None

  @property
  def names(self) -> list[str]:
    """Arms that could be trained on every seed, then the controls."""
    return [
      name
      for name in (*self.arms, *CONTROLS)
      if all(name in row['arms'] for row in self.rows)
    ]

  def of(self, name: str) -> list[Mapping[str, Any]]:
    """The scores of an arm, by seed."""
    return [row['arms'][name] for row in self.rows]

  def values(self, name: str) -> np.ndarray:
    """Accuracy by seed, or by test row as the mean over seeds."""
    if self.groups is None:
      return np.array([arm['selected']['accuracy'] for arm in self.of(name)])
    hits = [[hit == '1' for hit in arm['right']] for arm in self.of(name)]
    return np.mean(hits, axis=0)

  def accuracy(self, name: str) -> Estimate:
    if self.groups is None:
      return mean_interval(self.values(name))
    return clustered_mean(self.values(name), self.groups)

  def difference(
    self, name: str, other: str = BASELINE, confidence: float = 0.95
  ) -> Estimate:
    """Accuracy of `name` minus that of `other`, paired by unit."""
    one, two = self.values(name), self.values(other)
    if self.groups is None:
      return paired_difference(one, two, confidence)
    return clustered_mean(one - two, self.groups, confidence)

  def recovery(self, name: str) -> Recovery | None:
    """(name − baseline) / (clean − baseline); None of rows of a file."""
    if name in (BASELINE, CLEAN) or self.groups is not None:
      return None
    return recovery(*map(self.values, (name, BASELINE, CLEAN)))

  def contestants(self) -> dict[str, Estimate]:
    """name -> difference to the baseline, of all that compete with it."""
    return {
      name: self.difference(name)
      for name in self.names
      if name != BASELINE and name not in CONTROLS
    }


def ruling(gap: Estimate) -> str:
  """'better', 'worse' or 'undecided'; 'no interval' from a single unit."""
  if gap.low is None:
    return 'no interval'
  if gap.low > 0:
    return 'better'
  return 'worse' if gap.high < 0 else 'undecided'

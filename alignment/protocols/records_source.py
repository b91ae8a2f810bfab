"""Real preferences as a bake-off takes them, and what their labels say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment.data.chat_template import ChatTemplate
from alignment.data.records import Preference, Record, Report, VotedPair
from alignment.data.source import load
from alignment.data.votes import Ceiling, ceiling
from alignment.noise.labels import effective_flip_rate
from alignment.protocols.records_draw import check_records


class Source(NamedTuple):
  """Preferences and what is known of their labels.

  Attributes:
    records: preferences, or pairs with votes.
    report: what was dropped on reading.
    flip_rate: how often the labels at hand err before any noise is injected,
      in [0, ½]; None where that is not identified.
    ceiling: of the votes; None where there are none.
  """

  records: Sequence[Record]
  report: Report
  flip_rate: float | None
  ceiling: Ceiling | None

  @property
  def cluster(self) -> str:
    """What is split and resampled, in words."""
    return 'title' if self.ceiling else 'first turn'

  def effective(self, injected: float) -> float:
    """The rate of both flips in a row; `injected` where that is all one has."""
    return effective_flip_rate(self.flip_rate or 0.0, injected)


def read_source(spec: str, template: ChatTemplate | None = None) -> Source:
  """Reads preferences and measures what their labels say about themselves.

  From votes the flip rate is `Ceiling.flip_rate`, exact where all votes err
  alike and otherwise a lower bound of the mean; from rows that say
  `is_flipped`, their share. Single labels do not identify it: flips and
  stochastic preferences look the same.

  Args:
    spec: as for `load`.
    template: writes columns of messages as text; None: plain turns.

  Raises:
    DataError: it cannot be read, or holds no pairs that can be split.
  """
  records, report = load(spec, template=template)
  check_records(records)
  if isinstance(records[0], VotedPair):
    found = ceiling(records)
    return Source(records, report, found.flip_rate, found)
  known = [r.is_flipped for r in records if isinstance(r, Preference)]
  rate = None if None in known else float(np.mean(known))
  return Source(records, report, rate, None)

"""What an estimator of a flip rate may say: a number, a set, or neither."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateEstimate:
  """A flip rate, its interval, and the assumption that identifies it.

  Attributes:
    estimator: its name in `ESTIMATORS`.
    assumption: one sentence: what has to hold for the number to mean what it
      says.
    rate: in [0, 1]; None where the data give only a set, or nothing.
    low, high: the 95 % interval, or the identified set where `rate` is None;
      None where there is neither.
    count: independent units it rests on.
    unit: what these are: `pairs`, `votes`, a kind of cluster.
    flags: remarks that a reader must see beside the number, such as
      `interval touches 1/2` or `one-sided`.
    refusal: why there is no number and no set, and what would give one; ''
      where there is either.
  """

  estimator: str
  assumption: str
  rate: float | None = None
  low: float | None = None
  high: float | None = None
  count: int = 0
  unit: str = 'pairs'
  flags: tuple[str, ...] = ()
  refusal: str = ''

  @property
  def is_refused(self) -> bool:
    return bool(self.refusal)

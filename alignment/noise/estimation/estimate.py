"""What an estimator of a flip rate may say: a number, a set, or neither."""

from __future__ import annotations

import dataclasses

HALF = 'interval touches 1/2'
ONE_SIDED = 'one-sided: the estimate is 0'


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


def bounded(
  estimator: str,
  assumption: str,
  rate: float,
  low: float | None,
  high: float | None,
  *,
  count: int,
  unit: str,
  chance: float = 0.5,
  above: str = '',
  flags: tuple[str, ...] = (),
) -> RateEstimate:
  """An estimate that keeps to what can be told of rates near 0 and chance.

  An interval that reaches `chance` becomes [low, chance], flagged; a rate at
  or above it is then no number but that set. An interval wholly above chance
  is refused, or kept and flagged where the estimator can see that far. At a
  rate of 0 the interval starts there, flagged as one-sided.

  Args:
    estimator, assumption, rate, low, high, count, unit, flags: of the
      estimate; rate and interval may lie anywhere.
    chance: the rate of labels that say nothing, 1 − 1 / C.
    above: why an interval above `chance` is refused; '' keeps it.
  """
  given = RateEstimate(
    estimator=estimator,
    assumption=assumption,
    rate=float(max(rate, 0.0)),
    low=None if low is None else float(max(low, 0.0)),
    high=None if high is None else float(min(high, 1.0)),
    count=count,
    unit=unit,
    flags=flags,
  )
  if low is None:
    return _flagged(given, 'no interval: a single unit')
  if rate <= 0:
    given = dataclasses.replace(_flagged(given, ONE_SIDED), low=0.0)
  if given.low >= chance and above:
    return refused(estimator, assumption, above, count=count, unit=unit)
  if given.low >= chance:
    return _flagged(given, 'above 1/2: labels say the opposite')
  if given.high < chance:
    return given
  set_valued = {} if rate < chance else {'rate': None}
  return dataclasses.replace(_flagged(given, HALF), high=chance, **set_valued)


def refused(
  estimator: str,
  assumption: str,
  why: str,
  *,
  count: int = 0,
  unit: str = 'pairs',
) -> RateEstimate:
  """Neither a number nor a set; `why` also says what would give one."""
  return RateEstimate(
    estimator=estimator,
    assumption=assumption,
    count=count,
    unit=unit,
    refusal=why,
  )


def _flagged(estimate: RateEstimate, flag: str) -> RateEstimate:
  return dataclasses.replace(estimate, flags=(*estimate.flags, flag))

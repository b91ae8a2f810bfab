"""Do rows differ in their flip rate, and what is the mean if they do?

Anonymous votes on two classes tell the moments of u = ε(1 − ε) and nothing
more: E[u] from two or three votes a row, E[u²] from four or five. One common
rate and a law of rates are therefore the same to three votes: a test and a
Beta law need rows with four.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize, special, stats

from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.agreement import (
  rate_of_agreement,
  two_classes_refusal,
  votes_refusal,
)
from alignment.noise.estimation.estimate import (
  RateEstimate,
  bounded,
  refused,
)
from alignment.noise.estimation.likelihood import (
  count_groups,
  profile_interval,
  score_design_effect,
)
from alignment.noise.estimation.splits import (
  Splits,
  log_beta,
  log_equal,
  vote_splits,
)
from alignment.noise.evidence import Evidence

FEWEST_VOTES, FEWEST_ROWS = 4, 20
BETA_RATES = (
  'Votes err independently given the truth and the row, and the flip rates of '
  'rows follow a Beta law of mean below 1/2.'
)
NEEDS_FOUR = (
  f'fewer than {FEWEST_ROWS} rows have four votes: with two or three, one '
  'common rate and rates that differ by row give the same splits; more votes '
  'on some rows would tell'
)
# Of one row: 0 is one common rate, 1 is rows that are always or never wrong.
_SPREADS = special.expit(np.linspace(-9, 6, 46))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeterogeneityTest:
  """Whether one flip rate for all rows explains how votes split.

  Attributes:
    p_value: small where rates of rows differ; None where refused.
    variance: estimate of Var[ε(1 − ε)] over rows, 0 of equal rates; may be
      below 0.
    statistic: the variance in units of its standard error.
    equal_rate: the one rate that explains the agreement best.
    splits: (votes, minority, observed rows, rows expected of that one rate).
    count: independent units.
    refusal: why there is no test; '' where there is one.
  """

  p_value: float | None = None
  variance: float | None = None
  statistic: float | None = None
  equal_rate: float | None = None
  splits: tuple[tuple[int, int, int, float], ...] = ()
  count: int = 0
  refusal: str = ''


def heterogeneity_test(
  votes: VoteTable,
  group: np.ndarray,
  rng: np.random.Generator,
  *,
  resamples: int = 2000,
) -> HeterogeneityTest:
  """Tests one common flip rate against rates that differ by row.

  Of a row with V votes, m of them in the minority, m(V − m) / (V)₂ and
  (m)₂(V − m)₂ / (V)₄ are unbiased for u = ε(1 − ε) and u², (x)ₖ the falling
  factorial, so their means give Var[u]. One-sided, since a variance is never
  below 0. Rows of their own: the statistic is compared with `resamples`
  simulations at the common rate; rows in groups: with t(G − 1), by the
  variance over groups.

  Args:
    votes: of two classes; rows with fewer than four votes are left out.
    group: `[num_tasks]` what is drawn together.
    rng: numpy generator.
    resamples: simulations, ≥ 1.
  """
  if votes.num_classes != 2:
    return HeterogeneityTest(
      refusal=f'is defined for two classes, there are {votes.num_classes}'
    )
  why = votes_refusal(votes)
  splits = vote_splits(votes, at_least=FEWEST_VOTES)
  if why or len(splits.row) < FEWEST_ROWS:
    return HeterogeneityTest(refusal=why or NEEDS_FOUR)
  first, second = _moments(splits)
  rate = float(
    rate_of_agreement(1 - 2 * np.average(first, weights=splits.count), 2)
  )
  cells = tuple(
    zip(
      splits.votes.tolist(),
      splits.minority.tolist(),
      splits.count.tolist(),
      _expected(splits, rate).tolist(),
      strict=True,
    )
  )
  group = np.asarray(group)[splits.row]
  num_groups = count_groups(group)
  variance, error = _variance(splits.count, first, second)
  if num_groups is None:
    drawn = _simulate(splits, rate, rng, resamples)
    null = _ratio(*_variance(drawn, first, second))
    statistic = _ratio(variance, error)
    p_value = (1 + np.sum(null >= statistic - 1e-9)) / (1 + resamples)
  elif num_groups > 1:
    pull = _pull(splits.count, first, second)[splits.cell]
    statistic = _ratio(variance, _grouped_error(pull, group))
    p_value = stats.t.sf(statistic, num_groups - 1)
  else:
    return HeterogeneityTest(refusal='all rows are of one group')
  return HeterogeneityTest(
    p_value=float(p_value),
    variance=float(variance),
    statistic=float(statistic),
    equal_rate=rate,
    splits=cells,
    count=num_groups or len(group),
  )


def beta_mixture_rate(
  evidence: Evidence, _: np.random.Generator
) -> RateEstimate:
  """Mean flip rate if the rates of rows follow a Beta law, from vote splits.

  Maximum likelihood over mean and spread of `log_beta`; the interval is the
  profile likelihood of the mean, rescaled where rows come in groups.
  """
  name, unit = 'beta_mixture', evidence.group_name
  votes = evidence.votes
  why = votes_refusal(votes) or two_classes_refusal(evidence)
  if not why:
    splits = vote_splits(votes)
    enough = splits.count[splits.votes >= FEWEST_VOTES].sum() >= FEWEST_ROWS
    why = '' if enough else NEEDS_FOUR
  if why:
    return refused(name, BETA_RATES, why)
  mean, spread = fit_beta(splits)
  group = evidence.group[splits.row]
  num_groups = count_groups(group)
  count = num_groups or len(group)
  if count == 1:
    return bounded(name, BETA_RATES, mean, None, None, count=1, unit=unit)
  low, high = profile_interval(
    lambda rate: _profile(splits, rate)[0],
    mean,
    (0.0, 0.5),
    design_effect=score_design_effect(_scores(splits, mean, spread), group),
    num_groups=num_groups,
  )
  return bounded(name, BETA_RATES, mean, low, high, count=count, unit=unit)


def fit_beta(splits: Splits) -> tuple[float, float]:
  """Mean in [0, ½] and spread of the Beta law that explains splits best."""
  if not splits.count[splits.minority > 0].any():
    return 0.0, float(_SPREADS[0])
  means = np.linspace(0, 0.5, 26)[1:]
  values = [_profile(splits, mean)[0] for mean in means]
  best = int(np.argmax(values))
  found = optimize.minimize_scalar(
    lambda mean: -_profile(splits, mean)[0],
    bounds=(means[best] - 0.02, min(0.5, means[best] + 0.02)),
    method='bounded',
    options={'xatol': 1e-6},
  )
  mean = 0.5 if -found.fun < values[-1] else float(found.x)
  return mean, _profile(splits, mean)[1]


def _profile(splits: Splits, mean: float) -> tuple[float, float]:
  """Log-likelihood of a mean, maximised over the spread, and that spread."""
  if mean <= 0:
    wrong = splits.count[splits.minority > 0].any()
    return (-np.inf if wrong else 0.0), float(_SPREADS[0])
  candidates = _SPREADS
  for _ in range(3):
    values = log_beta(splits, mean, candidates) @ splits.count
    best = int(np.argmax(values))
    nearest = candidates[max(best - 1, 0) : best + 2]
    value, spread = float(values[best]), float(candidates[best])
    candidates = special.expit(
      np.linspace(*special.logit(nearest[[0, -1]]), 17)
    )
  return value, spread


def _scores(splits: Splits, mean: float, spread: float) -> np.ndarray:
  """`[B, 2]` derivatives of a row's log-likelihood by mean and spread."""
  mean = float(np.clip(mean, 1e-4, 0.5))
  step, factor = 1e-5, 1e-3
  by_mean = log_beta(splits, mean + step, spread) - log_beta(
    splits, mean - step, spread
  )
  by_spread = log_beta(splits, mean, spread) - log_beta(
    splits, mean, spread * (1 - factor)
  )
  both = [by_mean / (2 * step), by_spread / (factor * spread)]
  return np.stack(both, axis=1)[splits.cell]


def _moments(splits: Splits) -> tuple[np.ndarray, np.ndarray]:
  """`[K]` twice: a row's unbiased estimates of ε(1 − ε) and its square."""
  small = splits.minority.astype(np.float64)
  votes = splits.votes.astype(np.float64)
  large = votes - small
  first = small * large / (votes * (votes - 1))
  second = small * (small - 1) * large * (large - 1)
  return first, second / (votes * (votes - 1) * (votes - 2) * (votes - 3))


def _pull(
  count: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
  """`[..., K]` influence of a cell's rows on Var[u]."""
  total = count.sum(axis=-1, keepdims=True)
  mean = (count @ first)[..., None] / total
  square = (count @ second)[..., None] / total
  return second - square - 2 * mean * (first - mean)


def _variance(
  count: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Var[u] from cell counts `[..., K]`, and its standard error."""
  total = count.sum(axis=-1)
  value = count @ second / total - (count @ first / total) ** 2
  squares = np.sum(count * _pull(count, first, second) ** 2, axis=-1)
  return value, np.sqrt(squares) / total


def _grouped_error(pull: np.ndarray, group: np.ndarray) -> float:
  """Standard error of a mean of influences over groups of rows."""
  _, place = np.unique(group, return_inverse=True)
  sums = np.bincount(place, pull)
  size = len(sums)
  return float(np.sqrt(size / (size - 1) * np.sum(sums**2)) / len(pull))


def _ratio(value: np.ndarray, error: np.ndarray) -> np.ndarray:
  """value / error, 0 where nothing varies."""
  return np.where(error > 0, value / np.where(error > 0, error, 1), 0.0)


def _expected(splits: Splits, rate: float) -> np.ndarray:
  """Rows expected in every cell at one common rate."""
  rows = np.bincount(splits.votes, splits.count)[splits.votes]
  return rows * np.exp(log_equal(splits, rate))


def _simulate(
  splits: Splits, rate: float, rng: np.random.Generator, resamples: int
) -> np.ndarray:
  """`[S, K]` cell counts drawn at one common rate."""
  share = np.exp(log_equal(splits, rate))
  parts = []
  for votes in np.unique(splits.votes):
    cells = splits.votes == votes
    odds = share[cells] / share[cells].sum()
    parts.append(rng.multinomial(splits.count[cells].sum(), odds, resamples))
  return np.concatenate(parts, axis=1)

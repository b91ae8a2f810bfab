"""Which loss to use on noisy preferences, if one has earned it.

A loss is recommended only where it was chosen on one half of simulated noise
scenarios and beat plain training on the other half. Scenarios are built on the
user's own pairs, compatible with what an audit found of their noise; what they
cannot know is whether reality is among them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from alignment.metrics.intervals import (
  Estimate,
  mean_interval,
  paired_difference,
)
from alignment.models.linear import one_blas_thread
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.estimation.heterogeneity import heterogeneity_test
from alignment.noise.evidence import Evidence
from alignment.protocols import ledger
from alignment.protocols.noise_scenarios import (
  ARMS,
  KINDS,
  NEED_RATE,
  PLAIN,
  Scenario,
  TooFewPairsError,
  fit_arm,
  play,
  reduce_features,
)

MAX_PAIRS, FEWEST_PAIRS, COLUMNS = 1600, 400, 48
LARGEST_RATE = 0.45
FEWEST_IN_STRATUM = 8
SIGNIFICANT = 0.05
MARGIN_SCALES = (1.0, 3.0)
"""Root mean square of the margins of Bradley-Terry labels."""


class ArmRow(NamedTuple):
  """How one loss fared in the scenarios that judge.

  Attributes:
    loss: its name.
    accuracy: mean clean accuracy.
    regret: best loss of each scenario minus this one, in accuracy.
    gain: this one minus plain, paired; None for plain itself.
  """

  loss: str
  accuracy: Estimate
  regret: Estimate
  gain: Estimate | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
  """A loss that has earned it, or none, and the figures either way.

  Attributes:
    loss: its name; None where none is recommended.
    reason: one or two sentences with the numbers that decide.
    table: every loss on the judging half; empty where nothing could be judged.
    rule: what was observed -> the loss that was best on the learning half.
    regret: of following the rule, against the best loss of each scenario.
    plain_regret: of always training plainly.
    gain: plain_regret − regret, paired by scenario.
  """

  loss: str | None
  reason: str
  table: tuple[ArmRow, ...] = ()
  rule: Mapping[Hashable, str] = dataclasses.field(default_factory=dict)
  regret: Estimate | None = None
  plain_regret: Estimate | None = None
  gain: Estimate | None = None


class Observed(NamedTuple):
  """What an audit leaves open about the noise.

  Attributes:
    low, high: range of mean flip rates, in [0, ½).
    assumed: one rate for losses that need one; None where none was found.
    kinds: noise models that are not ruled out.
  """

  low: float
  high: float
  assumed: float | None
  kinds: tuple[str, ...]


def recommend(
  evidence: Evidence,
  features: np.ndarray | sparse.sparray,
  estimates: Sequence[RateEstimate],
  rng: np.random.Generator,
  *,
  budget: int = 64,
) -> Recommendation:
  """Recommends a loss for these pairs, or says that none has earned it.

  Every scenario takes as true the reward that one of the losses, in turn,
  makes of a resample of the labels at hand (whole groups), labels pairs by it
  (Bradley-Terry or argmax) and flips them by a kind of noise at a rate that
  the audit does not rule out; the fitted model sees all or half of the leading
  directions of the features, and an eighth or half of the pairs. On every
  second scenario the loss of the best mean accuracy is chosen; by the others it
  is recommended if the 95 % interval of its paired gain over plain training
  lies above 0. At most MAX_PAIRS pairs in COLUMNS directions are used: what
  holds for many more pairs it cannot say.

  Args:
    evidence: two classes; its votes and features tell which noise is possible.
    features: `[B, D]` of the pairs, first completion minus second.
    estimates: what estimators said of the flip rate.
    rng: numpy generator.
    budget: scenarios ≥ 8, half to learn from and half to judge by.

  Returns:
    A recommendation; its interval speaks of new scenarios of the same making.

  Raises:
    ValueError: budget or features out of range.

  Source: the demand for a held-out judgement of the choice itself, Cawley and
  Talbot, On over-fitting in model selection and subsequent selection bias in
  performance evaluation, 2010.
  """
  if budget < 8:
    raise ValueError(f'budget={budget} must be >= 8')
  if features.shape[0] != len(evidence):
    raise ValueError(
      f'features has {features.shape[0]} rows; it must have {len(evidence)}'
    )
  refusal = _refusal(evidence)
  if refusal:
    return Recommendation(loss=None, reason=refusal)
  observed = observe(evidence, estimates, rng)
  arms = [a for a in ARMS if a not in NEED_RATE or observed.assumed]
  rows = rng.permutation(len(evidence))[:MAX_PAIRS]
  reduced = reduce_features(features[rows], COLUMNS)
  sides = np.where(evidence.label[rows] == 0, 1.0, -1.0)
  group = np.asarray(evidence.group)[rows]
  longer = _longer(evidence, rows)
  scenarios = draw_scenarios(rng, observed, len(rows), budget)
  streams = rng.spawn(budget)

  def one(number: int) -> np.ndarray:
    stream, scenario = streams[number], scenarios[number]
    truth = arms[number // 2 % len(arms)]
    assumed = observed.assumed or 0.0
    margin = _truth(stream, truth, reduced, sides, group, assumed)
    scale = stream.choice(MARGIN_SCALES) / np.sqrt(np.mean(margin**2) + 1e-12)
    return play(
      stream,
      scenario,
      reduced,
      margin * scale,
      group,
      arms,
      assumed=assumed,
      longer=longer,
    )

  try:
    with one_blas_thread():  # Fits run side by side: one core each.
      scores = ledger.in_threads(one, range(budget), os.cpu_count())
  except TooFewPairsError as error:
    return Recommendation(
      loss=None, reason=f'No recommendation: too few pairs, {error}.'
    )
  return judge(['as audited'] * budget, np.stack(scores), arms, 'as audited')


def observe(
  evidence: Evidence,
  estimates: Sequence[RateEstimate],
  rng: np.random.Generator,
) -> Observed:
  """Rates and kinds of noise that the findings leave open.

  Rates: the hull of the intervals of all estimates that are numbers, and their
  median is what losses assume; without a number what all identified sets have
  in common, and nothing to assume. Kinds: one common rate is dropped where a
  test of the votes rejects it; a length bias is kept where a feature's name
  holds 'length'.

  Args:
    evidence: the labels.
    estimates: of their flip rate; refusals say nothing.
    rng: for the test.
  """
  numbers = [e for e in estimates if e.rate is not None and e.rate < 0.5]
  sets = [e for e in estimates if e.rate is None and e.low is not None]
  low, high, assumed = 0.0, LARGEST_RATE, None
  if numbers:
    ends = [
      (e.rate, e.rate) if e.low is None else (e.low, e.high) for e in numbers
    ]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    assumed = float(np.median([e.rate for e in numbers]))
  elif sets:
    low, high = max(e.low for e in sets), min(e.high for e in sets)
  low = float(np.clip(low, 0, LARGEST_RATE))
  high = float(np.clip(high, low, LARGEST_RATE))
  kinds = [kind for kind in KINDS if kind != 'length_biased']
  if _length_column(evidence) is not None:
    kinds.append('length_biased')
  if evidence.votes is not None:
    tested = heterogeneity_test(evidence.votes, evidence.group, rng)
    if tested.p_value is not None and tested.p_value < SIGNIFICANT:
      kinds.remove('symmetric')
  if assumed is not None:
    assumed = float(np.clip(assumed, 0, LARGEST_RATE))
  return Observed(low, high, assumed, tuple(kinds))


def draw_scenarios(
  rng: np.random.Generator, observed: Observed, num_pairs: int, count: int
) -> list[Scenario]:
  """`count` scenarios; even and odd ones are alike in all but the draws."""
  found = []
  for number in range(count):
    if number % 2 == 0:
      about = {
        'noise': str(rng.choice(observed.kinds)),
        'preference': str(rng.choice(['bt', 'argmax'])),
        'size': num_pairs // int(rng.choice([2, 8])),
        'visible': float(rng.choice([0.5, 1.0])),
      }
    found.append(
      Scenario(flip_rate=rng.uniform(observed.low, observed.high), **about)
    )
  return found


def judge(
  observed: Sequence[Hashable],
  scores: np.ndarray,
  arms: Sequence[str],
  here: Hashable | None = None,
) -> Recommendation:
  """Learns a rule on the even scenarios and judges it on the odd ones.

  The rule: for each thing that can be observed, the loss of the best mean
  accuracy where it was observed (in at least FEWEST_IN_STRATUM scenarios;
  elsewhere the best of all).

  Args:
    observed: `[S]` what an audit would have seen in each scenario.
    scores: `[S, arms]` accuracies, the arms paired within a scenario.
    arms: names, `PLAIN` among them.
    here: what is observed of the data a loss is wanted for; scenarios in which
      something else was observed do not judge. None judges the rule as such, in
      all of them, and recommends no single loss.

  Returns:
    The recommendation; its loss is None where the rule chose plain training or
    did not beat it.
  """
  scores, plain = np.asarray(scores), list(arms).index(PLAIN)
  rule = _learn(observed[::2], scores[::2], arms)
  odd = [i for i in range(1, len(scores), 2) if here in (None, observed[i])]
  # What no learning scenario showed is answered as all of them are.
  picks = [list(arms).index(rule.get(observed[i], rule[None])) for i in odd]
  best, judged = scores[odd].max(axis=1), scores[odd]
  followed = judged[np.arange(len(odd)), picks]
  gain = paired_difference(followed, judged[:, plain])
  choice = 'the rule' if here is None else rule.get(here, rule[None])
  table = tuple(
    ArmRow(
      arm,
      mean_interval(judged[:, i]),
      mean_interval(best - judged[:, i]),
      None if i == plain else paired_difference(judged[:, i], judged[:, plain]),
    )
    for i, arm in enumerate(arms)
  )
  earned = gain.low is not None and gain.low > 0
  return Recommendation(
    loss=choice if earned and here is not None else None,
    reason=_reason(choice, gain, len(odd)),
    table=table,
    rule=rule,
    regret=mean_interval(best - followed),
    plain_regret=mean_interval(best - judged[:, plain]),
    gain=gain,
  )


def _learn(
  observed: Sequence[Hashable], scores: np.ndarray, arms: Sequence[str]
) -> dict[Hashable, str]:
  """What is observed -> the loss of the best mean; None -> the best of all."""
  rule = {None: arms[int(scores.mean(axis=0).argmax())]}
  for seen in dict.fromkeys(observed):
    rows = [i for i, other in enumerate(observed) if other == seen]
    if len(rows) >= FEWEST_IN_STRATUM:
      rule[seen] = arms[int(scores[rows].mean(axis=0).argmax())]
  return rule


def _reason(choice: str, gain: Estimate, count: int) -> str:
  if choice == PLAIN:
    return (
      f'No recommendation: no loss was better than {PLAIN} on average on the '
      'scenarios that choose.'
    )
  if gain.low is None:
    return 'No recommendation: a single scenario cannot judge.'
  figures = (
    f'{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] in clean accuracy '
    f'over {PLAIN} on {count} scenarios that did not choose it'
  )
  if gain.low > 0:
    return f'{choice} gains {figures}.'
  return (
    f'No recommendation: {choice}, chosen on as many others, gains {figures}.'
  )


def _refusal(evidence: Evidence) -> str:
  if evidence.num_classes != 2:
    return (
      'No recommendation: losses are compared on preferences, there are '
      f'{evidence.num_classes} classes.'
    )
  if len(evidence) < FEWEST_PAIRS:
    return (
      f'No recommendation: {len(evidence)} pairs are too few to learn from, '
      f'validate and test scenarios on; {FEWEST_PAIRS} would do.'
    )
  if len(np.unique(evidence.label)) < 2:
    return (
      'No recommendation: all labels are alike; shuffle the order in pairs.'
    )
  return ''


def _truth(
  rng: np.random.Generator,
  arm: str,
  features: np.ndarray,
  sides: np.ndarray,
  group: np.ndarray,
  assumed: float,
) -> np.ndarray:
  """`[B]` margins of a reward fitted to a resample of whole groups."""
  names, place = np.unique(group, return_inverse=True)
  times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
  inside = np.repeat(np.arange(len(group)), times[place])
  outside = np.flatnonzero(times[place] == 0)
  size = len(group) // 2
  train = rng.choice(inside, size)
  validation = rng.choice(outside, size // 4) if len(outside) else inside
  weights = fit_arm(
    arm,
    features[train],
    sides[train],
    (features[validation], sides[validation]),
    assumed,
  )
  return features @ weights


def _length_column(evidence: Evidence) -> int | None:
  for place, name in enumerate(evidence.feature_names):
    if 'length' in name.lower():
      return place
  return None


def _longer(evidence: Evidence, rows: np.ndarray) -> np.ndarray | None:
  column = _length_column(evidence)
  if column is None or evidence.features is None:
    return None
  return evidence.features[rows, column]

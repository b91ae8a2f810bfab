"""Worlds of labels whose flip rate is known, for every estimator.

A world draws labels, and whatever else an estimator reads, at a known rate. In
some worlds the estimator's assumption holds; in the others it fails in the way
that real labels make it fail, and the bias shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.catalogue import ESTIMATORS
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.estimation.forward import linear_forward_rate
from alignment.noise.evidence import Evidence

MARGIN_LAW = np.array([0.3, 2.5, -1.5])
SHRINKAGE = 0.745


class World(NamedTuple):
  """Data and the estimator that is tried on them.

  Attributes:
    estimator: its name.
    draw: (rng, size, rate) -> the estimate, and the rate it should give.
    is_closed_form: whether the interval is; decides trials and band.
    holds: whether the estimator's assumption does.
    rates: the rates of a world in which only some make the point; None for
      those of the study.
  """

  estimator: str
  draw: Callable[[np.random.Generator, int, float], tuple[RateEstimate, float]]
  is_closed_form: bool = True
  holds: bool = True
  rates: tuple[float, ...] | None = None


def _of(estimator, make):
  """A draw that hands the evidence of `make` to an entry of `ESTIMATORS`."""

  def draw(rng, size, rate):
    evidence, truth = make(rng, size, rate)
    return ESTIMATORS[estimator](evidence, rng), truth

  return draw


def _evidence(label, group=None, **more) -> Evidence:
  label = np.asarray(label, np.int32)
  group = np.arange(len(label)) if group is None else group
  return Evidence(label=label, num_classes=2, group=group, **more)


def _voted(rng, size, flip_rate, votes):
  """Votes whose flips have the probabilities `flip_rate`, `[B or 1, V or 1]`.

  Three rows in ten are of class 1, so that no balance of classes is needed.
  """
  true = rng.random((size, 1)) < 0.3
  label = true ^ (rng.random((size, votes)) < flip_rate)
  return true[:, 0], label


def _with_votes(label, group=None, **more) -> Evidence:
  rows, votes = label.shape
  table = VoteTable(
    np.repeat(np.arange(rows), votes),
    np.tile(np.arange(votes), rows),
    label.reshape(-1).astype(np.int32),
    rows,
    votes,
    2,
  )
  return _evidence(label[:, 0], group, votes=table, **more)


def _anchored(rng, size, rate):
  true, label = _voted(rng, size, rate, 1)
  evidence = _evidence(label[:, 0], clean_label=true.astype(np.int32))
  return evidence, rate


def _equal_votes(votes):
  def make(rng, size, rate):
    return _with_votes(_voted(rng, size, rate, votes)[1]), rate

  return make


def _copied_rows(rng, size, rate):
  """Every row three times: intervals over rows would be √3 too narrow."""
  label = np.repeat(_voted(rng, size // 3, rate, 2)[1], 3, axis=0)
  group = np.repeat(np.arange(size // 3), 3)
  return _with_votes(label, group, group_name='triples'), rate


def _own_rates(votes):
  def make(rng, size, rate):
    spread = min(0.05, rate / 2)
    rates = rate + spread * np.linspace(-1, 1, votes)
    return _with_votes(_voted(rng, size, rates, votes)[1]), rate

  return make


def _beta_votes(spread):
  def make(rng, size, rate):
    flip_rate = np.zeros((size, 1))
    if rate:
      weight = 1 / spread - 1
      flip_rate = rng.beta(rate * weight, (1 - rate) * weight, (size, 1))
    return _with_votes(_voted(rng, size, flip_rate, 5)[1]), rate

  return make


def _skewed_votes(rng, size, rate):
  """ε_i ~ Beta(½, 2), mean .2: most rows easy, some mostly wrong."""
  del rate
  flip_rate = rng.beta(0.5, 2, (size, 1))
  return _with_votes(_voted(rng, size, flip_rate, 5)[1]), 0.2


def _copying(votes):
  def make(rng, size, rate):
    """The second annotator copies the first on four rows in ten."""
    _, label = _voted(rng, size, rate, votes)
    copies = rng.random(size) < 0.4
    label[copies, 1] = label[copies, 0]
    return _with_votes(label), rate

  return make


def _stated(rng, size, rate, *, scale=1.0):
  """Margins are stated; the true ones are `scale` times as large."""
  margin = 2 * rng.standard_normal(size)
  true = rng.random(size) < special.expit(scale * margin)
  label = true ^ (rng.random(size) < rate)
  return _evidence(label, clean_margin=margin), rate


def _shrunk(rng, size, rate):
  return _stated(rng, size, rate, scale=SHRINKAGE)


def _unstated(rng, size, rate):
  evidence, rate = _stated(rng, size, rate)
  return _evidence(evidence.label), rate


def _featured(rng, size, rate):
  features = rng.standard_normal((size, 2))
  margin = 2 * rng.standard_normal(size)
  true = rng.random(size) < special.expit(margin)
  flip_rate = special.expit(_intercept(rate) + 0.8 * features[:, 0])
  flipped = rng.random(size) < (flip_rate if rate else 0)
  evidence = _evidence(
    true ^ flipped,
    clean_margin=margin,
    features=features,
    feature_names=('first', 'second'),
  )
  return evidence, rate


def _intercept(rate: float) -> float:
  """At which σ(intercept + .8 · N(0, 1)) is `rate` on average."""
  if not rate:
    return -40.0
  nodes, weights = np.polynomial.hermite_e.hermegauss(40)
  weights = weights / weights.sum()

  def excess(intercept: float) -> float:
    return float(weights @ special.expit(intercept + 0.8 * nodes)) - rate

  return optimize.brentq(excess, -20, 5)


def _linear(link):
  def draw(rng, size, rate):
    design = np.concatenate(
      [np.ones((size, 1)), rng.standard_normal((size, 2))], axis=1
    )
    true = rng.random(size) < link(design @ MARGIN_LAW)
    label = true ^ (rng.random(size) < rate)
    found = linear_forward_rate(label.astype(int), design, np.arange(size))
    return found, rate

  return draw


def _cauchit(margin):
  """A link with heavier tails than the logistic one, of the same slope at 0."""
  return 0.5 + np.arctan(margin * np.pi / 4) / np.pi


def _certain(prior):
  """The true class is certain, and the model ranks it first on every row."""

  def make(rng, size, rate):
    true = rng.random(size) < prior
    label = true ^ (rng.random(size) < rate)
    sure = rng.uniform(0.55, 0.95, size)
    prob = np.where(true, sure, 1 - sure)
    return _evidence(label, probs=np.stack([1 - prob, prob], axis=1)), rate

  return make


def _uncertain(rng, size, rate):
  """The model is right about the labels, and true classes are uncertain."""
  margin = 1.5 * rng.standard_normal(size)
  clean = special.expit(margin)
  label = (rng.random(size) < clean) ^ (rng.random(size) < rate)
  prob = rate + (1 - 2 * rate) * clean
  return _evidence(label, probs=np.stack([1 - prob, prob], axis=1)), rate


def _mirrored(law):
  def make(rng, size, rate):
    margin = law(rng, size) * np.where(rng.random(size) < rate, -1, 1)
    label = rng.random(size) < 0.3
    prob = special.expit(np.where(label, margin, -margin))
    return _evidence(label, probs=np.stack([1 - prob, prob], axis=1)), rate

  return make


def _normal(rng, size):
  return 1.5 + rng.standard_normal(size)


def _exponential(rng, size):
  return rng.exponential(1.5, size)


WORLDS: Mapping[str, World] = {
  'anchors': World('anchors', _of('anchors', _anchored)),
  '2 votes': World('agreement', _of('agreement', _equal_votes(2))),
  '5 votes': World('agreement', _of('agreement', _equal_votes(5))),
  '2 votes, rows copied': World('agreement', _of('agreement', _copied_rows)),
  '5 votes, a set': World(
    'agreement_bounds', _of('agreement_bounds', _beta_votes(0.1))
  ),
  '3 annotators': World('triplet', _of('triplet', _own_rates(3))),
  'certain classes, surest rows': World(
    'surest_rows', _of('surest_rows', _certain(0.3))
  ),
  'uncertain classes, a set': World(
    'single_labels', _of('single_labels', _uncertain)
  ),
  'no law of clean labels': World('forward', _of('forward', _unstated)),
  '5 votes, Beta rates': World(
    'beta_mixture', _of('beta_mixture', _beta_votes(0.1)), False
  ),
  'stated margins': World('forward', _of('forward', _stated), False),
  'stated margins, features': World(
    'forward_features', _of('forward_features', _featured), False
  ),
  'linear margins': World('linear_forward', _linear(special.expit), False),
  'certain balanced classes, confident joint': World(
    'confident_joint', _of('confident_joint', _certain(0.5)), False
  ),
  'normal margins': World(
    'mirror_mixture', _of('mirror_mixture', _mirrored(_normal)), False
  ),
  'FAILS: margins are × .745': World(
    'forward', _of('forward', _shrunk), False, False, (0.0, 0.1)
  ),
  'FAILS: rates ~ Beta(.5, 2)': World(
    'agreement', _of('agreement', _skewed_votes), True, False, (0.2,)
  ),
  'rates ~ Beta(.5, 2), a set': World(
    'agreement_bounds',
    _of('agreement_bounds', _skewed_votes),
    rates=(0.2,),
  ),
  'rates ~ Beta(.5, 2), Beta fitted': World(
    'beta_mixture', _of('beta_mixture', _skewed_votes), False, rates=(0.2,)
  ),
  'FAILS: one of 3 copies': World(
    'triplet', _of('triplet', _copying(3)), True, False, (0.1, 0.3)
  ),
  'FAILS: one of 4 copies': World(
    'triplet', _of('triplet', _copying(4)), True, False, (0.1, 0.3)
  ),
  'FAILS: link is cauchit': World(
    'linear_forward', _linear(_cauchit), False, False, (0.1,)
  ),
  'FAILS: confident joint, classes 3 to 7': World(
    'confident_joint',
    _of('confident_joint', _certain(0.3)),
    False,
    False,
    (0.2,),
  ),
  'FAILS: confident joint, uncertain classes': World(
    'confident_joint',
    _of('confident_joint', _uncertain),
    False,
    False,
    (0.0, 0.2),
  ),
  'FAILS: surest rows, uncertain classes': World(
    'surest_rows', _of('surest_rows', _uncertain), True, False, (0.0, 0.2)
  ),
  'FAILS: margins exponential': World(
    'mirror_mixture',
    _of('mirror_mixture', _mirrored(_exponential)),
    False,
    False,
    (0.2,),
  ),
}

"""The forward likelihood: flips over a law of clean labels, and its maximum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

_LOGIT_FLOOR = -16.0


class ForwardFit(NamedTuple):
  """Maximum of the forward likelihood.

  Attributes:
    flip_rate: `[B]`.
    margin: `[B]` log-odds of class 1 being true.
    flip_weights: `[F]` of the features of flips; empty at a fixed rate.
    margin_weights: `[D]`; empty where margins are given.
    flipped: `[B]` P(flipped | label), what EM averages.
    value: log-likelihood, nats, without the penalty.
  """

  flip_rate: np.ndarray
  margin: np.ndarray
  flip_weights: np.ndarray
  margin_weights: np.ndarray
  flipped: np.ndarray
  value: float


def fit_forward(
  label: np.ndarray,
  *,
  margin: np.ndarray | None = None,
  design: np.ndarray | None = None,
  flip_design: np.ndarray | None = None,
  flip_rate: float | None = None,
  start: tuple[np.ndarray, np.ndarray] | None = None,
  penalty: float = 0.0,
) -> ForwardFit:
  """Fits flip model and margin law by EM, then Fisher scoring.

  EM: flipped = ε · P(label | flipped) / P(label); the flip model is fitted to
  `flipped`, the margins to labels turned with that probability (one Newton
  step each). It climbs from anywhere and crawls at the end, where scoring with
  step halving takes over; both stop at the same point.

  Args:
    label: `[B]` of 0 and 1.
    margin: `[B]` given log-odds of class 1; or else
    design: `[B, D]` features whose linear combination they are.
    flip_design: `[B, F]`, ε = σ(flip_design · flip_weights); a column of ones
      for one rate. Or else
    flip_rate: in [0, ½], held.
    start: flip and margin weights near the maximum, from where EM is skipped.
    penalty: ≥ 0, ½ · penalty · Σ flip_weights² over all but the first column,
      in nats: keeps slopes finite where few rows are flipped.

  Raises:
    ValueError: not exactly one of margin and design, or of flip_design and
      flip_rate.

  Source: EM for a mixture, Dempster, Laird and Rubin, 1977; the forward model,
  Patrini et al., Making deep neural networks robust to label noise, 2017,
  1609.03683; with a flip model of features, Xu et al. (FA-DPO), 2512.00709.
  """
  if (margin is None) == (design is None):
    raise ValueError('exactly one of margin and design must be given')
  if (flip_rate is None) == (flip_design is None):
    raise ValueError('exactly one of flip_rate and flip_design must be given')
  model = _Model(np.asarray(label, bool), margin, design, flip_design, penalty)
  steps = 0 if start else 20
  if start is None:
    flips = np.zeros(0 if flip_design is None else flip_design.shape[1])
    flips[:1] = special.logit(0.1)
    start = flips, np.zeros(0 if design is None else design.shape[1])
  weights, rate = np.concatenate(start), flip_rate
  point = model.at(weights, rate)
  for _ in range(steps if model.num_free else 0):
    step = model.em_step(point)
    weights = model.kept(weights + step)
    point = model.at(weights, rate)
  for _ in range(100):
    before = point.objective
    weights, point = model.scoring_step(weights, point, rate)
    if point.objective - before < 1e-8:
      break
  flips, margins = model.parted(weights)
  return ForwardFit(
    point.flip_rate, point.margin, flips, margins, point.flipped, point.value
  )


class MeanProfile:
  """Log-likelihood of a mean flip rate, maximised over the slopes.

  For given slopes the intercept follows from the mean, so only the slopes are
  searched, with features centred at e · (1 − e) weights: their derivatives
  along constant mean.
  """

  def __init__(
    self,
    label: np.ndarray,
    features: np.ndarray,
    fit: ForwardFit,
    penalty: float,
  ):
    self.label, self.clean = label == 1, special.expit(fit.margin)
    self.features, self.penalty = features, penalty
    self.intercept, self.slopes = fit.flip_weights[0], fit.flip_weights[1:]

  def __call__(self, mean: float) -> float:
    if mean <= 0 or mean >= 1:
      return self._value(np.full(len(self.label), float(mean)), 0 * self.slopes)
    slopes = self.slopes
    rate = self._rate(mean, slopes)
    value = self._value(rate, slopes)
    for _ in range(30):
      pull, information = self._system(rate, slopes)
      step = np.linalg.solve(information, pull)
      for _ in range(12):
        tried = slopes + step
        tried_rate = self._rate(mean, tried)
        gain = self._value(tried_rate, tried) - value
        if gain > 0:
          break
        step = step / 2
      if gain <= 1e-6:
        break
      slopes, rate, value = tried, tried_rate, value + gain
    return value

  def scores(self) -> np.ndarray:
    """`[B, 1 + F]` derivatives by the intercept and the slopes."""
    rate = special.expit(self.intercept + self.features @ self.slopes)
    pull = self._pull(rate) * rate * (1 - rate)
    ones = np.ones((len(rate), 1))
    return pull[:, None] * np.concatenate([ones, self.features], axis=1)

  def _rate(self, mean: float, slopes: np.ndarray) -> np.ndarray:
    """`[B]` rates of these slopes whose mean is `mean`."""
    tilt = self.features @ slopes
    intercept = special.logit(mean) - tilt.mean()
    low, high = intercept - np.ptp(tilt), intercept + np.ptp(tilt)
    for _ in range(60):
      rate = special.expit(intercept + tilt)
      excess = rate.mean() - mean
      if abs(excess) < 1e-10:
        break
      low, high = (low, intercept) if excess > 0 else (intercept, high)
      intercept -= excess / max(np.mean(rate * (1 - rate)), 1e-12)
      if not low < intercept < high:
        intercept = (low + high) / 2
    return rate

  def _value(self, rate: np.ndarray, slopes: np.ndarray) -> float:
    prob = rate + (1 - 2 * rate) * self.clean
    given = np.maximum(np.where(self.label, prob, 1 - prob), 1e-300)
    penalty = 0.5 * self.penalty * float(slopes @ slopes)
    return float(np.sum(np.log(given))) - penalty

  def _pull(self, rate: np.ndarray) -> np.ndarray:
    prob = rate + (1 - 2 * rate) * self.clean
    spread = np.maximum(prob * (1 - prob), 1e-12)
    return (self.label - prob) / spread * (1 - 2 * self.clean)

  def _system(
    self, rate: np.ndarray, slopes: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Score and Fisher information of the slopes at constant mean."""
    weight = rate * (1 - rate)
    centre = weight @ self.features / max(weight.sum(), 1e-300)
    moved = weight[:, None] * (self.features - centre)
    prob = rate + (1 - 2 * rate) * self.clean
    spread = np.maximum(prob * (1 - prob), 1e-12)
    bend = (1 - 2 * self.clean) ** 2 / spread
    pull = moved.T @ self._pull(rate) - self.penalty * slopes
    information = (moved * bend[:, None]).T @ moved
    return pull, information + (self.penalty + 1e-9) * np.eye(len(slopes))


class _Point(NamedTuple):
  """The model at some weights, and what its derivatives need."""

  flip_rate: np.ndarray
  margin: np.ndarray
  clean: np.ndarray
  prob: np.ndarray
  flipped: np.ndarray
  value: float
  objective: float


class _Model:
  """The forward likelihood with whatever of it is free."""

  def __init__(self, label, margin, design, flip_design, penalty):
    self.label, self.margin, self.design = label, margin, design
    self.flip_design = flip_design
    self.num_flips = 0 if flip_design is None else flip_design.shape[1]
    self.num_free = self.num_flips + (0 if design is None else design.shape[1])
    self.penalty = np.full(self.num_flips, penalty)
    self.penalty[:1] = 0

  def parted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return weights[: self.num_flips], weights[self.num_flips :]

  def kept(self, weights: np.ndarray) -> np.ndarray:
    """A rate of 0 is at −∞; the first flip weight stops well before."""
    if self.num_flips:
      weights[0] = max(weights[0], _LOGIT_FLOOR)
    return weights

  def at(self, weights: np.ndarray, rate: float | None) -> _Point:
    flips, margins = self.parted(weights)
    margin = self.margin if self.design is None else self.design @ margins
    if self.flip_design is None:
      flip_rate = np.full(len(self.label), rate)
    else:
      flip_rate = special.expit(self.flip_design @ flips)
    clean = special.expit(margin)
    prob = flip_rate + (1 - 2 * flip_rate) * clean
    given = np.maximum(np.where(self.label, prob, 1 - prob), 1e-300)
    turned = flip_rate * np.where(self.label, 1 - clean, clean)
    value = float(np.sum(np.log(given)))
    objective = value - 0.5 * float(np.sum(self.penalty * flips**2))
    flipped = turned / given
    return _Point(flip_rate, margin, clean, prob, flipped, value, objective)

  def em_step(self, point: _Point) -> np.ndarray:
    """One Newton step of each of the two logistic fits of EM's M-step."""
    steps = []
    if self.num_flips:
      spread = point.flip_rate * (1 - point.flip_rate)
      steps.append(
        _newton(self.flip_design, point.flipped - point.flip_rate, spread)
      )
    if self.design is not None:
      target = np.where(self.label, 1 - point.flipped, point.flipped)
      spread = point.clean * (1 - point.clean)
      steps.append(_newton(self.design, target - point.clean, spread))
    return np.concatenate(steps)

  def slopes(self, point: _Point) -> np.ndarray:
    """`[B, F + D]` derivatives of P(label = 1) by the weights."""
    parts = [np.zeros((len(self.label), 0))]
    if self.num_flips:
      by_flip = point.flip_rate * (1 - point.flip_rate) * (1 - 2 * point.clean)
      parts.append(by_flip[:, None] * self.flip_design)
    if self.design is not None:
      by_margin = (1 - 2 * point.flip_rate) * point.clean * (1 - point.clean)
      parts.append(by_margin[:, None] * self.design)
    return np.concatenate(parts, axis=1)

  def scoring_step(
    self, weights: np.ndarray, point: _Point, rate: float | None
  ) -> tuple[np.ndarray, _Point]:
    """A step of Fisher scoring, halved until it gains; none where none does."""
    if not self.num_free:
      return weights, point
    slopes = self.slopes(point)
    spread = np.maximum(point.prob * (1 - point.prob), 1e-12)
    pull = slopes.T @ ((self.label - point.prob) / spread)
    information = (slopes / spread[:, None]).T @ slopes
    flips = np.arange(self.num_flips)
    pull[flips] -= self.penalty * weights[flips]
    information[flips, flips] += self.penalty
    ridge = 1e-9 * (1 + np.trace(information))
    step = np.linalg.solve(information + ridge * np.eye(len(pull)), pull)
    step *= min(1.0, 5 / max(np.max(np.abs(step)), 1e-12))
    for _ in range(20):
      tried = self.kept(weights + step)
      there = self.at(tried, rate)
      if there.objective > point.objective:
        return tried, there
      step = step / 2
    return weights, point


def _newton(
  design: np.ndarray, error: np.ndarray, spread: np.ndarray
) -> np.ndarray:
  """The Newton step of a logistic regression, at most 3 in any weight."""
  information = (design * spread[:, None]).T @ design
  ridge = 1e-6 * (1 + np.trace(information))
  step = np.linalg.solve(
    information + ridge * np.eye(design.shape[1]), design.T @ error
  )
  return np.clip(step, -3, 3)

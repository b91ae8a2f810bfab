"""Flip rate as the weight of the mirrored half of a mixture of margins."""

from __future__ import annotations

import numpy as np
from scipy import special

from alignment.noise.detection.margins import label_margin
from alignment.noise.estimation.agreement import two_classes_refusal
from alignment.noise.estimation.estimate import RateEstimate, refused
from alignment.noise.estimation.likelihood import estimate_with_profile
from alignment.noise.evidence import Evidence

MIRRORED = (
  "The model's margin for a right label is normal over the rows, and a flip "
  'turns its sign.'
)
_FEWEST = 100


def mirror_mixture_rate(
  evidence: Evidence, _: np.random.Generator
) -> RateEstimate:
  """Weight ε of the mirror image in (1 − ε)·N(μ, σ²) + ε·N(−μ, σ²).

  Over the margins log probs[label] − log probs[other], by EM; the interval is
  the profile likelihood's. Labels that are right and go against the model are
  in the tail of the first part: only the normal law tells them from flips.
  Unlike two parts with means of their own it cannot mistake hard rows for
  flipped ones, since a flip mirrors the margin exactly.
  """
  name = 'mirror_mixture'
  why = two_classes_refusal(evidence)
  if not why and (evidence.probs is None or len(evidence) < _FEWEST):
    why = (
      f'needs {_FEWEST} rows with probabilities of a model that saw no row of '
      'their group'
    )
  if why:
    return refused(name, MIRRORED, why)
  margin = label_margin(evidence.label, evidence.probs)
  if not np.std(np.abs(margin)):
    return refused(name, MIRRORED, 'all margins are of the same size')
  rate, mean, scale = fit_mirror(margin)
  start = mean, scale

  def profile(held: float) -> float:
    return _log_likelihood(margin, *fit_mirror(margin, held, start))

  return estimate_with_profile(
    name,
    MIRRORED,
    evidence,
    profile,
    rate,
    _scores(margin, rate, mean, scale),
    upper=0.5,
  )


def fit_mirror(
  margin: np.ndarray,
  rate: float | None = None,
  start: tuple[float, float] | None = None,
) -> tuple[float, float, float]:
  """Rate ≤ ½, mean ≥ 0 and scale of the mirrored mixture, by EM.

  flipped = σ(logit ε − 2 · μ · margin / σ²), then
  ε = mean(flipped), μ = mean((1 − 2 · flipped) · margin),
  σ² = mean(margin²) − μ².

  Args:
    margin: `[B]` finite.
    rate: held where given.
    start: mean and scale to begin with.
  """
  square = float(np.mean(margin**2))
  mean, scale = start or (
    float(np.mean(np.abs(margin))),
    float(np.std(np.abs(margin))),
  )
  epsilon = 0.25 if rate is None else rate
  for _ in range(2000):
    odds = special.logit(epsilon) - 2 * mean * margin / scale**2
    flipped = special.expit(odds)
    before = epsilon, mean
    if rate is None:
      epsilon = min(float(np.mean(flipped)), 0.5)
    mean = abs(float(np.mean((1 - 2 * flipped) * margin)))
    scale = np.sqrt(max(square - mean**2, 1e-12 * square))
    # EM crawls where the parts overlap; what is left is then below the noise.
    if abs(epsilon - before[0]) + abs(mean - before[1]) / scale < 1e-6:
      break
  return epsilon, mean, float(scale)


def _log_likelihood(
  margin: np.ndarray, rate: float, mean: float, scale: float
) -> float:
  return float(np.sum(_log_density(margin, rate, mean, scale)))


def _log_density(
  margin: np.ndarray, rate: float, mean: float, scale: float
) -> np.ndarray:
  right = -0.5 * ((margin - mean) / scale) ** 2
  flipped = -0.5 * ((margin + mean) / scale) ** 2
  with np.errstate(divide='ignore'):
    both = np.logaddexp(np.log1p(-rate) + right, np.log(rate) + flipped)
  return both - np.log(scale)


def _scores(
  margin: np.ndarray, rate: float, mean: float, scale: float
) -> np.ndarray:
  """`[B, 3]` derivatives of a row's log density by rate, mean and scale."""
  with np.errstate(divide='ignore'):
    flipped = special.expit(special.logit(rate) - 2 * mean * margin / scale**2)
  # d log p / dε = (flipped part − right part) / p, without a division by ε.
  density = np.exp(_log_density(margin, rate, mean, scale))
  right = np.exp(-0.5 * ((margin - mean) / scale) ** 2) / scale
  turned = np.exp(-0.5 * ((margin + mean) / scale) ** 2) / scale
  by_rate = (turned - right) / np.maximum(density, 1e-300)
  by_mean = ((1 - 2 * flipped) * margin - mean) / scale**2
  square = margin**2 - 2 * (1 - 2 * flipped) * margin * mean + mean**2
  by_scale = square / scale**3 - 1 / scale
  return np.stack([by_rate, by_mean, by_scale], axis=1)

"""What a policy is worth when all completions of a prompt are known.

Every function takes `[P, C]` arrays over P prompts and C completions and
answers per prompt, `[P]` float64, so that a caller may average or resample.
`logps` are log-probabilities in nats; a policy may also put mass elsewhere:
`renormalise` says how much and leaves it out.

  E_π[gold]     = Σ_c π_c · r_c
  KL(π ‖ π_ref) = Σ_c π_c · (log π_c − log π_ref,c)
  π*_β ∝ π_ref · exp(r / β), which maximises E_π[r] − β · KL(π ‖ π_ref)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
  """Where π*_β lies as β varies.

  Attributes:
    gold: `[S, P]`, E[gold] under π*_β.
    kl: `[S, P]` nats, KL(π*_β ‖ π_ref).
  """

  gold: np.ndarray
  kl: np.ndarray


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
  top = values.max(axis=-1, keepdims=True)
  return top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True))


def renormalise(logps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Conditions on the enumerated completions.

  Args:
    logps: `[P, C]` log-probabilities of the completions, nats.

  Returns:
    `[P, C]` float64 log-probabilities whose exponentials sum to 1, and `[P]`
    the probability that the policy gave to them.
  """
  logps = np.asarray(logps, np.float64)
  total = _log_sum_exp(logps)
  return logps - total, np.exp(total[..., 0])


def expected_reward(logps: np.ndarray, rewards: np.ndarray) -> np.ndarray:
  """E_π[gold], `[P]`, for normalised `logps` `[P, C]`."""
  return np.sum(np.exp(logps) * rewards, axis=-1)


def kl(logps: np.ndarray, other_logps: np.ndarray) -> np.ndarray:
  """KL(π ‖ other), `[P]` nats ≥ 0, both normalised."""
  probs = np.exp(logps)
  # A completion of probability 0 contributes 0 whatever the other says.
  difference = np.where(probs > 0, logps - other_logps, 0.0)
  return np.sum(probs * difference, axis=-1)


def optimal_logps(
  reference_logps: np.ndarray, rewards: np.ndarray, beta: float
) -> np.ndarray:
  """log π*_β, `[P, C]` nats.

  Args:
    reference_logps: `[P, C]` nats, normalised.
    rewards: `[P, C]`.
    beta: > 0, in units of the reward per nat.

  Raises:
    ValueError: beta out of range.
  """
  if beta <= 0:
    raise ValueError(f'beta={beta}, must be > 0')
  scores = reference_logps + rewards / beta
  return scores - _log_sum_exp(scores)


def optimal_curve(
  reference_logps: np.ndarray, rewards: np.ndarray, betas: np.ndarray
) -> Curve:
  """E[gold] and KL of π*_β for each of `betas` `[S]`."""
  optima = [optimal_logps(reference_logps, rewards, beta) for beta in betas]
  return Curve(
    np.stack([expected_reward(logps, rewards) for logps in optima]),
    np.stack([kl(logps, reference_logps) for logps in optima]),
  )


def pair_accuracy(
  scores: np.ndarray,
  prompt: np.ndarray,
  first: np.ndarray,
  second: np.ndarray,
  label: np.ndarray,
) -> np.ndarray:
  """1 where the scores order a pair as its label does, ½ where they tie.

  Args:
    scores: `[P, C]`, what ranks: log-ratios to the reference, or logps.
    prompt: `[B]` prompt of each pair.
    first: `[B]` its first completion.
    second: `[B]` its second completion.
    label: `[B]` bool, True where the first is better.

  Returns:
    `[B]` in {0, ½, 1}.
  """
  difference = scores[prompt, first] - scores[prompt, second]
  signed = np.where(label, difference, -difference)
  return 0.5 * (1 + np.sign(signed))


def ranking_accuracy(
  scores: np.ndarray, rewards: np.ndarray, probs: np.ndarray | None = None
) -> np.ndarray:
  """Share of *all* pairs of unequal reward that the scores order rightly.

    Σ p_i p_j · (1[s_i > s_j] + ½ 1[s_i = s_j]) / Σ p_i p_j   over r_i > r_j

  O(C²) per prompt: half a million comparisons at C = 516.

  Args:
    scores: `[P, C]`.
    rewards: `[P, C]` gold rewards.
    probs: `[P, C]` ≥ 0, how likely each completion is to be drawn; uniform by
      default.

  Returns:
    `[P]` in [0, 1]; NaN where all rewards are equal.
  """
  accuracy = np.full(len(scores), np.nan)
  for row, (s, r) in enumerate(zip(scores, rewards, strict=True)):
    order = np.argsort(-r, kind='stable')
    s, r = s[order], r[order]
    p = np.ones(len(s)) if probs is None else probs[row][order]
    right = 0.5 * (1 + np.sign(s[:, None] - s[None, :]))
    better = (r[:, None] > r[None, :]).astype(float)
    total = p @ better @ p
    if total > 0:
      accuracy[row] = p @ (better * right) @ p / total
  return accuracy

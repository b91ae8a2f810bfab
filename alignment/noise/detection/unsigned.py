"""P(true class | votes) where the voters are unknown, or too many to judge."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special, stats

from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.splits import log_equal, vote_splits

_CELLS = 200


def equal_posterior(votes: VoteTable, rate: float) -> np.ndarray:
  """All votes err at one rate, to every other class alike.

    posterior[c] ∝ (1 − rate)^counts[c] · (rate / (C − 1))^(others)

  Args:
    votes: V of them on I tasks; all classes are alike beforehand.
    rate: in [0, 1).

  Returns:
    `[I, C]`, rows sum to 1.

  Raises:
    ValueError: rate out of range.
  """
  if not 0 <= rate < 1:
    raise ValueError(f'rate={rate} must lie in [0, 1)')
  rate = max(rate, 1e-9)
  step = np.log1p(-rate) - np.log(rate / (votes.num_classes - 1))
  return special.softmax(votes.counts * step, axis=1)


def varying_posterior(votes: VoteTable) -> tuple[np.ndarray, float]:
  """Every row has a rate of its own, from a Beta law stretched over [0, ½].

    rate_i = x_i / 2, x_i ~ Beta(a, b), votes on a row independent given rate_i
    posterior[c] ∝ E[(1 − rate)^counts[c] · rate^counts[other]]

  a and b are those under which the splits of votes are likeliest. No row is
  wrong more often than right, which is what makes "true class" mean something:
  a law over [0, 1] cannot tell a rate from its complement, and its mean is not
  identified. Beside one rate for all it is more doubtful of every majority, as
  unanimous rows may be close ones by luck. Needs rows of four votes: two or
  three leave a and b unidentified.

  Args:
    votes: of two classes.

  Returns:
    `[I, 2]`, and the mean rate of the law.

  Raises:
    ValueError: more than two classes, or no row with four votes.
  """
  splits = vote_splits(votes)
  if votes.num_classes != 2 or not np.any(splits.count[splits.votes > 3]):
    raise ValueError('votes must be of two classes, with four on some row')
  edges = np.linspace(0, 1, _CELLS + 1)
  rate = (edges[1:] + edges[:-1]) / 4
  likelihood = np.exp([log_equal(splits, r) for r in rate])

  def law(point: np.ndarray) -> np.ndarray:
    mean, size = special.expit(point[0]), np.exp(np.clip(point[1], -7, 7))
    below = stats.beta.cdf(edges, mean * size, (1 - mean) * size)
    return np.diff(below)

  def cost(point: np.ndarray) -> float:
    reached = np.maximum(law(point) @ likelihood, 1e-300)
    return -float(splits.count @ np.log(reached))

  found = optimize.minimize(cost, [0.0, 0.5], method='Nelder-Mead')
  weight = law(found.x)
  right, wrong = np.log1p(-rate), np.log(rate)
  kinds, kind = np.unique(votes.counts, axis=0, return_inverse=True)
  logs = [
    special.logsumexp(
      kinds[:, c, None] * right + kinds[:, 1 - c, None] * wrong,
      b=weight,
      axis=1,
    )
    for c in (0, 1)
  ]
  return special.softmax(np.stack(logs, axis=1), axis=1)[kind], float(
    weight @ rate
  )

"""Which pair to ask about next: query policies under a budget of votes.

A policy is `(state) -> score [B]`: the pairs with the highest scores get the
next votes. All policies share the reward, its tuning, the start and the batch;
only the score differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy import linalg, special

from alignment.protocols.label_budget import aggregation
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import (
  Labels,
  Validation,
  fit,
  fit_path,
  padded,
)

COMMITTEE = 8
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()


@dataclasses.dataclass(frozen=True, eq=False)
class State:
  """What is known when a batch of questions is chosen.

  Attributes:
    pool: all pairs.
    taken: `[B]` votes bought of each.
    labels: what was made of them.
    weights: `[D]` of the reward fitted to them.
    l2: of that fit.
    rng: for a policy's own draws.
  """

  pool: Pool
  taken: np.ndarray
  labels: Labels
  weights: np.ndarray
  l2: float
  rng: np.random.Generator

  @property
  def scores(self) -> np.ndarray:
    return self.pool.features @ self.weights


def random(state: State) -> np.ndarray:
  """A new pair, any."""
  return _new(state, state.rng.random(len(state.pool)))


def uncertainty(state: State) -> np.ndarray:
  """The new pair of the smallest |margin|.

  Source: Lewis and Gale, A sequential algorithm for training text classifiers,
  1994.
  """
  return _new(state, -np.abs(state.scores))


def disagreement(state: State) -> np.ndarray:
  """The new pair on whose sign rewards fitted to resampled labels differ most.

  std over the committee of σ(score) − |mean over it of sign(score)|

  Source: Seung et al., Query by committee, 1992; Abe and Mamitsuka, Query
  learning strategies using boosting and bagging, 1998.
  """
  features, labels = padded(state.pool.features, state.labels)
  there = labels.weight > 0
  scores = []
  for _ in range(COMMITTEE):
    times = state.rng.multinomial(there.sum(), there / there.sum())
    member = fit(
      features,
      labels._replace(weight=labels.weight * times),
      l2=state.l2,
      start=state.weights,
    )
    scores.append(state.pool.features @ member)
  scores = np.stack(scores)
  spread = special.expit(scores).std(axis=0)
  return _new(state, spread - np.abs(np.sign(scores).mean(axis=0)))


def bald(state: State) -> np.ndarray:
  """The new pair whose vote says most about the reward.

    H[E p] − E H[p],   p = ε + (1 − 2ε)·σ(m),   m ~ N(score, s²)

  under Laplace's posterior N(weights, (n·l2·I + Σ w·i·x·xᵀ)⁻¹), n = Σ w, i the
  Fisher information of a flipped vote (see `price`). The noise ε is inside p,
  so a pair whose vote is a coin anyway is not asked for.

  Source: Houlsby et al., Bayesian active learning for classification and
  preference learning, 2011, arXiv 1112.5745.
  """
  deviation = _posterior_deviation(state)
  m = state.scores[:, None] + deviation[:, None] * NODES
  flip_rate = state.pool.flip_rate
  p = flip_rate + (1 - 2 * flip_rate) * special.expit(m)
  mean = p @ NODE_WEIGHTS
  return _new(state, _entropy(mean) - _entropy(p) @ NODE_WEIGHTS)


def relabel(state: State) -> np.ndarray:
  """Another vote where the label is least certain, in turn with new pairs.

  Of labelled pairs: −|log odds of "first is better"|, the reward's score as the
  prior and the votes flipped at the pool's rate. Half of a batch goes there and
  half to new pairs drawn at random.

  Source: the trade between labelled and new pairs of Goh and Mueller,
  ActiveLab: Active Learning with Re-Labeling by Multiple Annotators, 2023,
  arXiv 2301.11856; with equal halves instead of their common scale.
  """
  flip_rate = max(state.pool.flip_rate, 1e-3)
  first, second = state.pool.counts(state.taken)
  log_odds = state.scores + (first - second) * -special.logit(flip_rate)
  again = np.where(
    (state.taken > 0) & (state.taken < state.pool.num_votes),
    -np.abs(log_odds),
    -np.inf,
  )
  new = _new(state, state.rng.random(len(state.pool)))
  # Ranks interleave the two: the best of each, then the second best, …
  return np.maximum(_descending(again), _descending(new))


QUERY_POLICIES: Mapping[str, Callable[[State], np.ndarray]] = {
  'random': random,
  'uncertainty': uncertainty,
  'disagreement': disagreement,
  'bald': bald,
  'relabel': relabel,
}
"""name -> (state) -> score `[B]`, −inf where no vote is left to buy."""


def ask(
  policy: str,
  pool: Pool,
  validation: Validation,
  rng: np.random.Generator,
  *,
  start: int,
  batch: int,
  rounds: int,
) -> list[tuple[int, np.ndarray]]:
  """Buys votes batch by batch, one per pair that is asked about.

  The first `start` pairs get one vote each, whatever the policy; then, in each
  round, the `batch` pairs of the highest score. Rewards are fitted to all
  votes, each an example, flipped at the pool's rate.

  Args:
    policy: a key of QUERY_POLICIES.
    pool: what can be asked.
    validation: the same for all that is compared.
    rng: of the policy's own draws.
    start: pairs labelled before the first round.
    batch: votes per round.
    rounds: number of them.

  Returns:
    (votes bought, weights `[D]`) before every round and after the last.

  Raises:
    ValueError: the pool has too few votes.
  """
  if start + batch * rounds > len(pool):
    raise ValueError(
      f'start={start} + batch={batch} x rounds={rounds} must be at most '
      f'{len(pool)} pairs'
    )
  taken = np.zeros(len(pool), int)
  taken[np.flatnonzero(pool.num_votes)[:start]] = 1
  course = []
  for done in range(rounds + 1):
    labels = aggregation.forward(pool, taken)
    weights, l2 = fit_path(pool.features, labels, validation)
    course.append((int(taken.sum()), weights))
    if done < rounds:
      state = State(pool, taken, labels, weights, l2, rng)
      score = QUERY_POLICIES[policy](state)
      best = np.argsort(-score, kind='stable')[:batch]
      taken[best[np.isfinite(score[best])]] += 1
  return course


def _new(state: State, score: np.ndarray) -> np.ndarray:
  """`score` where no vote was bought yet and one can be, −inf elsewhere."""
  can = (state.taken == 0) & (state.pool.num_votes > 0)
  return np.where(can, score, -np.inf)


def _descending(score: np.ndarray) -> np.ndarray:
  """−(place in descending order), −inf where the score is."""
  place = np.empty(len(score))
  place[np.argsort(-score, kind='stable')] = np.arange(len(score))
  return np.where(np.isfinite(score), -place, -np.inf)


def _posterior_deviation(state: State) -> np.ndarray:
  """`[B]` standard deviation of every pair's score."""
  flip_rate, labels = state.pool.flip_rate, state.labels
  rows = np.flatnonzero(labels.weight)
  x, weight = state.pool.features[rows], labels.weight[rows]
  v = special.expit(state.scores[rows]) * special.expit(-state.scores[rows])
  kept = (1 - 2 * flip_rate) ** 2
  # Fisher's information of a flipped vote, see `price`.
  information = weight * kept * v**2 / (flip_rate * (1 - flip_rate) + kept * v)
  precision = (x.T * information) @ x
  precision += weight.sum() * state.l2 * np.eye(len(precision))
  factor = linalg.cholesky(precision, lower=True)
  half = linalg.solve_triangular(factor, state.pool.features.T, lower=True)
  return np.sqrt(np.sum(half**2, axis=0))


def _entropy(p: np.ndarray) -> np.ndarray:
  return special.entr(p) + special.entr(1 - p)

"""Embedded worlds with exact margins, as pools of votes to buy from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from scipy import special

from alignment.metrics.preference import accuracy
from alignment.noise.corruption.annotators import assign_annotators
from alignment.noise.corruption.catalogue import corrupt
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Validation
from alignment.tasks import ballot
from alignment.tasks.ballot_grammar import DIFFICULTIES

NUM_SLOTS = 5
"""Votes that can be bought of a pair."""
NUM_TEST = 5000
BALLOT_PROMPTS = {'pool': 200, 'validation': 100, 'test': 200}


class Pairs(NamedTuple):
  """Pairs and what is true of them.

  Attributes:
    features: `[B, D]`, of the first completion minus the second.
    margin: `[B]`, reward(first) − reward(second), linear in the features.
  """

  features: np.ndarray
  margin: np.ndarray


class World(NamedTuple):
  """Pairs to buy votes on, to tune on, and to judge by."""

  pool: Pairs
  validation: Pairs
  test: Pairs

  def scores(self, weights: np.ndarray) -> dict[str, float]:
    """How a linear reward chooses on the test pairs.

    Returns:
      `accuracy`, the share of pairs whose better completion it prefers, and
      `gold` = Σ margin · sign(score) / Σ |margin|: 0 for a coin, 1 for the
      truth; the regret is 1 − gold.
    """
    margin, side = self.test.margin, np.sign(self.test.features @ weights)
    return {
      'accuracy': float(accuracy(np.sign(margin) * side)),
      'gold': float(np.sum(margin * side) / np.sum(np.abs(margin))),
    }


def linear(
  rng: np.random.Generator,
  *,
  num_pairs: int,
  num_validation: int,
  margin_scale: float,
  num_features: int,
) -> World:
  """Spherical Gaussian features and a reward in a random direction.

  Margins are N(0, margin_scale²), whatever `num_features`.
  """
  direction = rng.standard_normal(num_features)
  direction *= margin_scale / np.linalg.norm(direction)

  def pairs(size: int) -> Pairs:
    features = rng.standard_normal((size, num_features))
    return Pairs(features, features @ direction)

  return World(pairs(num_pairs), pairs(num_validation), pairs(NUM_TEST))


def ballot_pairs(
  rng: np.random.Generator,
  *,
  num_pairs: int,
  num_validation: int,
  margin_scale: float,
) -> World:
  """Two completions of a BALLOT request, and the gold reward of each.

  The 15 features are the differences of the five attributes, under the
  weights token of the request, so that the gold margin is linear in them;
  margins are scaled to a root mean square of `margin_scale`. Prompts of the
  three parts differ, and pairs of equal reward are not drawn.
  """
  worlds = ballot.worlds(rng, DIFFICULTIES['default'], BALLOT_PROMPTS)
  sizes = {
    'pool': num_pairs,
    'validation': num_validation,
    'test': NUM_TEST,
  }
  parts = [_draw_pairs(rng, worlds[name], n) for name, n in sizes.items()]
  scale = margin_scale / np.sqrt(np.mean(parts[0].margin ** 2))
  return World(*[p._replace(margin=p.margin * scale) for p in parts])


TASKS: Mapping[str, Callable[..., World]] = {
  'linear': linear,
  'ballot': ballot_pairs,
}
"""name -> (rng, sizes and margins) -> world."""


def cast_votes(
  rng: np.random.Generator,
  pairs: Pairs,
  *,
  preference: str,
  noise: str,
  flip_rate: float,
  num_annotators: int,
) -> Pool:
  """Every pair is judged NUM_SLOTS times, and each judgement may flip.

  Args:
    rng: numpy generator; the same one gives the same judgements and the same
      uniform draws of the flips, whatever the noise.
    pairs: what is judged.
    preference: `bt`, each judgement is a Bradley-Terry draw of its own;
      `argmax`, the better completion always.
    noise: a key of NOISE that reads no more than margins and annotators.
    flip_rate: mean over the judgements, in [0, ½).
    num_annotators: A; every vote is by one of them, drawn uniformly.

  Returns:
    The pool; its `flip_rate` is the one given.

  Raises:
    ValueError: whatever `corrupt` refuses.
  """
  key = jax.random.key(int(rng.integers(2**31)))
  size = len(pairs.margin)
  margin = np.repeat(pairs.margin, NUM_SLOTS)
  uniform = rng.random(size * NUM_SLOTS)
  if preference == 'bt':
    prefers_first = uniform < special.expit(margin)
  else:
    prefers_first = margin > 0
  index = np.arange(size * NUM_SLOTS)
  workers = assign_annotators(key, index, num_annotators)
  noisy = corrupt(
    noise,
    key,
    prefers_first,
    {'index': index, 'margin': margin, 'annotator_id': workers},
    flip_rate=flip_rate,
  )
  return Pool(
    features=pairs.features,
    votes=np.where(noisy.label, 1, -1).astype(np.int8).reshape(size, -1),
    workers=workers.reshape(size, -1),
    num_votes=np.full(size, NUM_SLOTS),
    flip_rate=flip_rate,
  )


def validation_of(pool: Pool) -> Validation:
  """The first vote of every pair, to tune on."""
  return Validation(pool.features, pool.votes[:, 0].astype(float))


def _draw_pairs(
  rng: np.random.Generator, world: ballot.World, size: int
) -> Pairs:
  prompts, completions = world.rewards.shape
  # Some pairs tie; twice as many as needed are drawn, then those that do not.
  prompt = rng.integers(prompts, size=2 * size)
  first, second = rng.integers(completions, size=(2, 2 * size))
  margin = world.rewards[prompt, first] - world.rewards[prompt, second]
  kept = np.flatnonzero(margin)[:size]
  gaps = (world.attributes[prompt, first] - world.attributes[prompt, second])[
    kept
  ]
  priorities = np.eye(len(ballot.WEIGHTS))[world.requests.weights[prompt]][kept]
  features = np.einsum('bw,bk->bwk', priorities, gaps).reshape(len(kept), -1)
  return Pairs(features, margin[kept])

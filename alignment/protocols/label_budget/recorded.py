"""Recorded votes as a pool, and held-out titles to judge by."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from alignment.data.features import bag_of_words
from alignment.data.records import DataError, VotedPair
from alignment.data.splits import group_folds
from alignment.data.votes import agreement, ceiling
from alignment.protocols.label_budget import cells
from alignment.protocols.label_budget.aggregation import (
  forward,
  majority,
  votes,
)
from alignment.protocols.label_budget.cells import Point
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """What the worlds of all seeds and folds have in common.

  Attributes:
    num_folds: parts the titles are held out in.
    num_validation: training pairs set aside to tune on.
    num_features: directions of the texts beside their length.
    budget: votes to allocate.
    batch, rounds: of queries.
  """

  num_folds: int
  num_validation: int
  num_features: int
  budget: tuple[int, ...]
  batch: int
  rounds: int


class RecordedWorld(NamedTuple):
  """Votes to buy on some titles, and all votes of the others.

  Attributes:
    pool: pairs of the training titles.
    validation: one vote each of other pairs of the training titles.
    test: pairs of the held-out titles.
    test_features: `[M, D]` of them.
  """

  pool: Pool
  validation: Validation
  test: Sequence[VotedPair]
  test_features: np.ndarray

  def scores(self, weights: np.ndarray) -> dict[str, float]:
    """title -> how often a linear reward sides with a vote of that title."""
    return by_title(self.test, self.test_features @ weights)

  def length_alone(self) -> dict[str, float]:
    """title -> how often the longer text sides with a vote of that title."""
    gaps = [len(pair.first) - len(pair.second) for pair in self.test]
    return by_title(self.test, np.array(gaps))


def by_title(
  pairs: Sequence[VotedPair], first_scores: np.ndarray
) -> dict[str, float]:
  """title -> agreement with its votes that name a winner."""
  agree, weight = agreement(pairs, first_scores)
  titles = np.array([pair.group for pair in pairs])
  return {
    str(title): float(np.average(agree[here], weights=weight[here]))
    for title in np.unique(titles)
    if weight[here := titles == title].any()
  }


def ask(
  part: str, sizes: Sizes, pairs: Sequence[VotedPair], seed: int, fold: int
) -> list[Point]:
  """One question, answered on some titles and judged on the others.

  Args:
    part: `allocation`, `price` or `queries`. Without experts, the clean label
      of `price` is the majority of all votes of a pair, at its word.
    sizes: of the world.
    pairs: of several titles.
    seed: divides the titles, shuffles pairs and votes.
    fold: in [0, num_folds), which titles are held out.

  Returns:
    Points that say what they are about.
  """
  world = recorded_world(pairs, sizes, seed=seed, fold=fold)
  tags = {'part': part, 'seed': seed, 'fold': fold}
  return [point | tags for point in _PARTS[part](sizes, world, seed)]


def recorded_world(
  pairs: Sequence[VotedPair], sizes: Sizes, *, seed: int, fold: int
) -> RecordedWorld:
  """Holds out the titles of a fold, and shuffles the rest and its votes.

  Features are the differences of two texts in `num_features` directions, the
  leading ones of the training titles' words and word pairs, and in the
  logarithm of the length. The flip rate that losses assume is what makes two
  votes of the training titles agree as often as they do.

  Args:
    pairs, sizes, seed, fold: as in `ask`.

  Raises:
    DataError: too few titles or texts, or too few pairs to set some aside.
  """
  folds = group_folds(pairs, seed=seed, num_folds=sizes.num_folds)
  train, test = folds[fold]
  num_validation = sizes.num_validation
  if num_validation >= len(train):
    raise DataError(
      f'{len(train)} training pairs leave none beside num_validation='
      f'{num_validation}',
      'Lower --num_validation',
      pairs[0].path,
    )
  rng = np.random.default_rng([seed, fold])
  train = [train[row] for row in rng.permutation(len(train))]
  read = _reader(train, sizes.num_features)
  pool = votes_pool(train, read(train), rng, flip_rate=ceiling(train).flip_rate)
  aside = pool.rows(np.arange(num_validation))
  named = (aside.num_votes > 0) & (aside.votes[:, 0] != 0)
  return RecordedWorld(
    pool.rows(np.arange(num_validation, len(train))),
    Validation(aside.features[named], aside.votes[named, 0].astype(float)),
    test,
    read(test),
  )


def votes_pool(
  pairs: Sequence[VotedPair],
  features: np.ndarray,
  rng: np.random.Generator,
  *,
  flip_rate: float,
) -> Pool:
  """The votes of every pair in an order drawn anew, ready to be bought."""
  size = len(pairs)
  num_votes = np.array([len(pair.votes) for pair in pairs])
  votes = np.zeros((size, num_votes.max()), np.int8)
  workers = np.zeros(votes.shape, np.int32)
  for row, pair in enumerate(pairs):
    order = rng.permutation(len(pair.votes))
    votes[row, : len(order)] = [pair.votes[i].value for i in order]
    workers[row, : len(order)] = [pair.votes[i].worker for i in order]
  return Pool(
    features=features,
    votes=votes,
    workers=workers,
    num_votes=num_votes,
    flip_rate=flip_rate,
  )


def _reader(train: Sequence[VotedPair], num_features: int):
  """pairs -> `[B, num_features + 1]`, by what the training texts are like."""
  texts = list(dict.fromkeys(t for p in train for t in (p.first, p.second)))
  if num_features >= len(texts):
    raise DataError(
      f'{len(texts)} training texts have no {num_features} directions',
      'Lower --num_features',
      train[0].path,
    )
  _, _, directions = linalg.svds(
    bag_of_words(texts), k=num_features, rng=np.random.default_rng(0)
  )
  # Rewards are penalised alike in every direction: they should vary alike.
  scale = 1 / np.std(bag_of_words(texts) @ directions.T)
  spread = 1 / np.std([np.log(len(text)) for text in texts])

  def project(texts: Sequence[str]) -> np.ndarray:
    words: sparse.csr_array = bag_of_words(texts)
    lengths = np.log([len(text) for text in texts])
    return np.column_stack([scale * (words @ directions.T), spread * lengths])

  def read(pairs: Sequence[VotedPair]) -> np.ndarray:
    first = project([pair.first for pair in pairs])
    return first - project([pair.second for pair in pairs])

  return read


def _allocation(sizes: Sizes, world: RecordedWorld, seed: int) -> list[Point]:
  del seed
  given = world.pool, world.validation, world
  points = cells.allocation_points(*given, sizes.budget)
  depth = world.pool.votes.shape[1]
  everything = cells.control_point(
    *given, int(world.pool.num_votes.sum()), depth
  )
  floor = {'scores': world.length_alone()}
  for budget in sizes.budget:
    about = {'budget': budget, 'allocation': cells.CEILING}
    points.append(everything | about)
    points.append(floor | about | {'allocation': cells.FLOOR})
  return points


def _price(sizes: Sizes, world: RecordedWorld, seed: int) -> list[Point]:
  del seed
  given = world.pool, world.validation, world
  # Half of all pairs, so that every fold has as many.
  total = len(world.pool) + sizes.num_validation + len(world.test)
  largest, depth = total // 2, world.pool.votes.shape[1]
  return cells.curve_points(
    *given,
    cells.halvings(largest, 4),
    {'plain': (1, votes), 'forward': (1, forward)},
  ) + cells.curve_points(
    *given, cells.halvings(largest, 7), {'clean': (depth, majority)}
  )


def _queries(sizes: Sizes, world: RecordedWorld, seed: int) -> list[Point]:
  given = world.pool, world.validation, world
  return cells.query_points(
    *given, seed, batch=sizes.batch, rounds=sizes.rounds
  )


_PARTS = {'allocation': _allocation, 'price': _price, 'queries': _queries}

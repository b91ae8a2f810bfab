"""The four questions of a budget, asked in an embedded world."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from alignment.protocols.label_budget import cells, worlds
from alignment.protocols.label_budget.aggregation import forward, votes
from alignment.protocols.label_budget.cells import Point
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
  """What the worlds of all seeds have in common.

  Attributes:
    task: a key of `worlds.TASKS`.
    preference: `bt` or `argmax`, see `worlds.cast_votes`.
    margin_scale: root mean square of the margins.
    num_pairs, num_validation: in the pool, and to tune on.
    num_features: D of the linear world; None for another.
    num_annotators: who vote.
    budget: votes to allocate.
    batch, rounds: of queries.
    cost_clean, cost_vote: in one unit of money.
  """

  task: str
  preference: str
  margin_scale: float
  num_pairs: int
  num_validation: int
  num_features: int | None
  num_annotators: int
  budget: tuple[int, ...]
  batch: int
  rounds: int
  cost_clean: float
  cost_vote: float


class Room(NamedTuple):
  """One seed's world, and what the crowd and experts say of its pairs."""

  world: worlds.World
  noisy: Pool
  clean: Pool
  validation: Validation
  seed: int


def ask(
  part: str, sizes: Sizes, seed: int, noise: str, rate: float
) -> list[Point]:
  """One question, answered in the world of one seed.

  Args:
    part: `allocation`, `price`, `queries` or `money`.
    sizes: of the world.
    seed: its pairs and judgements are the same for every noise and rate.
    noise: a key of NOISE.
    rate: mean flip rate of a vote, in [0, ½).

  Returns:
    Points that say what they are about.
  """
  room = _cast(sizes, build_world(sizes, seed), seed, noise, rate)
  tags = {'part': part, 'noise': noise, 'rate': rate, 'seed': seed}
  return [point | tags for point in _PARTS[part](sizes, room)]


def build_world(sizes: Sizes, seed: int) -> worlds.World:
  """The pairs of a seed."""
  given = {
    'num_pairs': sizes.num_pairs,
    'num_validation': sizes.num_validation,
    'margin_scale': sizes.margin_scale,
  }
  if sizes.task == 'linear':
    given['num_features'] = sizes.num_features
  return worlds.TASKS[sizes.task](np.random.default_rng([seed, 0]), **given)


def _cast(
  sizes: Sizes, world: worlds.World, seed: int, noise: str, rate: float
) -> Room:
  def judged(pairs: worlds.Pairs, rate: float, stream: int) -> Pool:
    return worlds.cast_votes(
      np.random.default_rng([seed, stream]),
      pairs,
      preference=sizes.preference,
      noise=noise,
      flip_rate=rate,
      num_annotators=sizes.num_annotators,
    )

  validation = worlds.validation_of(judged(world.validation, rate, 2))
  # Experts and crowd see the same draws: their judgements differ by flips.
  noisy, clean = judged(world.pool, rate, 1), judged(world.pool, 0.0, 1)
  return Room(world, noisy, clean, validation, seed)


def _allocation(sizes: Sizes, room: Room) -> list[Point]:
  points = cells.allocation_points(
    room.noisy, room.validation, room.world, sizes.budget
  )
  for budget in sizes.budget:
    control = cells.control_point(
      room.clean, room.validation, room.world, budget, depth=1
    )
    points.append(control | {'allocation': cells.CEILING})
  return points


def _price(sizes: Sizes, room: Room) -> list[Point]:
  """Both curves are tuned on the same noisy votes: only the labels differ."""
  given = room.validation, room.world
  return cells.curve_points(
    room.noisy,
    *given,
    cells.halvings(sizes.num_pairs, 4),
    {'plain': (1, votes), 'forward': (1, forward)},
  ) + cells.curve_points(
    room.clean,
    *given,
    cells.halvings(sizes.num_pairs, 8),
    {'clean': (1, votes)},
  )


def _queries(sizes: Sizes, room: Room) -> list[Point]:
  return cells.query_points(
    room.noisy,
    room.validation,
    room.world,
    room.seed,
    batch=sizes.batch,
    rounds=sizes.rounds,
  )


def _money(sizes: Sizes, room: Room) -> list[Point]:
  return cells.mix_points(
    room.clean,
    room.noisy,
    room.validation,
    room.world,
    money=[n * sizes.cost_vote for n in cells.halvings(sizes.num_pairs, 7)],
    cost_clean=sizes.cost_clean,
    cost_vote=sizes.cost_vote,
  )


_PARTS = {
  'allocation': _allocation,
  'price': _price,
  'queries': _queries,
  'money': _money,
}

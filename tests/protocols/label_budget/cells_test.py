"""Points of an embedded world, and how they are read."""

import numpy as np
import pytest

from alignment.protocols.label_budget import cells, embedded
from alignment.protocols.label_budget.aggregation import AGGREGATIONS
from alignment.protocols.label_budget.cells import area, by_unit, select

SIZES = embedded.Sizes(
  task='linear',
  preference='bt',
  margin_scale=2.0,
  num_pairs=512,
  num_validation=40,
  num_features=4,
  num_annotators=6,
  budget=(60,),
  batch=8,
  rounds=2,
  cost_clean=5.0,
  cost_vote=1.0,
)


def test_scores_are_read_by_seed_or_by_title():
  points = [
    {'seed': 1, 'scores': {'accuracy': 0.7}},
    {'seed': 0, 'scores': {'accuracy': 0.6}},
  ]
  np.testing.assert_allclose(by_unit(points, 'accuracy'), [0.6, 0.7])
  points = [
    {'seed': 0, 'scores': {'b': 0.5, 'a': 0.2}},
    {'seed': 1, 'scores': {'a': 0.4, 'c': 0.9}},
  ]
  np.testing.assert_allclose(by_unit(points, None), [0.3, 0.5, 0.9])


def test_the_area_is_the_mean_over_the_course():
  points = [
    {'seed': seed, 'votes': votes, 'scores': {'accuracy': score}}
    for seed, course in enumerate([(0.5, 0.7, 0.7), (0.4, 0.4, 0.8)])
    for votes, score in zip((10, 20, 40), course, strict=True)
  ]
  # Trapezoids: (10 · .6 + 20 · .7) / 30 and (10 · .4 + 20 · .6) / 30.
  np.testing.assert_allclose(area(points, 'accuracy'), [20 / 30, 16 / 30])


def test_sizes_halve():
  assert cells.halvings(100, 4) == [12, 25, 50, 100]


def test_one_vote_each_is_not_aggregated():
  points = embedded.ask('allocation', SIZES, 0, 'symmetric', 0.2)
  wide = select(points, allocation='1 each')
  assert {p['aggregation'] for p in wide} == {'votes', 'forward'}
  assert all(p['votes'] <= p['budget'] == 60 for p in points)
  deep = select(points, allocation='5 each')
  assert {p['aggregation'] for p in deep} == set(AGGREGATIONS)
  assert {p['pairs'] for p in deep} == {12}
  assert len(select(points, allocation=cells.CEILING)) == 1


def test_more_and_cleaner_labels_teach_more():
  points = [
    p
    for seed in range(3)
    for p in embedded.ask('price', SIZES, seed, 'symmetric', 0.3)
  ]

  def mean(**wanted):
    return by_unit(select(points, **wanted), 'accuracy').mean()

  assert mean(reading='clean', size=512) > mean(reading='plain', size=512)
  assert mean(reading='clean', size=512) > mean(reading='clean', size=64)
  assert mean(reading='plain', size=512) > mean(reading='plain', size=64)


def test_money_is_spent_on_experts_in_the_share_asked_for():
  points = embedded.ask('money', SIZES, 1, 'symmetric', 0.4)
  assert points == embedded.ask('money', SIZES, 1, 'symmetric', 0.4)
  assert (0.0, 8.0) in {(p['clean_share'], p['money']) for p in points}
  bought = select(points, clean_share=1.0, money=64.0)[0]
  # 64 buys 12 experts at 5; as many clean labels, bought otherwise.
  world = embedded.build_world(SIZES, 1)
  room = embedded._cast(SIZES, world, 1, 'symmetric', 0.4)
  same = cells.control_point(room.clean, room.validation, world, 12, depth=1)
  assert bought['scores'] == pytest.approx(same['scores'])


def test_queries_of_one_seed_share_their_start():
  points = embedded.ask('queries', SIZES, 2, 'symmetric', 0.1)
  start = select(points, votes=8)
  assert len(start) == 5
  assert len({p['scores']['accuracy'] for p in start}) == 1


def test_ballot_answers_too():
  sizes = embedded.Sizes(
    **vars(SIZES)
    | {'task': 'ballot', 'num_features': None, 'preference': 'argmax'}
  )
  points = embedded.ask('queries', sizes, 0, 'margin_dependent', 0.1)
  assert all(0 <= p['scores']['accuracy'] <= 1 for p in points)

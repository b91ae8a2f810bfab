"""Recorded votes become pools; titles are held out."""

import numpy as np
import pytest

from alignment.data.records import DataError, Vote, VotedPair
from alignment.data.votes import agreement, read_votes
from alignment.protocols.label_budget import recorded
from alignment.protocols.label_budget.cells import by_unit, select

SIZES = recorded.Sizes(
  num_folds=3,
  num_validation=20,
  num_features=6,
  budget=(30,),
  batch=5,
  rounds=2,
)


def make_pairs(count=180):
  """Workers who mostly like the longer text."""
  rng = np.random.default_rng(0)
  words = [f'w{i}' for i in range(40)]
  pairs = []
  for index in range(count):
    title = f'title {index % 6}'
    first, second = (
      ' '.join([f'{title} {index} {side}', *rng.choice(words, length)])
      for side, length in enumerate(rng.integers(3, 20, 2))
    )
    side = 1 if len(first) > len(second) else -1
    votes = tuple(
      Vote(
        int(rng.integers(9)),
        int(rng.choice([side, -side, 0], p=[0.7, 0.2, 0.1])),
      )
      for _ in range(rng.integers(3, 6))
    )
    pairs.append(
      VotedPair(
        prompt=f'{title}\n',
        first=first,
        second=second,
        votes=votes,
        index=index,
        group=title,
      )
    )
  return pairs


def test_no_title_is_on_both_sides_and_no_vote_is_lost():
  pairs = make_pairs()
  world = recorded.recorded_world(pairs, SIZES, seed=1, fold=0)
  held = {pair.group for pair in world.test}
  assert len(held) == 2
  train = [pair for pair in pairs if pair.group not in held]
  assert len(world.pool) == len(train) - SIZES.num_validation
  assert len(world.validation.vote) <= SIZES.num_validation
  assert world.pool.features.shape[1] == SIZES.num_features + 1
  total = sum(vote.value == 1 for pair in train for vote in pair.votes)
  first, _ = world.pool.counts(world.pool.num_votes)
  aside = np.sum(world.validation.vote == 1)
  assert total - first.sum() >= aside
  assert set(np.abs(world.validation.vote)) == {1}


def test_votes_of_a_pair_are_shuffled_with_their_workers():
  pairs = make_pairs(20)
  features = np.zeros((20, 2))
  rng = np.random.default_rng(3)
  pool = recorded.votes_pool(pairs, features, rng, flip_rate=0.2)
  other = recorded.votes_pool(pairs, features, rng, flip_rate=0.2)
  assert np.any(pool.votes != other.votes)
  for row, pair in enumerate(pairs):
    found = sorted(
      zip(
        pool.workers[row, : pool.num_votes[row]],
        pool.votes[row, : pool.num_votes[row]],
        strict=True,
      )
    )
    assert found == sorted((vote.worker, vote.value) for vote in pair.votes)


def test_scores_are_agreement_by_title():
  pairs = make_pairs(30)
  scores = np.random.default_rng(4).standard_normal(30)
  found = recorded.by_title(pairs, scores)
  for title, value in found.items():
    here = [i for i, pair in enumerate(pairs) if pair.group == title]
    agree, weight = agreement([pairs[i] for i in here], scores[here])
    assert value == pytest.approx((agree * weight).sum() / weight.sum())


@pytest.mark.slow
def test_every_question_is_answered_for_every_held_out_title():
  pairs = make_pairs()
  for part in ('allocation', 'price', 'queries'):
    points = [
      point
      for fold in range(3)
      for point in recorded.ask(part, SIZES, pairs, 0, fold)
    ]
    assert all(point['part'] == part and point['seed'] == 0 for point in points)
    assert {title for point in points for title in point['scores']} == {
      f'title {i}' for i in range(6)
    }
    if part == 'allocation':
      deep = select(points, allocation='5 each', aggregation='votes')
      assert len(deep) == 3 and by_unit(deep, None).shape == (6,)
      ceiling = by_unit(select(points, allocation='ceiling'), None)
      # Who likes length is found out: P(vote names the longer) is .7 / .9.
      assert ceiling.mean() > 0.65


def test_more_directions_than_texts_are_refused():
  sizes = recorded.Sizes(**vars(SIZES) | {'num_features': 1000})
  with pytest.raises(DataError, match='num_features'):
    recorded.recorded_world(make_pairs(), sizes, seed=0, fold=0)


@pytest.mark.shared
def test_real_votes_teach_more_than_length(shared_dir):
  pairs, _ = read_votes(shared_dir / 'data' / 'ukp_convarg1')
  sizes = recorded.Sizes(
    num_folds=4,
    num_validation=300,
    num_features=50,
    budget=(600,),
    batch=20,
    rounds=1,
  )
  gains = []
  for fold in range(2):
    points = recorded.ask('allocation', sizes, pairs, 0, fold)
    everything = by_unit(select(points, allocation='ceiling'), None)
    length = by_unit(select(points, allocation='floor'), None)
    assert np.all((length > 0.55) & (length < 0.8))
    gains.append(np.mean(everything - length))
  assert np.mean(gains) > 0

"""Worlds have the margins and the flips that they say."""

import numpy as np
import pytest
from scipy import special

from alignment.protocols.label_budget import worlds


def build(task, **sizes):
  given = {'num_pairs': 4000, 'num_validation': 50, 'margin_scale': 2.0}
  if task == 'linear':
    given['num_features'] = 6
  return worlds.TASKS[task](np.random.default_rng(0), **given | sizes)


@pytest.mark.parametrize('task', worlds.TASKS)
def test_margins_are_linear_and_of_the_size_asked_for(task):
  world = build(task)
  weights, *_ = np.linalg.lstsq(
    world.pool.features, world.pool.margin, rcond=None
  )
  for pairs in world:
    np.testing.assert_allclose(
      pairs.features @ weights, pairs.margin, atol=1e-8
    )
    assert np.all(pairs.margin != 0)
  # 4000 draws: the root mean square is known to about 2 %.
  assert np.sqrt(np.mean(world.pool.margin**2)) == pytest.approx(2, rel=0.06)
  scores = world.scores(weights)
  assert scores == pytest.approx({'accuracy': 1.0, 'gold': 1.0})
  assert world.scores(-weights)['gold'] == pytest.approx(-1)
  wrong = np.sign(world.test.features @ np.ones(len(weights)))
  assert world.scores(np.ones(len(weights)))['gold'] == pytest.approx(
    wrong @ world.test.margin / np.abs(world.test.margin).sum()
  )


@pytest.mark.parametrize('preference', ['bt', 'argmax'])
def test_votes_follow_the_margin_and_then_flip(preference):
  pairs = build('linear').pool
  pool = worlds.cast_votes(
    np.random.default_rng(1),
    pairs,
    preference=preference,
    noise='symmetric',
    flip_rate=0.2,
    num_annotators=9,
  )
  clean = special.expit(pairs.margin)
  if preference == 'argmax':
    clean = (pairs.margin > 0).astype(float)
  expected = 0.2 + 0.6 * clean
  share = np.mean(pool.votes == 1, axis=1)
  for low, high in ((-9, -2), (-2, 0), (0, 1), (1, 9)):
    here = (pairs.margin >= low) & (pairs.margin < high)
    error = 0.5 / np.sqrt(5 * here.sum())
    assert abs(share[here].mean() - expected[here].mean()) < 4 * error
  assert set(np.unique(pool.workers)) == set(range(9))


def test_experts_and_crowd_differ_by_flips_alone():
  pairs = build('linear').pool

  def cast(rate, noise='symmetric'):
    return worlds.cast_votes(
      np.random.default_rng(2),
      pairs,
      preference='bt',
      noise=noise,
      flip_rate=rate,
      num_annotators=5,
    ).votes

  assert np.mean(cast(0.3) != cast(0.0)) == pytest.approx(0.3, abs=0.01)
  np.testing.assert_array_equal(cast(0.0), cast(0.0, 'margin_dependent'))
  flipped = cast(0.2, 'margin_dependent') != cast(0.0)
  close = np.abs(pairs.margin) < 1
  assert flipped[close].mean() > 2 * flipped[~close].mean()


def test_ballot_prompts_are_not_shared():
  world = build('ballot', num_pairs=500)
  assert world.pool.features.shape == (500, 15)
  # One priority at a time: a pair's features fill five of the fifteen columns.
  blocks = world.pool.features.reshape(-1, 3, 5).any(axis=2)
  assert np.all(blocks.sum(axis=1) == 1)
  assert blocks.any(axis=0).all()

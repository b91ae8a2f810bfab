"""The worlds: exact measures, features against rewards, labels."""

import itertools

import numpy as np
import pytest

from alignment.metrics.calibration import brier_score
from alignment.protocols.reward.ballot_world import (
  COUNTS,
  BallotSizes,
  ballot_world,
)
from alignment.protocols.reward.records_world import records_world
from alignment.protocols.reward.world import calibration, noisy_labels
from tests.protocols.records import preferences, voted

SIZES = BallotSizes(
  difficulty='default',
  num_pairs=200,
  num_validation=80,
  num_test=400,
  num_prompts=40,
  num_validation_prompts=10,
  num_test_prompts=12,
  preference='bt',
  temperature=0.1,
)
BALLOT = ballot_world(3, SIZES)
PARTS = ('train', 'validation', 'test')


def _records(records, seed=0):
  return records_world(
    seed, records, limits={'train': 40}, max_completion_length=64
  )


def _agree(part):
  """Features times weights are the differences of the rewards."""
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(2, part.differences.shape[1]))
  for one, rewards in zip(weights, part.rewards(weights), strict=True):
    np.testing.assert_allclose(
      part.differences @ one, part.gaps(rewards), atol=1e-9
    )


@pytest.mark.parametrize('name', PARTS)
def test_features_of_ballot_are_its_rewards(name):
  part = getattr(BALLOT, name)
  _agree(part)
  # sums² − differences² = 4 · first · second, entry by entry of 0 and 1.
  product = part.sums.multiply(part.sums) - part.differences.multiply(
    part.differences
  )
  assert set(np.unique(product.toarray())) <= {0.0, 4.0}


def test_the_gold_reward_is_the_best_there_is():
  found = BALLOT.oracle.summary
  assert found['accuracy'] == 1 and found['fallen'] < 1e-12
  assert found['gold@4096'] > 0.999
  curve = BALLOT.oracle.curves
  np.testing.assert_allclose(curve['gold'][0], 0, atol=1e-12)
  assert all(b > a for a, b in itertools.pairwise(curve['gold']))
  n = np.array(COUNTS)
  assert (np.array(curve['kl']) <= np.log(n) - 1 + 1 / n + 1e-9).all()


def test_no_reward_is_a_coin():
  found = BALLOT.measure(np.zeros((12, 516))).summary
  np.testing.assert_allclose(
    [found[k] for k in ('accuracy', 'brier', 'gold@64', 'fallen')],
    [0.5, 0.25, 0, 0],
    atol=1e-12,
  )


def test_the_worst_reward_picks_the_worst():
  oracle = BALLOT.oracle.summary
  worst = BALLOT.measure(-_gold()).summary
  assert worst['accuracy'] == 0 and worst['gold@4096'] < -1
  np.testing.assert_allclose(worst['fallen'], -worst['gold@4096'])
  assert worst['brier'] > 0.3 > oracle['brier']


def _gold():
  """The gold reward, from a fresh world of the same seed."""
  from alignment.tasks import ballot
  from alignment.tasks.ballot_grammar import DIFFICULTIES

  streams = np.random.SeedSequence([3, 0xBA110]).spawn(2)
  return ballot.worlds(
    np.random.default_rng(streams[0]),
    DIFFICULTIES['default'],
    {'train': 40, 'validation': 10, 'test': 12},
  )['test'].rewards


def test_bt_labels_are_as_uncertain_as_they_say():
  part = BALLOT.test
  truth = 1 / (1 + np.exp(-part.known['margin'] / 0.1))
  # Four standard errors of a mean of 400 coins.
  error = (truth - part.first_is_better).mean()
  assert abs(error) < 4 * np.sqrt(np.mean(truth * (1 - truth)) / 400)


@pytest.mark.parametrize('make', [preferences, voted])
def test_features_of_texts_are_their_rewards(make):
  world = _records(make(20, 4))
  for name in PARTS:
    _agree(getattr(world, name))
  groups = [set(getattr(world, name).cluster.tolist()) for name in PARTS]
  assert not any(a & b for a, b in itertools.combinations(groups, 2))
  assert len(world.train) == 40
  assert all(len(v) == len(world.test) for v in world.rules.values())


def test_agreement_and_calibration_on_votes():
  world = _records(voted(20, 4))
  share = world.test.vote_share
  gaps = np.linspace(-2, 3, len(world.test))
  measured = world.measure(np.concatenate([gaps, np.zeros(len(gaps))]))
  right = np.where(gaps > 0, share, 1 - share)
  np.testing.assert_allclose(measured.summary['agreement'], right.mean())
  assert set(share) - {0.0, 1.0}


def test_calibration_does_not_depend_on_which_side_comes_first():
  rng = np.random.default_rng(4)
  gaps, share = rng.normal(size=60), rng.random(60)
  turned = rng.random(60) < 0.5
  sign = np.where(turned, -1, 1)
  one = calibration(gaps, share)
  other = calibration(sign * gaps, np.where(turned, 1 - share, share))
  assert one == pytest.approx(other)
  expected = brier_score(1 / (1 + np.exp(-gaps)), share)
  np.testing.assert_allclose(one['brier'], expected)


def test_flips_come_on_top_of_the_labels_at_hand():
  world = _records(voted(20, 4))
  clean = noisy_labels(world, 'exact_count', 0.0)
  flipped = noisy_labels(world, 'exact_count', 0.25)
  for name in ('train', 'validation'):
    part = getattr(world, name)
    at_hand = part.first_is_better ^ part.observed_flip
    np.testing.assert_array_equal(clean[name], at_hand)
    changed = np.sum(flipped[name] != at_hand)
    assert changed == len(part) // 4
  assert world.train.observed_flip.any()
  with pytest.raises(ValueError, match='needs margin'):
    noisy_labels(world, 'gaussian', 0.2)

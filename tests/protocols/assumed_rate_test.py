"""Rates estimated from training labels: what is seen, what is refused."""

import dataclasses

import numpy as np
import pytest

from alignment.data.records import Preference, Report, Vote, VotedPair
from alignment.noise.labels import flip
from alignment.protocols import rounds
from alignment.protocols.assumed_rate import (
  Plan,
  estimate_rates,
  gather,
  plan_of,
)
from alignment.protocols.bakeoff import Grid
from alignment.protocols.contestants import line_up
from alignment.protocols.labelling import Noise, at_hand, corrupted
from alignment.protocols.records_source import Source
from tests.protocols.arenas import STEPS, toy_arena, toy_pairs

FLAGS = {
  'estimate_flip_rate': 'agreement',
  'relabelled': None,
  'relabels': None,
  'anchors': None,
  'num_pairs': 500,
}
NOISE = Noise('symmetric')
MANY = toy_arena(sizes=(4000, 8, 8), steps=1)


def _own_clusters(arena):
  pairs = arena.train.pairs
  pairs = dataclasses.replace(pairs, cluster=np.arange(len(pairs)))
  return dataclasses.replace(
    arena, train=dataclasses.replace(arena.train, pairs=pairs)
  )


def test_pairs_labelled_again_tell_the_rate():
  arena = _own_clusters(MANY)
  plan = Plan('agreement', relabelled=0.5, relabels=1)
  found = estimate_rates([arena], NOISE, [0.0, 0.3], plan)
  assert found[0, 0.0].rate == 0 and found[0, 0.0].low == 0
  one = found[0, 0.3]
  assert one.low < 0.3 < one.high
  # The delta method: sd of ε̂ is sd(agreement) / (2 (1 − 2ε)).
  assert one.rate == pytest.approx(0.3, abs=4 * 0.0138)


def test_a_second_label_shares_the_rate_of_its_pair_and_nothing_else():
  arena = _own_clusters(MANY)
  noise = Noise('hard_only', (('rate', 0.5),))
  labels, _ = corrupted(arena, noise, 0.2)
  plan = Plan('agreement', relabelled=0.25, relabels=2)
  evidence = gather(arena.train.pairs, labels, noise, plan, seed=0)
  votes = evidence.votes
  assert len(votes) == 3 * 1000
  said = votes.label.reshape(-1, 3)
  rows = votes.task.reshape(-1, 3)[:, 0]
  np.testing.assert_array_equal(said[:, 0] == 0, labels.label[rows])
  wrong = (said == 0) != at_hand(arena.train.pairs)[rows, None]
  coins = labels.flip_rate[rows] == 0.5
  assert not wrong[~coins].any()
  # Four standard deviations of a mean of some 400 coins.
  np.testing.assert_allclose(wrong[coins].mean(axis=0), 0.5, atol=0.1)
  both = wrong[coins, 1] & wrong[coins, 2]
  assert both.mean() == pytest.approx(0.25, abs=0.09)


def test_rates_that_differ_between_pairs_are_underestimated():
  """What the assumption is for: pairs that are always wrong agree with
  themselves."""
  found = estimate_rates(
    [_own_clusters(MANY)],
    Noise('hard_only'),
    [0.3],
    Plan('agreement', relabelled=0.5, relabels=1),
  )
  assert found[0, 0.3].high < 0.05


def test_checked_pairs_are_the_only_clean_labels_seen():
  plan = Plan('anchors', anchors=0.1)
  labels, _ = corrupted(MANY, NOISE, 0.3)
  evidence = gather(MANY.train.pairs, labels, NOISE, plan, seed=0)
  known = evidence.clean_label >= 0
  assert known.sum() == 400 and evidence.votes is None
  truth = np.where(MANY.train.pairs.first_is_better, 0, 1)
  np.testing.assert_array_equal(evidence.clean_label[known], truth[known])
  found = estimate_rates([MANY], NOISE, [0.3], plan)[0, 0.3]
  assert found.low < 0.3 < found.high
  without = gather(MANY.train.pairs, labels, NOISE, Plan('anchors'), seed=0)
  assert without.clean_label is None


def test_seeds_draw_other_pairs():
  labels, _ = corrupted(MANY, NOISE, 0.3)
  plan = Plan('agreement', relabelled=0.1, anchors=0.1)
  one, same, other = (
    gather(MANY.train.pairs, labels, NOISE, plan, seed=seed)
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(one.votes.label, same.votes.label)
  assert (one.clean_label != other.clean_label).any()
  assert set(one.votes.task) != set(other.votes.task)


def test_noise_falls_on_every_vote():
  """Three votes on each pair, all right before noise."""
  rng = np.random.default_rng(1)
  pairs = toy_pairs(rng, 1500)
  value = np.where(pairs.first_is_better, 1, -1)
  pairs = dataclasses.replace(
    pairs,
    cluster=np.arange(1500),
    votes=[
      (Vote(i % 7, v), Vote(7, v), Vote(-1, v)) for i, v in enumerate(value)
    ],
  )
  arena = dataclasses.replace(
    MANY, train=dataclasses.replace(MANY.train, pairs=pairs)
  )
  labels, _ = corrupted(arena, NOISE, 0.25)
  evidence = gather(pairs, labels, NOISE, Plan('agreement'), seed=0)
  votes = evidence.votes
  assert votes.num_workers == 8 + 1500  # whoever is unknown is somebody else
  said = votes.label.reshape(-1, 3) == 0
  np.testing.assert_array_equal(said[:, 0], labels.label)
  wrong = said != pairs.first_is_better[:, None]
  np.testing.assert_allclose(wrong.mean(axis=0), 0.25, atol=4 * 0.0112)
  found = estimate_rates([arena], NOISE, [0.25], Plan('agreement'))[0, 0.25]
  assert found.low < 0.25 < found.high


def test_a_workers_rate_is_their_own_on_every_vote():
  rng = np.random.default_rng(2)
  pairs = toy_pairs(rng, 2000)
  value = np.where(pairs.first_is_better, 1, -1)
  groups = [
    dataclasses.replace(g, annotator_id=i % 2)
    for i, g in enumerate(pairs.groups)
  ]
  votes = [(Vote(i % 2, v), Vote(1 - i % 2, v)) for i, v in enumerate(value)]
  pairs = dataclasses.replace(pairs, groups=groups, votes=votes)
  rate = np.array([0.0, 0.4])
  who = np.arange(2000) % 2
  labels = flip(pairs.first_is_better, rng.random(2000), rate[who])
  evidence = gather(
    pairs, labels, Noise('per_annotator'), Plan('agreement'), seed=0
  )
  table = evidence.votes
  wrong = (table.label == 0) != pairs.first_is_better[table.task]
  assert not wrong[table.worker == 0].any()
  assert wrong[table.worker == 1].mean() == pytest.approx(0.4, abs=4 * 0.011)


def test_an_estimate_is_what_a_contestant_assumes():
  arena = toy_arena(sizes=(400, 30, 8))
  competing = line_up(
    {0.3: 0.3}, ['dpo', 'rdpo'], 'mean', [], beta=0.5, estimator='agreement'
  )
  assert [c.name for c in competing[0.3]] == [
    'dpo',
    'rdpo@agreement',
    'rdpo@0.3',
  ]
  plan = Plan('agreement', relabelled=1.0, relabels=1)
  estimates = estimate_rates([arena], NOISE, [0.3], plan)
  grid = Grid((0.01,), (STEPS,))
  jobs = list(
    rounds.jobs_of(arena, competing, competing[0.3][0], grid, NOISE, estimates)
  )
  (job,) = [j for j in jobs if j.name == 'rdpo@agreement']
  assert job.contestant.assumed == estimates[0, 0.3].rate != 0.3
  cell = rounds.cell(0, job, {})
  assert cell['estimator'] == 'agreement' and cell['name'] == 'rdpo@agreement'
  # At the same rate it would be the same training.
  (oracle,) = [j for j in jobs if j.name == 'rdpo@0.3']
  same = job._replace(contestant=job.contestant._replace(assumed=0.3))
  assert rounds.fingerprint(arena, same) == rounds.fingerprint(arena, oracle)
  assert rounds.fingerprint(arena, job) != rounds.fingerprint(arena, oracle)


def test_an_estimate_of_0_is_the_uncorrected_loss():
  arena = toy_arena(sizes=(400, 30, 8))
  competing = line_up(
    {0.0: 0.0}, ['dpo', 'rdpo'], 'mean', [], beta=0.5, estimator='agreement'
  )
  plan = Plan('agreement', relabelled=1.0, relabels=1)
  estimates = estimate_rates([arena], NOISE, [0.0], plan)
  jobs = list(
    rounds.jobs_of(
      arena,
      competing,
      competing[0.0][0],
      Grid((0.01,), (STEPS,)),
      NOISE,
      estimates,
    )
  )
  prints = {rounds.fingerprint(arena, job) for job in jobs[:3]}
  assert len(prints) == 1 and all(job.with_oracle for job in jobs[:3])


def _source(records, flip_rate=None):
  return Source(records, Report('here'), flip_rate, None)


SINGLE = [Preference(prompt='p', chosen='a', rejected='b', index=0, group='p')]
VOTED = [
  VotedPair(
    prompt='p', first='a', second='b', votes=(Vote(0, 1),), index=0, group='p'
  )
]


def test_plans():
  assert plan_of(FLAGS | {'estimate_flip_rate': ''}, None) is None
  assert plan_of(FLAGS, None) == Plan('agreement', 0.5, 4, 0.0, 'prompt')
  checked = plan_of(
    FLAGS | {'estimate_flip_rate': 'anchors', 'anchors': 0.1}, None
  )
  assert checked == Plan('anchors', 0.0, 4, 0.1, 'prompt')
  voted = plan_of(FLAGS, _source(VOTED))
  assert voted == Plan('agreement', 0.0, 4, 0.0, 'first turn')
  known = plan_of(
    FLAGS | {'estimate_flip_rate': 'anchors', 'anchors': 0.1},
    _source(SINGLE, 0.2),
  )
  assert known.anchors == 0.1


@pytest.mark.parametrize(
  ('changes', 'source', 'message'),
  [
    (
      {'estimate_flip_rate': 'guess'},
      None,
      '--estimate_flip_rate=guess: must be one of anchors, agreement',
    ),
    ({}, _source(SINGLE), 'agreement: no row has two votes; a second'),
    ({'relabelled': 0.0}, None, 'agreement: no row has two votes; a second'),
    ({'estimate_flip_rate': 'anchors'}, None, 'anchors: no row has a known'),
    (
      {'estimate_flip_rate': 'agreement_bounds'},
      None,
      r'agreement_bounds: gives only the set \[0\.',
    ),
    ({'relabelled': 0.0, 'relabels': 2}, None, '--relabels=2: not used where'),
    ({'anchors': 0.1}, _source(SINGLE), '--anchors=0.1: needs the truth'),
    ({'anchors': 0.1}, _source(VOTED), '--anchors=0.1: needs the truth'),
  ],
)
def test_refused_plans(changes, source, message):
  with pytest.raises(ValueError, match=message):
    plan_of(FLAGS | changes, source)


def test_a_refusal_names_seed_and_rate():
  arena = toy_arena(3, sizes=(40, 8, 8), steps=1)
  with pytest.raises(
    ValueError, match=r'agreement: seed 3, flip rate 0.45: .*(set|chance|1/2)'
  ):
    estimate_rates(
      [arena], NOISE, [0.45], Plan('agreement', relabelled=1.0, relabels=1)
    )

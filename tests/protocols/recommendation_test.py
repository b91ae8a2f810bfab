"""A loss is recommended where it has earned it, and only there."""

import numpy as np
import pytest

from alignment.metrics.intervals import paired_difference
from alignment.noise.crowd.table import VoteTable
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.evidence import Evidence
from alignment.protocols import recommendation
from alignment.protocols.noise_scenarios import KINDS
from alignment.protocols.recommendation import judge, observe, recommend
from tests.protocols.penalisers import penalised_pairs

ARMS = ['dpo', 'forward', 'gce']


def evidence(labels, **known):
  return Evidence(
    label=np.where(np.asarray(labels) > 0, 0, 1).astype(np.int32),
    num_classes=2,
    group=np.arange(len(labels), dtype=np.int32),
    **known,
  )


def rate(value, low, high):
  return RateEstimate(
    estimator='made', assumption='', rate=value, low=low, high=high
  )


def scores_of(rng, size, gains):
  base = rng.normal(0.7, 0.1, (size, 1))
  return base + np.array([0, *gains]) + rng.normal(0, 0.02, (size, 3))


def test_a_rule_follows_what_is_observed():
  rng = np.random.default_rng(0)
  observed = ['low'] * 40 + ['high'] * 40
  scores = np.concatenate(
    [scores_of(rng, 40, (-0.05, -0.02)), scores_of(rng, 40, (0.05, 0.02))]
  )
  found = judge(observed, scores, ARMS)
  assert found.rule['low'] == 'dpo' and found.rule['high'] == 'forward'
  odd = scores[1::2]
  followed = np.concatenate([odd[:20, 0], odd[20:, 1]])
  assert found.gain == paired_difference(followed, odd[:, 0])
  regret = odd.max(axis=1) - followed
  assert found.regret.value == pytest.approx(regret.mean())
  assert found.plain_regret.value - found.regret.value == pytest.approx(
    found.gain.value
  )
  # Where plain is best there is nothing to recommend, elsewhere there is.
  assert judge(observed, scores, ARMS, 'low').loss is None
  there = judge(observed, scores, ARMS, 'high')
  assert there.loss == 'forward' and there.gain.low > 0.03
  assert there.table[0].gain is None
  assert there.table[1].gain == there.gain


def test_what_wins_by_luck_alone_is_not_recommended():
  """The best of eight equal losses on one half is nothing on the other."""
  rng = np.random.default_rng(1)
  arms = ['dpo', *'abcdefg']
  said, best = 0, []
  for _ in range(200):
    scores = rng.normal(0.7, 0.05, (60, 8))
    found = judge(['x'] * 60, scores, arms, 'x')
    said += found.loss is not None
    learned = scores[::2]
    best.append((learned.max(axis=1) - learned[:, 0]).mean())
  # At most 2.5 % by the interval; the optimistic figure is far from 0.
  assert said <= 12
  assert np.mean(best) > 0.05


def test_too_few_scenarios_of_a_kind_follow_the_rest():
  rng = np.random.default_rng(2)
  scores = scores_of(rng, 44, (0.05, 0.0))
  scores[40:, 2] += 0.5
  found = judge(['often'] * 40 + ['seldom'] * 4, scores, ARMS)
  assert set(found.rule) == {None, 'often'}


def test_rates_and_kinds_are_what_the_findings_leave_open():
  rng = np.random.default_rng(3)
  plain = evidence(rng.choice([-1, 1], 50))
  refused = RateEstimate(estimator='r', assumption='', refusal='no votes')
  found = observe(
    plain, [rate(0.2, 0.1, 0.25), rate(0.3, 0.28, 0.49), refused], rng
  )
  assert found.low == 0.1 and found.high == 0.45
  assert found.assumed == pytest.approx(0.25)
  assert set(found.kinds) == set(KINDS) - {'length_biased'}
  bounds = RateEstimate(estimator='s', assumption='', low=0.05, high=0.3)
  wider = RateEstimate(estimator='t', assumption='', low=0.0, high=0.5)
  found = observe(plain, [bounds, wider], rng)
  assert (found.low, found.high, found.assumed) == (0.05, 0.3, None)
  found = observe(plain, [], rng)
  assert (found.low, found.high, found.assumed) == (0.0, 0.45, None)
  longer = evidence(
    rng.choice([-1, 1], 50),
    features=rng.standard_normal((50, 2)),
    feature_names=('position', 'log length difference'),
  )
  assert 'length_biased' in observe(longer, [], rng).kinds


@pytest.mark.parametrize('differs', [False, True])
def test_votes_that_err_unequally_rule_out_one_rate(differs):
  rng = np.random.default_rng(4)
  size, slots = 400, 5
  rates = (
    np.where(rng.random(size) < 0.5, 0.02, 0.48)
    if differs
    else np.full(size, 0.25)
  )
  wrong = rng.random((size, slots)) < rates[:, None]
  votes = VoteTable(
    np.repeat(np.arange(size), slots),
    np.tile(np.arange(slots), size),
    wrong.reshape(-1).astype(np.int32),
    num_tasks=size,
    num_workers=slots,
    num_classes=2,
  )
  found = observe(evidence(np.where(wrong[:, 0], -1, 1), votes=votes), [], rng)
  assert ('symmetric' in found.kinds) is not differs


def test_scenarios_come_in_pairs_within_the_findings():
  observed = recommendation.Observed(
    0.1, 0.2, 0.15, ('symmetric', 'per_annotator')
  )
  drawn = recommendation.draw_scenarios(
    np.random.default_rng(5), observed, 800, 12
  )
  assert {s.noise for s in drawn} == set(observed.kinds)
  assert {s.size for s in drawn} <= {400, 100}
  for learn, judged in zip(drawn[::2], drawn[1::2], strict=True):
    assert learn.noise == judged.noise and learn.size == judged.size
    assert learn.visible == judged.visible
    assert learn.flip_rate != judged.flip_rate
    assert 0.1 <= learn.flip_rate <= 0.2


def easy(rng, size):
  features = rng.standard_normal((size, 5))
  margin = features @ np.array([2.0, -1.0, 1.0, 0.5, 0.0])
  return features, np.where(rng.random(size) < 0.02, -1, 1) * np.sign(margin)


def test_an_easy_world_earns_no_recommendation():
  rng = np.random.default_rng(6)
  features, labels = easy(rng, 500)
  found = recommend(
    evidence(labels),
    features,
    [rate(0.02, 0.0, 0.05)],
    np.random.default_rng(7),
    budget=8,
  )
  assert found.loss is None and 'No recommendation' in found.reason
  assert len(found.table) == 8 and found.gain.count == 4
  again = recommend(
    evidence(labels),
    features,
    [rate(0.02, 0.0, 0.05)],
    np.random.default_rng(7),
    budget=8,
  )
  assert again == found


@pytest.mark.slow
def test_a_world_of_penalisers_earns_one():
  rng = np.random.default_rng(8)
  features, _, labels = penalised_pairs(rng, 1500, 0.2)
  found = recommend(
    evidence(labels),
    features,
    [rate(0.2, 0.18, 0.22)],
    np.random.default_rng(9),
    budget=240,
  )
  assert found.loss in ('forward', 'gce', 'sce', 'sympo', 'holder_dpo', 'rdpo')
  assert found.gain.low > 0 and found.regret.value < found.plain_regret.value


def test_without_a_rate_no_loss_needs_one():
  rng = np.random.default_rng(10)
  features, labels = easy(rng, 450)
  found = recommend(
    evidence(labels), features, [], np.random.default_rng(11), budget=8
  )
  assert {row.loss for row in found.table}.isdisjoint(
    {'cdpo', 'rdpo', 'forward'}
  )


@pytest.mark.parametrize(
  ('known', 'why'),
  [
    ({'label': np.zeros(600, np.int32)}, 'alike'),
    ({'label': np.arange(100, dtype=np.int32) % 2}, 'too few'),
    (
      {'label': np.arange(600, dtype=np.int32) % 3, 'num_classes': 3},
      '3 classes',
    ),
    (
      {
        'label': np.arange(600, dtype=np.int32) % 2,
        'group': np.arange(600, dtype=np.int32) % 2,
      },
      '2 groups',
    ),
  ],
)
def test_what_cannot_be_judged_is_refused(known, why):
  size = len(known['label'])
  given = {'num_classes': 2, 'group': np.arange(size, dtype=np.int32)}
  features = np.random.default_rng(12).standard_normal((size, 3))
  found = recommend(
    Evidence(**given | known), features, [], np.random.default_rng(13), budget=8
  )
  assert found.loss is None and why in found.reason and not found.table


def test_bad_arguments_raise():
  rng = np.random.default_rng(14)
  features, labels = easy(rng, 450)
  with pytest.raises(ValueError, match='budget=4'):
    recommend(evidence(labels), features, [], rng, budget=4)
  with pytest.raises(ValueError, match='450'):
    recommend(evidence(labels), features[:-1], [], rng)

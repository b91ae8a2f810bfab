"""Repairs: the rules of every policy, what is never touched, who is asked."""

import dataclasses

import numpy as np
import pytest

from alignment.noise.detection.crowdlab import activelab
from alignment.noise.detection.posterior import class_posterior, flip_posterior
from alignment.noise.detection.repair import (
  ACTIONS,
  POLICIES,
  plan_repair,
  value_of_asking,
)
from alignment.noise.evidence import Evidence
from tests.noise.detection.worlds import one_label, voted

WRONG = np.array([0.0, 0.05, 0.06, 0.39, 0.41, 0.5, 0.6, 0.61, 1.0, np.nan])


def ten(**changes):
  label = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1], np.int32)
  return Evidence(
    **{'label': label, 'num_classes': 2, 'group': np.arange(10)} | changes
  )


def plan(policy, evidence=None, posterior=WRONG, seed=0, **settings):
  rng = np.random.default_rng(seed)
  return plan_repair(
    evidence or ten(), posterior, rng, policy=policy, **settings
  )


@pytest.mark.parametrize(
  ('policy', 'want'),
  [
    ('keep', 'k k k k k k k k k k'),
    ('flip', 'k k k k k k k f f k'),
    ('drop', 'k k k k k k k d d k'),
    ('soften', 'k k s s s s s s s k'),
    ('reweight', 'k k r r r r r r r k'),
    ('mixed', 'k k s s d d d f f k'),
  ],
)
def test_rules(policy, want):
  repair = plan(policy)
  letters = {action[0]: action for action in ACTIONS}
  assert repair.action.tolist() == [letters[c] for c in want.split()]
  flips, action = repair.action == 'flip', repair.action
  np.testing.assert_array_equal(repair.label != ten().label, flips)
  np.testing.assert_allclose(
    repair.label_prob, np.where(action == 'soften', 1 - WRONG, 1)
  )
  weight = np.where(action == 'reweight', 1 - WRONG, 1)
  np.testing.assert_allclose(
    repair.weight, np.where(action == 'drop', 0, weight)
  )
  np.testing.assert_array_equal(repair.flip_posterior, WRONG)
  assert np.all(repair.ask_rank == -1)
  assert sum(repair.count(name) for name in ACTIONS) == 10


def test_settings_move_the_limits():
  assert plan('flip', margin=0.0).count('flip') == 3
  assert plan('flip', margin=0.2).count('flip') == 1
  assert plan('mixed', margin=0.0, doubt=0.4).action[3:7].tolist() == [
    'keep',
    'soften',
    'drop',
    'flip',
  ]
  assert plan('soften', doubt=0.5).settings == {'doubt': 0.5}


def test_refusals():
  for name, settings in (
    ('doubt', {'policy': 'flip', 'doubt': 0.1}),
    ('margin', {'policy': 'keep', 'margin': 0.1}),
    ('margin=0.6', {'policy': 'flip', 'margin': 0.6}),
    ('policy', {'policy': 'guess'}),
    ('ask_budget', {'policy': 'keep', 'ask_budget': -1}),
  ):
    with pytest.raises(ValueError, match=name):
      plan(**settings)
  for bad in (WRONG[:-1], WRONG + 0.1, np.ones((10, 3)) / 3):
    with pytest.raises(ValueError, match='posterior'):
      plan('flip', posterior=bad)


@pytest.mark.parametrize('policy', list(POLICIES))
def test_rows_of_known_class_are_never_touched(policy):
  known = np.where(np.arange(10) % 2 == 0, 1, -1).astype(np.int32)
  evidence = ten(clean_label=known)
  repair = plan(policy, evidence, np.full(10, 0.9), ask_budget=10)
  assert set(repair.action[::2]) == {'keep'}
  assert np.all(repair.ask_rank[::2] == -1)
  np.testing.assert_array_equal(repair.label[::2], evidence.label[::2])
  assert set(repair.action[1::2]) == {'ask'}


def test_the_most_doubtful_are_asked_first():
  repair = plan('mixed', ask_budget=3)
  # min(w, 1 − w): .5, then .41, then .4.
  assert repair.ask_rank.tolist() == [-1, -1, -1, -1, 1, 0, 2, -1, -1, -1]
  assert repair.action[[4, 5, 6]].tolist() == ['ask'] * 3
  everyone = plan('keep', ask_budget=99)
  # Certain rows and the unknown one are worth nothing.
  np.testing.assert_array_equal(
    everyone.ask_rank < 0, (WRONG == 0) | (WRONG == 1) | np.isnan(WRONG)
  )


def test_an_order_of_ones_own():
  value = np.array([1.0, 5.0, np.nan, 2.0, 0.0, -1.0, 3.0, 4.0, 9.0, 9.0])
  repair = plan('keep', ask_budget=9, ask_value=value)
  # The last row has no posterior, so nothing is done about it.
  assert repair.ask_rank.tolist() == [5, 1, -1, 4, -1, -1, 3, 2, 0, -1]
  with pytest.raises(ValueError, match='ask_value has shape'):
    plan('keep', ask_budget=1, ask_value=value[:-1])


def test_ties_are_broken_by_the_generator():
  ranks = [
    plan('keep', posterior=np.full(10, 0.3), ask_budget=4, seed=s).ask_rank
    for s in (0, 0, 1)
  ]
  np.testing.assert_array_equal(ranks[0], ranks[1])
  assert np.any(ranks[0] != ranks[2])
  assert sorted(ranks[2][ranks[2] >= 0]) == [0, 1, 2, 3]


def test_value_of_an_answer_that_may_be_wrong():
  """By enumeration of truth and answer, the best guess after each."""
  rng = np.random.default_rng(0)
  wrong, e = rng.random(50), 0.2
  after = 0.0
  for says_wrong in (True, False):
    if_wrong = wrong * (1 - e if says_wrong else e)
    if_right = (1 - wrong) * (e if says_wrong else 1 - e)
    after += np.minimum(if_wrong, if_right)
  want = np.minimum(wrong, 1 - wrong) - after
  found = value_of_asking(ten(), wrong, answer_rate=e)
  np.testing.assert_allclose(found, want, atol=1e-12)
  # An answer less sure than the posterior changes nothing.
  assert np.all(found[np.abs(wrong - 0.5) > 0.31] == 0)
  assert np.all(found[np.abs(wrong - 0.5) < 0.29] > 0)
  with pytest.raises(ValueError, match='answer_rate'):
    value_of_asking(ten(), wrong, answer_rate=0.6)


def test_with_votes_and_model_the_order_is_activelabs():
  evidence, _ = voted(0, rows=200)
  posterior = np.random.default_rng(2).random(200)
  repair = plan('keep', evidence, posterior, ask_budget=20)
  order = np.argsort(activelab(evidence.votes, evidence.probs))[:20]
  np.testing.assert_array_equal(repair.ask_rank[order], np.arange(20))
  with pytest.raises(ValueError, match='answer_rate is not used'):
    value_of_asking(evidence, posterior, answer_rate=0.1)


def test_flips_among_several_classes_need_their_posterior():
  rng = np.random.default_rng(1)
  posterior = rng.dirichlet(np.full(3, 0.3), 10)
  label = np.argmin(posterior, axis=1).astype(np.int32)
  evidence = ten(label=label, num_classes=3)
  repair = plan('flip', evidence, posterior, margin=0.0)
  assert repair.count('flip') == 10
  np.testing.assert_array_equal(repair.label, posterior.argmax(axis=1))
  with pytest.raises(ValueError, match=r'must be \[B, C\]'):
    plan('flip', evidence, np.full(10, 0.9))
  assert plan('drop', evidence, np.full(10, 0.9)).count('drop') == 10


def test_both_forms_of_a_posterior_agree():
  evidence, _ = one_label(2, rows=500, rate=0.3)
  whole, wrong = class_posterior(evidence, 0.3), flip_posterior(evidence, 0.3)
  for policy in POLICIES:
    first, second = (plan(policy, evidence, p) for p in (whole, wrong))
    for field in dataclasses.fields(first):
      one, two = (getattr(r, field.name) for r in (first, second))
      np.testing.assert_array_equal(one, two, err_msg=field.name)

"""The embedded arena: splits, exact yardsticks, what a seed redraws."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from alignment.data import pipeline
from alignment.data.layout import Group, owners
from alignment.models.build import build
from alignment.models.config import plain_config
from alignment.protocols import ballot_arena as module
from alignment.protocols.arena import agreement
from alignment.protocols.ballot_arena import (
  BETAS,
  TILTS,
  BallotSizes,
  ballot_arena,
  enumerator,
)
from alignment.roles.scoring import completion_logps
from alignment.tasks.ballot_grammar import VOCABULARY

MODEL = build(plain_config(len(VOCABULARY), width=16, depth=1, num_heads=2))
SIZES = BallotSizes(
  difficulty='default',
  num_prompts=12,
  num_pairs=40,
  num_validation_prompts=5,
  num_validation=30,
  num_test_prompts=3,
  num_test=50,
  num_demonstrations=200,
  sft_steps=8,
  sft_learning_rate=1e-2,
  steps=3,
  batch_size=8,
  preference='argmax',
  packing='shared',
)
SPLITS = ('train', 'validation', 'test')
BT = dataclasses.replace(SIZES, preference='bt', temperature=0.5)
BETA = BETAS[12]


@pytest.fixture(scope='module')
def arena():
  return ballot_arena(0, MODEL, SIZES, beta=BETA)


@pytest.fixture(scope='module')
def worlds():
  return module._worlds(0, SIZES)[0]


@pytest.fixture(scope='module')
def moved(arena):
  """A policy that is not the start."""
  return jax.tree.map(lambda x: 1.3 * x, arena.start)


def prompts(split):
  return {tuple(group.prompt.tolist()) for group in split.pairs.groups}


def test_splits_share_no_prompt(arena):
  found = [prompts(getattr(arena, name)) for name in SPLITS]
  assert all(found)
  assert len(set.union(*found)) == sum(map(len, found))


def test_sizes_are_those_asked_for(arena):
  assert [len(getattr(arena, name).pairs) for name in SPLITS] == [40, 30, 50]
  assert len(arena.order) == 3
  for batch in arena.order:
    assert (np.asarray(batch.examples.index) >= 0).sum() == 8


def test_the_enumerator_scores_as_one_does_alone(arena, worlds):
  world = worlds['test']
  table = enumerator(MODEL, world)(arena.start)
  assert table.shape == world.rewards.shape
  rng = np.random.default_rng(0)
  drawn = [
    (rng.integers(len(table)), completion)
    for completion in rng.choice(table.shape[1], 40, replace=False)
  ]
  groups = [
    Group(
      world.prompts[p, : world.prompt_lengths[p]],
      (world.completions[c, : world.lengths[c]],),
      index,
      rejected=0,
    )
    for index, (p, c) in enumerate(drawn)
  ]
  alone = completion_logps(
    MODEL,
    arena.start,
    pipeline.evaluation_batches(groups, batch_size=8, packing='padded'),
  )
  # Two layouts of float32 sums.
  np.testing.assert_allclose(
    [table[p, c] for p, c in drawn], alone[:, 0], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('name', SPLITS)
def test_the_reference_is_the_start(arena, name):
  split = getattr(arena, name)
  batches = pipeline.evaluation_batches(split.pairs.groups, batch_size=16)
  logps = completion_logps(MODEL, arena.start, batches)
  np.testing.assert_allclose(split.reference, logps, rtol=1e-5, atol=1e-5)
  scored = completion_logps(MODEL, arena.start, split.batches)
  np.testing.assert_allclose(
    split.of_pairs(scored), logps, rtol=1e-5, atol=1e-5
  )


def test_training_batches_carry_the_reference(arena):
  for batch in arena.order:
    index, completion = owners(batch)
    logps = np.asarray(batch.completions.reference_logps)
    expected = arena.train.reference[index, completion]
    filled = index >= 0
    np.testing.assert_array_equal(logps[filled], expected[filled])


def test_the_start_is_the_floor(arena):
  assert arena.floor['gold'] == pytest.approx(0, abs=1e-6)
  assert arena.floor['kl'] == pytest.approx(0, abs=1e-6)
  assert 0 < arena.floor['mass'] <= 1


def test_the_yardstick_by_hand(arena, worlds, moved):
  """Σ over completions, in float64, of a policy normalised over them."""
  rewards = worlds['test'].rewards
  tables = [enumerator(MODEL, worlds['test'])(p) for p in (moved, arena.start)]
  raw = [np.exp(table.astype(np.float64)) for table in tables]
  policy, reference = [p / p.sum(axis=1, keepdims=True) for p in raw]
  found = arena.yardstick(moved, np.linspace(-1, 1, 50))
  floor = (reference * rewards).sum(axis=1).mean()
  gold = (policy * rewards).sum(axis=1).mean()
  best = rewards.max(axis=1).mean()
  expected = {
    'gold': (gold - floor) / (best - floor),
    'gold_raw': gold,
    'kl': (policy * np.log(policy / reference)).sum(axis=1).mean(),
    'mass': raw[0].sum(axis=1).mean(),
    'accuracy': agreement(arena.test.pairs, np.linspace(-1, 1, 50)).mean(),
  }
  for name, value in expected.items():
    assert found.summary[name] == pytest.approx(value, rel=1e-4), name
  assert found.summary['kl'] > 0.01


def test_tilts_go_from_the_reference_through_the_policy(arena, moved):
  found = arena.yardstick(moved, np.zeros(50))
  curves = found.curves
  assert curves['kl'][TILTS.index(0.0)] == pytest.approx(0, abs=1e-6)
  assert curves['gold'][TILTS.index(0.0)] == pytest.approx(0, abs=1e-6)
  assert curves['kl'][TILTS.index(1.0)] == found.summary['kl']
  assert curves['gold'][TILTS.index(1.0)] == found.summary['gold']
  assert np.all(np.diff(curves['kl']) > 0)
  assert found.summary['accuracy'] == 0.5  # nothing but ties


def test_no_policy_beats_the_exact_curve(arena, moved):
  curves = arena.yardstick(moved, np.zeros(50)).curves
  optimum_kl, optimum_gold = map(
    np.array, (curves['optimum_kl'], curves['optimum_gold'])
  )
  assert np.all(np.diff(optimum_kl) < 0) and np.all(np.diff(optimum_gold) < 0)
  assert optimum_gold[0] <= 1
  best = np.interp(curves['kl'], optimum_kl[::-1], optimum_gold[::-1])
  # Linear interpolation lies below the concave curve, by little on this grid.
  assert np.all(np.array(curves['gold']) <= best + 0.01)


def test_argmax_labels_follow_the_reward(arena):
  for name in SPLITS:
    pairs = getattr(arena, name).pairs
    np.testing.assert_array_equal(pairs.first_is_better, pairs.gold_margin > 0)
    np.testing.assert_array_equal(pairs.vote_share, pairs.gold_margin > 0)
    assert 0.2 < pairs.first_is_better.mean() < 0.8


def test_noise_may_read_parts_of_the_reward_and_a_blind_judge(arena):
  pairs = arena.train.pairs
  totals = pairs.known['step_rewards'].sum(axis=2)
  np.testing.assert_allclose(totals[:, 0] - totals[:, 1], pairs.gold_margin)
  # ATTRIBUTES are help, harm, brief, honest, cult.
  blind = np.delete(pairs.known['step_rewards'], 1, axis=2).sum(axis=2)
  judged = pairs.known['judge_margin']
  np.testing.assert_allclose(judged, blind[:, 0] - blind[:, 1], atol=1e-8)
  wrong = (judged > 0) != (pairs.gold_margin > 0)
  assert 0 < wrong.mean() < 0.4
  np.testing.assert_array_equal(
    pairs.known['attack_score'], np.abs(pairs.gold_margin)
  )


def test_bradley_terry_scales_gold_by_its_own_optimum():
  arena = ballot_arena(0, MODEL, BT, beta=BETA / BT.temperature)
  pairs = arena.train.pairs
  disagree = pairs.first_is_better != (pairs.gold_margin > 0)
  assert 0 < disagree.mean() < 0.5
  found = arena.yardstick(arena.start, np.zeros(50))
  # π*(β) of DPO's beta times the temperature is where gold is 1.
  assert found.curves['optimum_gold'][12] == pytest.approx(1, rel=1e-6)
  assert found.summary['kl_from_optimum'] > 0


def test_a_seed_redraws_everything_and_repeats_itself(arena):
  again = ballot_arena(0, MODEL, SIZES, beta=BETA)
  jax.tree.map(np.testing.assert_array_equal, arena.start, again.start)
  other = ballot_arena(1, MODEL, SIZES, beta=BETA)
  for name in SPLITS:
    one, same, two = (getattr(a, name) for a in (arena, again, other))
    np.testing.assert_array_equal(one.reference, same.reference)
    assert prompts(one) == prompts(same) != prompts(two)
  starts = [jax.tree.leaves(a.start) for a in (arena, other)]
  assert all((a != b).any() for a, b in zip(*starts, strict=True) if a.ndim > 1)
  orders = [
    [np.asarray(b.examples.index).ravel().tolist() for b in a.order]
    for a in (arena, again, other)
  ]
  assert orders[0] == orders[1] != orders[2]

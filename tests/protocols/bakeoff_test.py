"""The fair bake-off: selection, openings, resuming, threads."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from alignment.data import pipeline
from alignment.data.trees import distinct_trees
from alignment.losses.preference import hyperparameters
from alignment.protocols import bakeoff
from alignment.protocols.arena import Split
from alignment.protocols.bakeoff import Grid, Labels, row_of, tune
from alignment.protocols.contestants import Contestant
from alignment.protocols.ledger import in_threads
from alignment.protocols.progress import CellCheckpoints
from alignment.training.preemption import Preempted
from alignment.training.writers import Writer
from tests.protocols.arenas import LOSSES, STEPS, toy_arena

ARENA = toy_arena()
GRID = Grid((0.01, 0.03), (2, 4, STEPS))
RDPO = Contestant('rdpo', 0.2, 'mean', (('beta', 0.5),))
DPO = Contestant('dpo', None, 'mean', (('beta', 0.5),))


def labels_of(arena=ARENA, rate=0.3, seed=0) -> Labels:
  rng = np.random.default_rng(seed)
  sizes = len(arena.train.pairs), len(arena.validation.pairs)
  train, validation = (rng.random(size) < rate for size in sizes)
  return Labels(train, validation, np.ones(sizes[0]))


LABELS = labels_of()


@pytest.fixture(scope='module')
def outcome():
  return tune(RDPO, ARENA, LABELS, GRID)


def test_every_point_of_the_grid_is_scored_in_order(outcome):
  points = [(stop.learning_rate, stop.step) for stop in outcome.curve]
  assert points == [(r, s) for r in GRID.learning_rates for s in GRID.stops]
  assert len({stop.noisy_nll for stop in outcome.curve}) == len(points)


def test_the_roles_are_what_they_say(outcome):
  curve = outcome.curve
  assert outcome.selected[0] == min(curve, key=lambda stop: stop.noisy_nll)
  assert outcome.oracle[0].clean_accuracy == max(
    stop.clean_accuracy for stop in curve
  )
  fixed = outcome.fixed[0]
  assert (fixed.learning_rate, fixed.step) == (0.01, STEPS)


def test_without_oracle_nothing_else_changes(outcome):
  found = tune(RDPO, ARENA, LABELS, GRID, with_oracle=False)
  assert found.oracle is None
  with_it, without = (row_of(o, with_pairs=True) for o in (outcome, found))
  assert without == with_it | {'oracle': None}


def test_margins_of_a_split_scored_by_distinct_trees():
  rng = np.random.default_rng(2)
  pairs = ARENA.test.pairs
  shuffled = rng.integers(0, 6, 40)  # pairs repeat themselves
  groups = [
    dataclasses.replace(pairs.groups[at], index=index)
    for index, at in enumerate(shuffled)
  ]
  trees, places = distinct_trees(groups, per_tree=4)
  assert len(trees) == 6
  split = Split(
    dataclasses.replace(pairs, groups=groups),
    pipeline.evaluation_batches(trees, batch_size=4),
    ARENA.test.reference[shuffled],
    places,
  )
  params = jax.tree.map(lambda x: 1.1 * x, ARENA.start)
  direct = bakeoff.margins(DPO, ARENA, ARENA.test, params)
  found = bakeoff.margins(DPO, ARENA, split, params)
  # Sums of a few float32 log-probabilities, in another order.
  np.testing.assert_allclose(found, direct[shuffled], atol=1e-5)


def test_a_point_is_measured_with_its_own_policy(outcome):
  """Trained alone up to its step, each role's policy measures the same."""
  for role in ('selected', 'fixed', 'oracle'):
    stop, measured = getattr(outcome, role)
    alone = Grid((stop.learning_rate,), (stop.step,))
    again = tune(RDPO, ARENA, LABELS, alone).fixed
    assert again[0] == stop
    np.testing.assert_array_equal(again[1].correct, measured.correct)


def test_scores_agree_with_a_computation_by_hand():
  """noisy_nll, clean_accuracy and fitted from the policy's own margins."""
  kept = []
  arena = dataclasses.replace(
    ARENA,
    yardstick=lambda *given: kept.append(given) or ARENA.yardstick(*given),
  )
  (stop, _) = tune(RDPO, arena, LABELS, Grid((0.03,), (STEPS,))).fixed
  params = kept[0][0]

  def sided(split):
    margin = bakeoff.margins(RDPO, arena, split, params)
    return margin * np.where(split.pairs.first_is_better, 1, -1)

  valid, train = sided(arena.validation), sided(arena.train)
  assert stop.clean_accuracy == np.mean(valid > 0)
  assert stop.fitted == np.mean(train[LABELS.train_flipped] < 0)
  noisy = np.where(LABELS.validation_flipped, -valid, valid)
  scales = np.geomspace(1e-4, 1e3, 20001)[:, None]
  by_hand = np.logaddexp(0, -scales * noisy).mean(axis=1).min()
  # The minimum over a fine grid of scales lies a little above the exact one.
  np.testing.assert_allclose(stop.noisy_nll, by_hand, rtol=1e-6)
  reference = -np.diff(arena.test.reference)[:, 0]
  assert np.abs(kept[0][1] - reference).max() > 0.1  # not the start's ranking


def test_clean_labels_cannot_change_what_is_selected(outcome):
  """Labels as trained and selected on stay; what is believed clean changes."""
  rng = np.random.default_rng(3)
  swap = {
    name: rng.random(len(getattr(ARENA, name).pairs)) < 0.5
    for name in ('train', 'validation')
  }

  def swapped(name):
    split = getattr(ARENA, name)
    groups = [
      dataclasses.replace(g, chosen=g.rejected, rejected=g.chosen) if s else g
      for g, s in zip(split.pairs.groups, swap[name], strict=True)
    ]
    pairs = dataclasses.replace(split.pairs, groups=groups)
    return dataclasses.replace(split, pairs=pairs)

  base = toy_arena()
  order = [
    bakeoff.relabel(batch, is_flipped=swap['train']) for batch in base.order
  ]
  other = dataclasses.replace(
    base, order=order, train=swapped('train'), validation=swapped('validation')
  )
  labels = LABELS._replace(
    train_flipped=LABELS.train_flipped ^ swap['train'],
    validation_flipped=LABELS.validation_flipped ^ swap['validation'],
  )
  found = tune(RDPO, other, labels, GRID)
  nll = [stop.noisy_nll for stop in outcome.curve]
  assert [stop.noisy_nll for stop in found.curve] == nll
  assert [s.clean_accuracy for s in found.curve] != [
    s.clean_accuracy for s in outcome.curve
  ]
  assert found.selected[0][:2] == outcome.selected[0][:2]


def test_validation_labels_select_and_do_not_train(outcome):
  other = LABELS._replace(validation_flipped=~LABELS.validation_flipped)
  found = tune(RDPO, ARENA, other, GRID)
  fields = ('clean_accuracy', 'fitted')
  for one, two in zip(found.curve, outcome.curve, strict=True):
    assert [getattr(one, f) for f in fields] == [
      getattr(two, f) for f in fields
    ]
    assert one.noisy_nll != two.noisy_nll


def test_pairs_of_weight_zero_teach_nothing(outcome):
  weight = (~LABELS.train_flipped).astype(float)
  alone = tune(RDPO, ARENA, LABELS._replace(train_weight=weight), GRID)
  clean = Labels(
    np.zeros_like(LABELS.train_flipped), LABELS.validation_flipped, weight
  )
  without = tune(RDPO, ARENA, clean, GRID)
  assert [s[:4] for s in alone.curve] == [s[:4] for s in without.curve]
  assert alone.curve[-1].noisy_nll != outcome.curve[-1].noisy_nll
  assert all(math.isnan(s.fitted) for s in without.curve)


def test_what_a_loss_assumes_reaches_it(outcome):
  found = tune(RDPO._replace(assumed=0.35), ARENA, LABELS, GRID)
  assert found.curve[0].noisy_nll != outcome.curve[0].noisy_nll


def test_the_arena_is_left_as_it_was(outcome):
  del outcome
  start = jax.tree.map(np.asarray, toy_arena().start)
  jax.tree.map(np.testing.assert_array_equal, ARENA.start, start)


def test_threads_change_nothing(outcome):
  work = [RDPO, DPO, RDPO._replace(assumed=0.1)]
  many = in_threads(lambda c: tune(c, ARENA, LABELS, GRID), work, 2)
  one = [tune(c, ARENA, LABELS, GRID) for c in work]
  rows = [[row_of(o, with_pairs=True) for o in group] for group in (many, one)]
  assert rows[0] == rows[1]
  assert rows[0][0] == row_of(outcome, with_pairs=True)


def stopper(after: int):
  """should_stop that says so at the `after`-th time it is asked."""
  asked = iter(range(1, 10_000))
  return lambda step: next(asked) >= after


@pytest.mark.parametrize('save_interval', [0, 3])
@pytest.mark.parametrize('rate', [0.0, 0.3], ids=['clean', 'flips'])
def test_an_interrupted_cell_is_resumed_bitwise(tmp_path, save_interval, rate):
  labels = labels_of(rate=rate)
  whole = row_of(tune(RDPO, ARENA, labels, GRID), with_pairs=True)
  # A run asks before its first step and after each but the last.
  for after in (4, STEPS + 4):
    folder = tmp_path / str(after)
    seen = []

    def attempt(should_stop=lambda step: False, folder=folder, seen=seen):
      return tune(
        RDPO,
        ARENA,
        labels,
        GRID,
        checkpoints=CellCheckpoints(folder, GRID.stops[-1]),
        save_interval=save_interval,
        writer=Writer(
          lambda step, row: seen.append(step),
          lambda step, tags: None,
          lambda: None,
        ),
        log_interval=1,
        should_stop=should_stop,
      )

    with pytest.raises(Preempted):
      attempt(stopper(after))
    trained = len(seen)
    found = row_of(attempt(), with_pairs=True)
    assert json.dumps(found) == json.dumps(whole)
    assert not folder.exists()
    assert 0 < len(seen) - trained < 2 * STEPS  # it did go on, not anew
    seen.clear()


def test_rows_of_every_rate_are_kept():
  """Rates share the steps: the second must not take back the first's rows."""
  rows = []

  def rewind(step, tags):
    rows[:] = [
      (s, r) for s, r in rows if s <= step or not tags.items() <= r.items()
    ]

  writer = Writer(lambda s, r: rows.append((s, dict(r))), rewind, lambda: None)
  tune(
    DPO,
    ARENA,
    LABELS,
    GRID,
    checkpoints=CellCheckpoints('unused', GRID.stops[-1]),
    writer=writer,
    log_interval=3,
  )
  assert len(rows) == 2 * 3  # steps 1, 3 and 6 at either rate


@pytest.mark.parametrize('loss', LOSSES)
def test_the_opening_loss_is_the_value_at_zero(loss):
  assumed = 0.1 if 'label_smoothing' in hyperparameters(loss) else None
  contestant = Contestant(loss, assumed, 'mean', (('beta', 0.5),))
  measured, exact = bakeoff.opening_loss(contestant, ARENA)
  assert math.isnan(exact) or math.isclose(measured, exact, rel_tol=1e-5)


def test_a_start_that_is_not_the_reference_is_noticed():
  moved = jax.tree.map(lambda x: 1.05 * x, ARENA.start)
  with pytest.raises(ValueError, match='dpo: the loss before the first update'):
    bakeoff.opening_loss(DPO, dataclasses.replace(ARENA, start=moved))


def test_rows_are_strict_json(outcome):
  for rate in (0.0, 0.3):
    found = tune(DPO, ARENA, labels_of(rate=rate), Grid((0.1,), (2,)))
    row = json.loads(
      json.dumps(row_of(found, with_pairs=True), allow_nan=False)
    )
    assert (row['fixed']['stop']['fitted'] is None) == (rate == 0)
    assert len(row['fixed']['correct']) == len(ARENA.test.pairs)
  assert 'correct' not in row_of(outcome, with_pairs=False)['fixed']

"""The pipeline: seed and step decide, and nothing else does."""

import collections
import dataclasses
import itertools

import jax
import numpy as np
import pytest

from alignment.data import packing, pipeline
from alignment.data.layout import capacity_for, tabulate
from alignment.data.packing import LayoutError
from tests.groups import random_groups

NAMES = sorted(packing.PACKINGS)
TABLE = tabulate(random_groups(np.random.default_rng(0), 43))


def take(count, **kwargs):
  kwargs = dict(batch_size=8, seed=5) | kwargs
  return list(itertools.islice(pipeline.batches(TABLE, **kwargs), count))


def assert_equal(one, other):
  assert len(one) == len(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def members(batch):
  index = batch.examples.index
  return sorted(index[index >= 0].tolist())


@pytest.mark.parametrize('name', NAMES)
def test_resumes_at_any_step(name):
  whole = take(12, packing=name)
  for start in (0, 1, 4, 5, 11):
    assert_equal(
      whole[start:], take(12 - start, packing=name, start_step=start)
    )


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_the_same_global_batch(name, count):
  size = dict(packing=name, row_multiple=4)
  whole = take(7, **size)
  parts = [
    take(7, process_index=i, process_count=count, **size) for i in range(count)
  ]
  together = [
    jax.tree.map(lambda *rows: np.concatenate(rows), *step)
    for step in zip(*parts, strict=True)
  ]
  assert_equal(whole, together)


def test_rows_divide_among_processes():
  parts = [
    take(2, batch_size=7, process_index=i, process_count=4) for i in range(4)
  ]
  whole = take(2, batch_size=7)
  for step in range(2):
    found = sum((members(part[step]) for part in parts), [])
    assert sorted(found) == members(whole[step])


def test_resumes_on_another_number_of_processes():
  size = dict(packing='packed', row_multiple=4)
  whole = take(9, **size)
  late = [
    take(4, start_step=5, process_index=i, process_count=2, **size)
    for i in range(2)
  ]
  for step, pair in enumerate(zip(*late, strict=True)):
    found = sorted(members(pair[0]) + members(pair[1]))
    assert found == members(whole[5 + step])


def test_batch_does_not_depend_on_the_packing():
  per_packing = [[members(b) for b in take(7, packing=name)] for name in NAMES]
  assert per_packing[0] == per_packing[1] == per_packing[2]


def test_epochs_reshuffle():
  per_epoch = 43 // 8
  steps = [members(b) for b in take(3 * per_epoch)]
  epochs = [steps[i * per_epoch : (i + 1) * per_epoch] for i in range(3)]
  for epoch in epochs:  # no example twice in an epoch
    assert len(set(sum(epoch, []))) == 8 * per_epoch
  assert epochs[0] != epochs[1] != epochs[2]
  assert steps == [members(b) for b in take(3 * per_epoch)]
  assert steps != [members(b) for b in take(3 * per_epoch, seed=6)]


def test_order_of_one_seed_is_not_the_next_epoch_of_another():
  order = pipeline.epoch_order
  assert sorted(order(3, 0, 50)) == list(range(50))
  drawn = {tuple(order(s, e, 50)) for s in range(4) for e in range(4)}
  assert len(drawn) == 16
  # Fixed for good: a resumed run must see the data of the run it resumes.
  assert order(7, 2, 8).tolist() == [6, 7, 4, 0, 1, 5, 3, 2]


def test_remainder():
  assert len(take(None, num_epochs=2)) == 2 * 5
  kept = take(None, num_epochs=2, drop_remainder=False)
  assert len(kept) == 2 * 6
  seen = collections.Counter(sum((members(b) for b in kept), []))
  assert seen == {i: 2 for i in range(43)}
  last = kept[5]
  assert len(members(last)) == 3
  assert last.examples.weight[last.examples.index < 0].sum() == 0
  assert len({b.tokens.shape for b in kept}) == 1


def test_steps_beyond_the_end():
  assert take(None, num_epochs=2, start_step=10) == []
  assert take(None, num_epochs=2, start_step=99) == []


@pytest.mark.parametrize('name', NAMES)
def test_shapes_are_static(name):
  shapes = {
    tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    for batch in take(60, packing=name, row_multiple=4)
  }
  assert len(shapes) == 1


def test_packed_plan_is_tighter_than_safe_and_shared():
  groups = random_groups(np.random.default_rng(1), 320)
  size = dict(batch_size=32, seed=2, num_epochs=1)
  epoch = list(pipeline.batches(groups, packing='packed', **size))
  rows, tokens = epoch[0].tokens.shape
  safe = capacity_for(
    groups, packing='packed', batch_size=32, max_row_length=tokens
  )
  assert rows < 0.8 * safe.rows
  shared = next(pipeline.batches(groups, packing='shared', **size))
  assert rows * tokens < 0.8 * shared.tokens.size
  filled = np.mean([(batch.group > 0).mean() for batch in epoch])
  assert filled > 0.75


def test_more_shapes_waste_fewer_tokens_and_hold_the_same_examples():
  groups = random_groups(
    np.random.default_rng(1), 320, prompt=(1, 30), completion=(1, 30)
  )
  size = dict(packing='packed', batch_size=8, seed=2, num_epochs=1)
  one, three = (
    list(pipeline.batches(groups, shapes=n, **size)) for n in (1, 3)
  )
  assert len({batch.tokens.shape for batch in one}) == 1
  assert 1 < len({batch.tokens.shape for batch in three}) <= 3
  assert list(map(members, one)) == list(map(members, three))
  tokens = [sum(b.tokens.size for b in batches) for batches in (one, three)]
  assert tokens[1] < 0.9 * tokens[0]
  with pytest.raises(ValueError, match='shapes is 2, want 1 unless'):
    pipeline.batches(groups, shapes=2, **(size | {'packing': 'shared'}))
  with pytest.raises(ValueError, match='shapes is 0'):
    pipeline.batches(groups, shapes=0, **size)


def test_unplanned_packed_batches_come_in_the_safe_shape(monkeypatch):
  monkeypatch.setattr(pipeline, '_PLANNED_BATCHES', 1)
  found = take(200, packing='packed', max_row_length=40)
  safe = capacity_for(TABLE, packing='packed', batch_size=8, max_row_length=40)
  assert {b.tokens.shape[0] for b in found} == {
    found[0].tokens.shape[0],
    safe.rows,
  }
  assert all(len(members(b)) == 8 for b in found)


def test_own_capacity_is_kept():
  capacity = capacity_for(TABLE, packing='packed', batch_size=8)
  wide = dataclasses.replace(capacity, rows=2 * capacity.rows)
  assert take(1, packing='packed', capacity=wide)[0].tokens.shape == (
    wide.rows,
    wide.tokens,
  )
  narrow = dataclasses.replace(capacity, rows=1)
  with pytest.raises(LayoutError, match='does not fit'):
    take(1, packing='packed', capacity=narrow)
  with pytest.raises(ValueError, match='capacity.rows is 1'):
    take(1, packing='packed', capacity=narrow, process_index=0, process_count=2)


def test_prefetch_changes_nothing():
  assert_equal(take(12), take(12, prefetch=3))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('wanted', [[], [3], range(1, 43, 2), range(43)])
def test_rows_with(name, wanted):
  whole = pipeline.evaluation_batches(TABLE, batch_size=8, packing=name)
  found = pipeline.rows_with(whole, np.array(wanted, int))
  rows = collections.Counter()
  for batch in found:
    jax.tree.map(
      lambda x, y: x.shape == y.shape or pytest.fail(f'{x.shape}'),
      batch,
      whole[0],
    )
    for row in range(len(batch.tokens)):
      index = batch.examples.index[row]
      assert set(wanted) & set(index.tolist())
      rows[tuple(index.tolist())] += 1
      # The row is the one laid out before, all of it.
      (same,) = (
        (b, r)
        for b in whole
        for r in range(len(b.tokens))
        if (b.examples.index[r] == index).all()
      )
      jax.tree.map(
        lambda x, y, r=row, s=same[1]: np.testing.assert_array_equal(
          x[r], y[s]
        ),
        batch,
        same[0],
      )
  held = {i for index in rows for i in index}
  assert set(wanted) <= held


@pytest.mark.parametrize('name', NAMES)
def test_evaluation_batches(name):
  found = pipeline.evaluation_batches(
    TABLE, batch_size=10, packing=name, row_multiple=4
  )
  wanted = [list(range(s, min(s + 10, 43))) for s in range(0, 43, 10)]
  assert [members(batch) for batch in found] == wanted
  assert len({batch.tokens.shape for batch in found}) == 1
  halves = [
    pipeline.evaluation_batches(
      TABLE,
      batch_size=10,
      packing=name,
      row_multiple=4,
      process_index=i,
      process_count=2,
    )
    for i in range(2)
  ]
  together = [
    jax.tree.map(lambda *rows: np.concatenate(rows), *step)
    for step in zip(*halves, strict=True)
  ]
  assert_equal(found, together)


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(batch_size=0), 'batch_size is 0'),
    (dict(batch_size=44), '43 examples do not fill one batch'),
    (dict(seed=-1), 'seed is -1'),
    (dict(start_step=-1), 'start_step is -1'),
    (dict(num_epochs=0), 'num_epochs is 0'),
    (dict(process_index=2, process_count=2), 'process_index is 2'),
    (dict(row_multiple=0), 'row_multiple is 0'),
    (dict(packing='dense'), "packing 'dense' is not one of"),
    (dict(max_row_length=6), 'max_row_length is 6'),
  ],
)
def test_refuses(change, message):
  with pytest.raises(ValueError, match=message):
    take(1, **change)

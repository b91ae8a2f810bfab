"""Layout: what went in comes out, in every packing, and nothing else does."""

import dataclasses

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from alignment.data import capacity, layout, packing
from alignment.data.layout import Group, capacity_for, lay_out, tabulate
from alignment.data.packing import Capacity, LayoutError
from tests.groups import random_groups

NAMES = sorted(packing.PACKINGS)


def laid_out(groups, name, **kwargs):
  sizes = capacity_for(groups, packing=name, batch_size=len(groups), **kwargs)
  return lay_out(groups, sizes, name)


def recovered(batch):
  """Groups read back from a batch, by explicit loops over its entries."""
  num_slots = batch.completions.length.shape[1]
  groups = {}
  for row, example in zip(*np.nonzero(batch.examples.index >= 0), strict=True):
    alone = batch.examples.index.shape[1] == 1
    mine = batch.group[row] > 0 if alone else batch.group[row] == example + 1
    texts, slots = [], []
    for slot in range(num_slots):
      entries = np.flatnonzero(batch.slot[row] == slot)
      if not len(entries) or not mine[batch.source[row, entries[0]]]:
        continue
      assert (np.diff(entries) == 1).all(), 'a slot has gaps'
      end = batch.source[row, entries[0]]
      at_prompt = batch.group[row] == batch.group[row, end]
      at_prompt &= batch.branch[row] == 0
      assert end == np.flatnonzero(at_prompt)[-1]
      texts.append(batch.target[row, entries])
      slots.append(slot)
      prompt = batch.tokens[row][at_prompt]
    value = {
      field.name: getattr(batch.examples, field.name)[row, example]
      for field in dataclasses.fields(batch.examples)
    }
    numbers = {
      name: tuple(getattr(batch.completions, field)[row, slots].tolist())
      for name, field in (
        ('reference_logps', 'reference_logps'),
        ('rewards', 'reward'),
      )
    }
    lengths = batch.completions.length[row, slots]
    assert lengths.tolist() == [len(text) for text in texts]
    groups[int(value['index'])] = Group(
      prompt=prompt,
      completions=tuple(texts),
      index=int(value['index']),
      chosen=slots.index(value['chosen']),
      rejected=slots.index(value['rejected']),
      **{
        name: value[name].item()
        for name in (
          'weight',
          'coefficient',
          'label_prob',
          'label_smoothing',
          'annotator_id',
        )
      },
      **numbers,
    )
  return groups


def assert_same(found, groups):
  assert sorted(found) == sorted(group.index for group in groups)
  for group in groups:
    other = found[group.index]
    for field in dataclasses.fields(Group):
      want, got = getattr(group, field.name), getattr(other, field.name)
      if field.name == 'completions':
        assert [x.tolist() for x in got] == [x.tolist() for x in want]
      elif field.name == 'prompt':
        assert got.tolist() == want.tolist()
      else:  # stored as float32
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=field.name)


@pytest.mark.parametrize('completions', [(1, 1), (2, 2), (5, 5), (1, 4)])
@pytest.mark.parametrize('name', NAMES)
def test_round_trip(name, completions):
  rng = np.random.default_rng(3)
  groups = random_groups(rng, 13, completions=completions, first_index=40)
  batch = laid_out(groups, name, row_multiple=4)
  assert_same(recovered(batch), groups)
  assert batch.tokens.shape[0] % 4 == 0


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  name=st.sampled_from(NAMES),
  seed=st.integers(0, 2**32 - 1),
  count=st.integers(1, 12),
  most=st.integers(1, 4),
  longest=st.integers(1, 40),
  row_multiple=st.integers(1, 5),
)
def test_round_trip_of_any_lengths(
  name, seed, count, most, longest, row_multiple
):
  rng = np.random.default_rng(seed)
  groups = random_groups(
    rng,
    count,
    completions=(1, most),
    prompt=(1, longest),
    completion=(1, longest),
  )
  batch = laid_out(groups, name, row_multiple=row_multiple)
  assert_same(recovered(batch), groups)


@pytest.mark.parametrize('name', NAMES)
def test_each_token_sees_its_own_text_and_no_other(name):
  groups = random_groups(np.random.default_rng(8), 6, completions=(1, 3))
  batch = laid_out(groups, name)
  paths = {
    (*group.prompt.tolist(), *text.tolist())
    for group in groups
    for text in group.completions
  }
  seen_whole = set()
  rows, length = batch.tokens.shape
  for r in range(rows):
    for i in range(length):
      if batch.group[r, i] == 0:
        continue
      visible = [
        j
        for j in range(i + 1)
        if batch.group[r, j] == batch.group[r, i]
        and batch.branch[r, j] in (0, batch.branch[r, i])
      ]
      # What is visible is a text from its start, without a gap.
      text = tuple(batch.tokens[r, visible].tolist())
      assert batch.positions[r, visible].tolist() == list(range(len(text)))
      assert any(path[: len(text)] == text for path in paths)
      seen_whole.add(text)
  assert paths <= seen_whole


@pytest.mark.parametrize('name', NAMES)
def test_source_predicts_its_target(name):
  groups = random_groups(np.random.default_rng(9), 6, completions=(2, 3))
  batch = laid_out(groups, name)
  for r, l in zip(
    *np.nonzero(batch.slot < batch.completions.length.shape[1]), strict=True
  ):
    source = batch.source[r, l]
    first = l == 0 or batch.slot[r, l - 1] != batch.slot[r, l]
    follower = [
      j
      for j in range(batch.tokens.shape[1])
      if batch.group[r, j] == batch.group[r, source]
      and batch.positions[r, j] == batch.positions[r, source] + 1
      and batch.tokens[r, j] == batch.target[r, l]
      and batch.branch[r, j] > 0
    ]
    assert follower
    assert (batch.branch[r, source] == 0) == first


@pytest.mark.parametrize('name', NAMES)
def test_padding_and_empty_slots(name):
  groups = random_groups(np.random.default_rng(5), 5)
  sizes = capacity_for(
    groups, packing=name, batch_size=9, row_multiple=8, max_row_length=64
  )
  batch = lay_out(groups[:3], sizes, name)
  padding = batch.group == 0
  for array in (batch.tokens, batch.positions, batch.branch):
    assert not array[padding].any()
  # Padded cells repeat the prompt of each pair.
  copies = 2 if name == 'padded' else 1
  assert (~padding).sum() == sum(
    copies * len(group.prompt) + sum(map(len, group.completions))
    for group in groups[:3]
  )
  unused = batch.slot == sizes.slots
  assert not batch.source[unused].any() and not batch.target[unused].any()
  empty = batch.examples.index < 0
  assert (~empty).sum() == 3
  assert not batch.examples.weight[empty].any()
  vacant = batch.completions.length == 0
  for array in jax.tree.leaves(batch.completions):
    assert not array[vacant].any()
  for leaf in jax.tree.leaves(batch):
    assert leaf.dtype in (np.int32, np.float32)
    assert leaf.shape[0] == sizes.rows


def test_unknown_numbers_are_nan():
  group = Group(np.array([1]), (np.array([2]), np.array([3, 4])), index=0)
  batch = laid_out([group], 'shared')
  for name in ('reference_logps', 'reward', 'advantage'):
    assert np.isnan(getattr(batch.completions, name)).all()


@pytest.mark.parametrize('name', NAMES)
def test_a_pair_stays_in_one_row(name):
  groups = random_groups(np.random.default_rng(7), 20)
  batch = laid_out(groups, name)
  index, completion = layout.owners(batch)
  for group in groups:
    rows, _ = np.nonzero(index == group.index)
    assert len(rows) == 2 and rows[0] == rows[1]
    assert completion[index == group.index].tolist() == [0, 1]


def test_padded_cells_are_of_equal_length():
  groups = random_groups(np.random.default_rng(7), 9, completions=(3, 3))
  batch = laid_out(groups, 'padded')
  cells = batch.branch.reshape(len(groups), 3, -1)
  group = batch.group.reshape(len(groups), 3, -1)
  for k in range(3):
    assert set(group[:, k].ravel()) <= {0, k + 1}
    assert (group[:, k, 0] == k + 1).all()
  assert cells.max() == 1


def test_packed_is_first_fit_by_decreasing_length():
  lengths = np.array([[1, 2, 2], [2, 4, 4], [1, 1, 1], [2, 2, 3], [1, 3, 3]])
  places = packing.place(
    lengths, np.arange(5), Capacity(3, 13, 13, 4, 2), 'packed'
  )
  # Lengths 5, 10, 3, 7, 7: 10 + 3 | 7 + 5 | 7.
  assert places.row.tolist() == [1, 0, 0, 1, 2]
  assert places.example.tolist() == [1, 0, 1, 0, 0]


def test_packed_rows_hold_no_more_examples_than_slots_for_them():
  lengths = np.full((3, 3), 2)
  places = packing.place(
    lengths, np.arange(3), Capacity(3, 99, 99, 99, 1), 'packed'
  )
  assert places.row.tolist() == [0, 1, 2]


@pytest.mark.parametrize('short', ['rows', 'tokens', 'targets', 'slots'])
@pytest.mark.parametrize('name', NAMES)
def test_overflow_names_the_example(name, short):
  groups = random_groups(
    np.random.default_rng(2), 6, first_index=100, prompt=(3, 3)
  )
  groups[4] = dataclasses.replace(
    groups[4], prompt=np.ones(30, np.int32), completions=(np.ones(40, int),) * 2
  )
  enough = capacity_for(
    groups,
    packing=name,
    batch_size=6,
    max_row_length=115 if name == 'packed' else None,
  )
  lay_out(groups, enough, name)
  less = {'rows': 1, 'tokens': 104, 'targets': 78, 'slots': 1}[short]
  with pytest.raises(LayoutError, match=r'example 10\d does not fit') as error:
    lay_out(groups, dataclasses.replace(enough, **{short: less}), name)
  if short in ('tokens', 'targets'):
    assert 'example 104' in str(error.value)
    assert 'prompt of 30 tokens, completions of [40, 40]' in str(error.value)


@pytest.mark.parametrize('name', NAMES)
def test_max_row_length(name):
  groups = random_groups(np.random.default_rng(2), 40)
  size = dict(packing=name, batch_size=8)
  free = capacity_for(groups, **size)
  assert capacity_for(groups, max_row_length=40, **size).tokens <= 40
  assert capacity_for(groups, max_row_length=999, **size).tokens == (
    999 if name == 'packed' else free.tokens
  )
  with pytest.raises(LayoutError, match='max_row_length is 9'):
    capacity_for(groups, max_row_length=9, **size)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  name=st.sampled_from(NAMES),
  seed=st.integers(0, 2**32 - 1),
  batch_size=st.integers(1, 16),
  longest=st.integers(1, 60),
  max_row_length=st.one_of(st.none(), st.integers(250, 400)),
)
def test_no_batch_overflows_a_safe_capacity(
  name, seed, batch_size, longest, max_row_length
):
  rng = np.random.default_rng(seed)
  groups = random_groups(
    rng, 40, prompt=(1, longest), completion=(1, longest), completions=(1, 2)
  )
  table = tabulate(groups)
  sizes = capacity_for(
    table, packing=name, batch_size=batch_size, max_row_length=max_row_length
  )
  total = table.lengths.sum(1)
  for order in (rng.permutation(40), np.argsort(total), np.argsort(-total)):
    packing.place(table.lengths[order[:batch_size]], order, sizes, name)


def test_buckets_are_few_and_not_wasteful():
  sizes = range(1, 2049)
  assert all(n <= capacity.bucket(n) <= max(n, 1.25 * n) for n in sizes)
  assert len({capacity.bucket(n) for n in range(1025, 2049)}) == 4
  assert [capacity.bucket(n) for n in (1, 8, 9, 14, 17)] == [1, 8, 10, 14, 20]


def test_capacity_reads_nothing_but_lengths():
  one = random_groups(np.random.default_rng(4), 30)
  other = [
    dataclasses.replace(group, prompt=group.prompt + 1, weight=3.0)
    for group in one
  ]
  for name in NAMES:
    size = dict(packing=name, batch_size=7, row_multiple=4)
    assert capacity_for(one, **size) == capacity_for(other[::-1], **size)


@pytest.mark.parametrize('name', NAMES)
def test_relabel(name):
  rng = np.random.default_rng(6)
  groups = random_groups(rng, 12, completions=(2, 4))
  batch = laid_out(groups, name, row_multiple=8)
  tables = dict(
    weight=rng.uniform(size=12),
    label_smoothing=rng.uniform(0, 0.49, size=12),
    label_prob=rng.uniform(size=12),
    annotator_id=rng.integers(9, size=12),
    coefficient=rng.normal(size=12),
  )
  flips = rng.random(12) < 0.5
  changed = layout.relabel(batch, is_flipped=flips, **tables)
  wanted = [
    dataclasses.replace(
      group,
      chosen=group.rejected if flips[i] else group.chosen,
      rejected=group.chosen if flips[i] else group.rejected,
      **{field: values[i].item() for field, values in tables.items()},
    )
    for i, group in enumerate(groups)
  ]
  assert_same(recovered(changed), wanted)
  assert_same(recovered(batch), groups)  # the first batch is left alone
  empty = batch.examples.index < 0
  for before, after in zip(
    jax.tree.leaves(batch.examples),
    jax.tree.leaves(changed.examples),
    strict=True,
  ):
    np.testing.assert_array_equal(before[empty], after[empty])
    assert before.dtype == after.dtype
  assert changed.tokens is batch.tokens


def test_relabel_refuses():
  batch = laid_out(random_groups(np.random.default_rng(6), 4), 'shared')
  with pytest.raises(ValueError, match='label_smoothing is 0.5'):
    layout.relabel(batch, label_smoothing=np.full(4, 0.5))
  with pytest.raises(ValueError, match='weight is nan'):
    layout.relabel(batch, weight=np.full(4, np.nan))
  with pytest.raises(ValueError, match="'chosen' is not one of"):
    layout.relabel(batch, chosen=np.zeros(4))
  with pytest.raises(ValueError, match='is_flipped has 3 rows'):
    layout.relabel(batch, is_flipped=np.zeros(3, bool))


@pytest.mark.parametrize('name', NAMES)
def test_reference_table_there_and_back(name):
  rng = np.random.default_rng(1)
  groups = random_groups(rng, 15, completions=(2, 3))
  batch = laid_out(groups, name, row_multiple=8)
  table = rng.normal(size=(15, 3)).astype(np.float32)
  filled = layout.fill_reference(batch, table)
  wanted = [
    dataclasses.replace(
      group,
      reference_logps=tuple(table[i, : len(group.completions)].tolist()),
    )
    for i, group in enumerate(groups)
  ]
  assert_same(recovered(filled), wanted)
  assert not filled.completions.reference_logps[
    batch.completions.length == 0
  ].any()
  back = np.full_like(table, np.nan)
  layout.collect(filled, filled.completions.reference_logps, back)
  there = tabulate(groups).lengths[:, 1:] > 0
  np.testing.assert_array_equal(back[there], table[there])
  assert np.isnan(back[~there]).all()


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(prompt=np.zeros(0, int)), 'a prompt of at least one token'),
    (dict(completions=()), 'at least one completion'),
    (dict(completions=(np.zeros(0, int),) * 2), 'completions of at least one'),
    (dict(index=-1), 'index ≥ 0'),
    (dict(chosen=2), r'chosen in \[0, 2\)'),
    (dict(label_smoothing=0.5), r'label_smoothing in \[0, 0.5\)'),
    (dict(weight=float('nan')), 'weight ≥ 0'),
    (dict(rewards=(1.0,)), '2 rewards'),
  ],
)
def test_group_refuses(change, message):
  group = random_groups(np.random.default_rng(0), 1)[0]
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(group, **change)


def test_unknown_packing():
  groups = random_groups(np.random.default_rng(0), 2)
  with pytest.raises(ValueError, match="packing 'dense' is not one of"):
    laid_out(groups, 'dense')

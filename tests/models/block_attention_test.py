"""Attention by blocks gives what attention over all pairs gives."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data import blocks
from alignment.data.layout import Group, capacity_for, lay_out, tabulate
from alignment.data.packing import LayoutError, place
from alignment.data.table import lay_out_rows
from alignment.models.attention import attend, sight, visibility
from tests.models.trees import PACKINGS

HEADS, PER_HEAD, FEATURES = 2, 3, 4
SIZE = 7  # of a block; divides no row


def _groups(count=9, shortest=1, longest=60, seed=0):
  """Prompts and one to three completions of very different lengths."""
  rng = np.random.default_rng(seed)

  def text(low, high):
    size = int(np.exp(rng.uniform(np.log(low), np.log(high))))
    return rng.integers(1, 11, size).astype(np.int32)

  return [
    Group(
      prompt=text(shortest, longest),
      completions=tuple(
        text(shortest, longest) for _ in range(1 + int(rng.integers(3)))
      ),
      index=index,
      rejected=0,
    )
    for index in range(count)
  ]


def _batch(packing):
  """A batch with lists of small blocks, whether or not they pay."""
  table = tabulate(_groups())
  count = len(table)
  capacity = capacity_for(
    table,
    packing=packing,
    batch_size=count + (packing != 'packed'),  # and a row of padding
    planned=[np.arange(count)] if packing == 'packed' else None,
  )
  places = place(table.lengths, np.arange(count), capacity, packing)
  pairs = blocks.pairs_of(table.lengths, places, capacity.tokens, SIZE)
  most = blocks.most_seen(pairs, capacity.rows, -(-capacity.tokens // SIZE))
  sizes = blocks.plan(most, SIZE)
  assert 1 < len(sizes.lists)
  return lay_out(table, dataclasses.replace(capacity, blocks=sizes), packing)


def _inputs(batch, seed=0):
  rng = np.random.default_rng(seed)
  rows, length = batch.tokens.shape
  shape = (rows, length, HEADS, PER_HEAD, FEATURES)
  query, cotangent = rng.normal(size=(2, *shape))
  key, value = rng.normal(size=(2, rows, length, HEADS, FEATURES))
  real = (batch.group > 0)[:, :, None, None, None]
  arrays = (2 * query, key, value, cotangent * real)
  return tuple(jnp.asarray(array, jnp.float32) for array in arrays), real


def _oracle(query, key, value, batch, scale, softcap, window):
  """By the definition, differentiated automatically."""
  scores = scale * jnp.einsum('rihgf,rjhf->rhgij', query, key)
  if softcap is not None:
    scores = softcap * jnp.tanh(scores / softcap)
  visible = visibility(batch.group, batch.branch)
  if window is not None:
    at = batch.positions
    visible &= at[:, :, None] - at[:, None, :] < window
  scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
  weights = jax.nn.softmax(scores, axis=-1)
  return jnp.einsum('rhgij,rjhf->rihgf', weights, value)


@pytest.mark.parametrize(
  ('packing', 'softcap', 'window'),
  [
    ('packed', None, None),
    ('packed', 1.5, 13),
    ('shared', None, 40),
    ('padded', 2.0, None),
  ],
)
@pytest.mark.parametrize('attention', ['dense', 'blocks'])
def test_mean_and_gradient_are_those_of_all_pairs(
  packing, softcap, window, attention
):
  batch = _batch(packing)
  (query, key, value, cotangent), real = _inputs(batch)
  seen = sight(
    batch.positions,
    batch.group,
    batch.branch,
    batch.blocks,
    attention=attention,
  )

  @jax.jit
  def both(query, key, value, window):
    options = dict(scale=0.7, softcap=softcap, window=window)

    def ours(*arrays):
      return attend(*arrays, seen, **options)

    def wanted(*arrays):
      return _oracle(*arrays, batch, **options)

    return [
      (out := jax.vjp(f, query, key, value))[:1] + out[1](cotangent)
      for f in (ours, wanted)
    ]

  ours, wanted = both(query, key, value, window)
  # Sums of up to 120 terms of size 1 in another order.
  for got, oracle in zip(ours, wanted, strict=True):
    got, oracle = np.asarray(got), np.asarray(oracle)
    if got.ndim == 5:
      got, oracle = got * real, oracle * real
    assert np.abs(oracle).max() > 1
    np.testing.assert_allclose(got, oracle, atol=2e-5)


def test_what_is_not_on_the_path_is_never_read():
  batch = _batch('packed')
  (query, key, value, cotangent), real = _inputs(batch)
  seen = sight(batch.positions, batch.group, batch.branch, batch.blocks)
  assert seen.way == 'blocks'
  row, end = 0, batch.tokens.shape[1]
  group, branch = batch.group[row], batch.branch[row]
  middle = int(np.flatnonzero((group == 2) & (branch == 1))[0])
  visible = np.asarray(visibility(batch.group, batch.branch))[row, middle]
  elsewhere = jnp.asarray(~visible)[None, :, None, None]

  def at(key, value):
    return attend(query, key, value, seen, scale=0.7)[row, middle]

  def poisoned(array):
    return jnp.where(
      elsewhere,
      1e4 * jnp.sin(jnp.arange(1.0, end + 1))[None, :, None, None],
      array,
    )

  before = at(key, value)
  np.testing.assert_array_equal(before, at(poisoned(key), poisoned(value)))
  grads = jax.grad(lambda k, v: jnp.sum(jnp.sin(at(k, v))), (0, 1))(key, value)
  for grad in grads:
    size = np.abs(np.asarray(grad)).sum((2, 3))
    assert (size[row, ~visible] == 0).all()
    assert (size[row, visible] > 0).all()


def test_rows_of_padding_are_finite_and_without_gradient():
  batch = _batch('shared')
  assert (batch.group[-1] == 0).all()
  (query, key, value, cotangent), _ = _inputs(batch)
  seen = sight(batch.positions, batch.group, batch.branch, batch.blocks)
  out, pull = jax.vjp(
    lambda *arrays: attend(*arrays, seen, scale=0.7), query, key, value
  )
  assert np.isfinite(out).all()
  for grad in pull(cotangent):
    assert np.isfinite(grad).all()
    np.testing.assert_array_equal(grad[-1], 0.0)


@pytest.mark.parametrize('packing', PACKINGS)
def test_lists_hold_exactly_the_blocks_that_see_each_other(packing):
  batch = _batch(packing)
  listed, (rows, length) = batch.blocks, batch.tokens.shape
  count = listed.place.shape[1]
  visible = np.asarray(visibility(batch.group, batch.branch))
  visible = visible & (batch.group > 0)[:, :, None]
  missing = count * SIZE - length
  visible = np.pad(visible, ((0, 0), (0, missing), (0, missing)))
  wanted = visible.reshape(rows, count, SIZE, count, SIZE).any((2, 4))
  got = np.zeros_like(wanted)
  first = 0
  for queries, keys in zip(listed.queries, listed.keys, strict=True):
    for row, at in itertools.product(range(rows), range(queries.shape[1])):
      query = queries[row, at]
      seen = keys[row, at][keys[row, at] < count]
      if query == count:
        assert not seen.size
        continue
      assert listed.place[row, query] == first + at
      assert not got[row, query].any()
      got[row, query, seen] = True
    first += queries.shape[1]
  np.testing.assert_array_equal(got, wanted)
  assert (listed.place[~wanted.any(-1)] == first).all()


@pytest.mark.parametrize('packing', ['padded', 'packed'])
def test_planned_lists_hold_every_batch(packing):
  table = tabulate(_groups(count=80, shortest=30, seed=3))
  batches = np.random.default_rng(0).permutation(80).reshape(2, 40)
  capacity = capacity_for(
    table, packing=packing, batch_size=40, planned=list(batches)
  )
  scores = sum(n * width for n, width in capacity.blocks.lists)
  scores *= capacity.blocks.size**2
  assert scores < 0.6 * capacity.tokens**2
  for members in batches:
    batch = lay_out_rows(table, members, capacity, packing)
    visible = np.asarray(visibility(batch.group, batch.branch)).sum((1, 2))
    assert visible.max() < scores


def test_rows_that_see_more_than_planned_are_refused():
  table = tabulate(_groups(count=16, shortest=30))
  capacity = capacity_for(
    table, packing='packed', batch_size=16, planned=[np.arange(16)]
  )
  (count, width), *rest = capacity.blocks.lists
  narrow = capacity.blocks._replace(lists=((count, width - 1), *rest))
  with pytest.raises(LayoutError, match='row 0 does not fit: its attention'):
    lay_out(table, dataclasses.replace(capacity, blocks=narrow), 'packed')


def test_short_rows_have_no_lists():
  groups = _groups(longest=8)
  capacity = capacity_for(groups, packing='shared', batch_size=4)
  assert capacity.blocks is None
  batch = lay_out(groups[:4], capacity, 'shared')
  arrays = batch.positions, batch.group, batch.branch, batch.blocks
  assert sight(*arrays).way == 'dense'
  with pytest.raises(ValueError, match="attention='blocks': want a batch"):
    sight(*arrays, attention='blocks')
  with pytest.raises(ValueError, match="must be one of .* got 'flash'"):
    sight(*arrays, attention='flash')

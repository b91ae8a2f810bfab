"""Numbers per completion: sums, lengths in common, poison, layouts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import collect
from alignment.roles.policy import (
  completion_numbers,
  completion_sums,
  shared_lengths,
)
from tests.roles.worlds import MODEL, batch_of, pairs

PARAMS = MODEL.init(jax.random.key(0))
GROUPS = pairs(9)
LENGTHS = np.array([[len(c) for c in g.completions] for g in GROUPS])


def table_of(batch, values):
  table = np.full((len(GROUPS), 2), np.nan)
  collect(batch, np.asarray(values), table)
  return table


def token_values(batch):
  return np.random.default_rng(1).normal(size=batch.slot.shape)


@pytest.mark.parametrize('packing', ['padded', 'shared', 'packed'])
def test_sums_are_sums_of_each_completion(packing):
  batch = batch_of(GROUPS, 1, packing)
  values = token_values(batch).astype(np.float32)
  found = completion_sums(values, batch)
  slots = batch.completions.length.shape[1]
  for row in range(values.shape[0]):
    for slot in range(slots):
      wanted = values[row][batch.slot[row] == slot].sum(dtype=np.float64)
      np.testing.assert_allclose(found[row, slot], wanted, atol=1e-6)


@pytest.mark.parametrize('packing', ['padded', 'shared', 'packed'])
def test_length_desensitised_sums(packing):
  batch = batch_of(GROUPS, 1, packing)
  shared = table_of(batch, shared_lengths(batch))
  np.testing.assert_array_equal(
    shared, np.repeat(LENGTHS.min(1)[:, None], 2, axis=1)
  )
  numbers = completion_numbers(MODEL, ('token_logps',), ld_alpha=0.25)
  found = numbers(PARAMS, batch, None)
  tokens = np.asarray(found['token_logps'], np.float64)
  wanted = np.zeros(found['logps'].shape)
  for row, slot in np.argwhere(batch.completions.length > 0):
    own = tokens[row][batch.slot[row] == slot]
    first = shared_lengths(batch)[row, slot]
    wanted[row, slot] = own[:first].sum() + 0.25 * own[first:].sum()
  np.testing.assert_allclose(found['ld_logps'], wanted, rtol=1e-5, atol=1e-5)
  assert not np.allclose(found['ld_logps'], found['logps'])


def test_packings_give_the_same_logps():
  numbers = completion_numbers(MODEL)
  tables = []
  for packing in ('padded', 'shared', 'packed'):
    batch = batch_of(GROUPS, 1, packing)
    tables.append(table_of(batch, numbers(PARAMS, batch, None)['logps']))
  assert np.isfinite(tables[0]).all()
  np.testing.assert_allclose(tables[1], tables[0], rtol=1e-6)
  np.testing.assert_allclose(tables[2], tables[0], rtol=1e-6)


def test_padding_and_neighbours_may_be_poison():
  batch = batch_of(GROUPS, 16, 'packed')
  slots = batch.completions.length.shape[1]
  values = token_values(batch).astype(np.float32)
  clean = completion_sums(values, batch)
  poisoned = np.where(batch.slot == slots, np.nan, values)
  np.testing.assert_array_equal(completion_sums(poisoned, batch), clean)
  # A NaN of one completion stays in that completion, gradients included.
  row, entry = np.argwhere(batch.slot < slots)[0]
  poisoned = values.copy()
  poisoned[row, entry] = np.nan
  broken = np.isnan(completion_sums(poisoned, batch))
  assert broken.sum() == 1
  assert broken[row, batch.slot[row, entry]]

  def squares(values):
    return jnp.sum(completion_sums(values, batch)[row, 1:] ** 2)

  assert np.isfinite(jax.grad(squares)(jnp.asarray(poisoned))).all()

"""Scores keyed by index: any layout, any order."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from alignment.roles.scoring import (
  completion_logps,
  evaluate,
  preference_margin,
  with_reference,
)
from tests.roles.worlds import MODEL, batch_of, pairs

PARAMS = MODEL.init(jax.random.key(0))
GROUPS = pairs(12)


def batches(packing, order):
  shuffled = [GROUPS[i] for i in order]
  return [batch_of(shuffled[i : i + 4], 1, packing) for i in (0, 4, 8)]


@pytest.fixture(scope='module')
def table():
  return completion_logps(MODEL, PARAMS, batches('shared', range(12)))


def test_tables_do_not_depend_on_layout_or_order(table):
  assert table.shape == (12, 2) and table.dtype == np.float32
  assert np.isfinite(table).all()
  order = np.random.default_rng(0).permutation(12)
  for packing in ('padded', 'packed'):
    other = completion_logps(MODEL, PARAMS, batches(packing, order))
    np.testing.assert_allclose(other, table, rtol=1e-6)


def test_missing_examples_are_nan(table):
  found = completion_logps(MODEL, PARAMS, batches('shared', range(12))[1:])
  assert np.isnan(found[:4]).all()
  np.testing.assert_array_equal(found[4:], table[4:])


def test_reference_is_filled_by_content(table):
  for batch in with_reference(MODEL, PARAMS, batches('packed', range(12))):
    examples = batch.examples
    row, column = np.nonzero(examples.index >= 0)
    index = examples.index[row, column]
    chosen = batch.completions.reference_logps[
      row, examples.chosen[row, column]
    ]
    wanted = [table[i, GROUPS[i].chosen] for i in index]
    np.testing.assert_allclose(chosen, wanted, rtol=1e-6)


def test_rows_are_sorted_by_index(table):
  order = np.random.default_rng(1).permutation(12)
  rows = evaluate(
    MODEL,
    PARAMS,
    batches('packed', order),
    method='dpo',
    hyper={'beta': 0.3},
  )
  np.testing.assert_array_equal(rows['index'], np.arange(12))
  reference = np.array([g.reference_logps for g in GROUPS])
  rewards = 0.3 * (table - reference)
  at = np.arange(12), np.array([g.chosen for g in GROUPS])
  other = np.arange(12), np.array([g.rejected for g in GROUPS])
  np.testing.assert_allclose(rows['logps/chosen'], table[at], rtol=1e-6)
  np.testing.assert_allclose(
    rows['rewards/margins'], rewards[at] - rewards[other], rtol=1e-4, atol=1e-5
  )


def test_margins_are_the_method_s_own(table):
  reference = np.array([g.reference_logps for g in GROUPS])
  lengths = np.array([[len(c) for c in g.completions] for g in GROUPS])
  dpo = preference_margin('dpo', table, reference, lengths, {'beta': 0.3})
  ratio = table - reference
  np.testing.assert_allclose(dpo, 0.3 * (ratio[:, 0] - ratio[:, 1]), rtol=1e-5)
  simpo = preference_margin('simpo', table, reference, lengths, {'beta': 2.0})
  per_token = table / lengths
  np.testing.assert_allclose(
    simpo, 2.0 * (per_token[:, 0] - per_token[:, 1]), rtol=1e-5, atol=1e-5
  )

"""Results do not depend on the layout, and nothing reads padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import (
  capacity_for,
  collect,
  fill_reference,
  lay_out,
  relabel,
)
from alignment.data.packing import PACKINGS
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.hashed import HashedConfig
from alignment.roles.learner import (
  LOG_SUM_SQUARES,
  preference_objective,
  sft_objective,
)
from alignment.roles.policy import completion_numbers
from alignment.training.step import total_loss
from tests.groups import random_groups

NAMES = sorted(PACKINGS)
NUM_GROUPS = 11
VOCAB_SIZE = 23
CONFIGS = {
  'transformer': TransformerConfig(
    vocab_size=VOCAB_SIZE,
    width=16,
    depth=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_width=24,
    head='both',
  ),
  'hashed': HashedConfig(VOCAB_SIZE),
}
OBJECTIVES = {
  'sft': sft_objective,
  'dpo': dict(method='dpo', nll_coefficient=0.3),
  'rdpo': dict(method='rdpo'),
  'wpo': dict(method='ipo', wpo=True),
  'simpo': dict(method='simpo'),
  'aot_unpaired': dict(method='aot_unpaired'),
  'dr_dpo': dict(method='dpo', aggregate='dr_dpo'),
  'kldpo': dict(method='dpo', aggregate='kldpo'),
  'wdpo': dict(method='dpo', aggregate='wdpo'),
  'trimmed': dict(method='holder_dpo', aggregate='trimmed'),
}


@functools.cache
def model_and_params(family):
  model = build(CONFIGS[family])
  params = model.init(jax.random.key(3))
  rng = np.random.default_rng(4)  # away from zeros and ones
  return model, jax.tree.map(
    lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32), params
  )


@functools.cache
def batches(weighted, smoothed, completions=2):
  """One data set in every packing, with empty rows and slots in each."""
  groups = random_groups(
    np.random.default_rng(17), NUM_GROUPS, completions=(completions,) * 2
  )
  plain = {'weight': 1.0, 'coefficient': 1.0} if not weighted else {}
  plain |= {} if smoothed else {'label_smoothing': 0.0}
  groups = [dataclasses.replace(group, **plain) for group in groups]
  found = {}
  for name in NAMES:
    capacity = capacity_for(
      groups,
      packing=name,
      batch_size=NUM_GROUPS,
      row_multiple=4,
      max_row_length=60,
    )
    found[name] = lay_out(groups, capacity, name)
    assert (found[name].examples.index < 0).any()
  return found


def poisoned(batch, seed):
  """The batch with noise wherever it holds nothing."""
  rng = np.random.default_rng(seed)

  def fill(array, empty, high):
    if array.dtype == np.float32:
      return np.where(empty, np.float32(np.nan), array)
    noise = rng.integers(0, high, array.shape)
    return np.where(empty, noise, array).astype(np.int32)

  slots = batch.completions.length.shape[1]
  tokens, targets = batch.group == 0, batch.slot == slots
  no_example = batch.examples.index < 0
  vacant = batch.completions.length == 0
  assert all(e.any() for e in (tokens, targets, no_example)), (
    'nothing to poison'
  )
  examples = {
    field: fill(getattr(batch.examples, field), no_example, slots)
    for field in ('chosen', 'rejected', 'coefficient', 'annotator_id')
    + ('label_prob', 'label_smoothing')
  }
  completions = {
    field: fill(getattr(batch.completions, field), vacant, 1)
    for field in ('reference_logps', 'reward', 'advantage')
  }
  return batch.replace(
    tokens=fill(batch.tokens, tokens, VOCAB_SIZE),
    positions=fill(batch.positions, tokens, 50),
    branch=fill(batch.branch, tokens, 3),
    source=fill(batch.source, targets, batch.tokens.shape[1]),
    target=fill(batch.target, targets, VOCAB_SIZE),
    examples=batch.examples.replace(**examples),
    completions=batch.completions.replace(**completions),
  )


@functools.cache
def forward_and_pullback(family):
  model, _ = model_and_params(family)
  more = () if family == 'hashed' else (LOG_SUM_SQUARES,)
  numbers = completion_numbers(model, more)

  def pull(params, batch, cotangent):
    _, vjp = jax.vjp(lambda p: numbers(p, batch, None), params)
    return vjp(cotangent)[0]

  return jax.jit(lambda p, b: numbers(p, b, None)), jax.jit(pull)


@functools.cache
def loss_of_numbers(family, case):
  model, _ = model_and_params(family)
  how = OBJECTIVES[case]
  objective = (
    how(model) if callable(how) else preference_objective(model, **how)
  )

  def loss(numbers, batch):
    value, (_, metrics) = total_loss(objective, batch, {}, numbers)
    return value, {name: metric.mean() for name, metric in metrics.items()}

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def loss_and_gradient(family, case, batch):
  """The loss of a whole batch with its metrics, and its gradient."""
  _, params = model_and_params(family)
  forward, pull = forward_and_pullback(family)
  numbers = forward(params, batch)
  value, cotangent = loss_of_numbers(family, case)(numbers, batch)
  return value, pull(params, batch, cotangent)


def assert_close(one, other):
  """Equal but for the order of float32 sums: by norm, leaf by leaf."""
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(one),
    jax.tree.leaves(other),
    strict=True,
  ):
    assert np.isfinite(a).all() and np.isfinite(b).all(), path
    gap = np.linalg.norm(np.asarray(a) - np.asarray(b))
    assert gap <= 2e-5 * np.linalg.norm(a) + 1e-7, (path, gap)


def of_case(case):
  return batches(case != 'aot_unpaired', case == 'rdpo')


SLOW = ('rdpo', 'simpo', 'kldpo', 'wdpo', 'trimmed')
CASES = [
  pytest.param(
    'transformer', case, marks=[pytest.mark.slow] if case in SLOW else []
  )
  for case in OBJECTIVES
] + [('hashed', 'simpo')]


@pytest.mark.parametrize('family, case', CASES)
def test_loss_and_gradient_depend_on_neither_packing_nor_padding(family, case):
  found = of_case(case)
  value, gradient = loss_and_gradient(family, case, found['padded'])
  assert any(np.linalg.norm(leaf) > 1e-3 for leaf in jax.tree.leaves(gradient))
  for name in NAMES:
    clean = loss_and_gradient(family, case, found[name])
    assert_close((value, gradient), clean)
    # One program, so bitwise: what is multiplied by 0 is finite and unread.
    dirty = loss_and_gradient(family, case, poisoned(found[name], 5))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


@pytest.mark.parametrize('family', sorted(CONFIGS))
def test_numbers_of_completions_depend_on_neither(family):
  model, params = model_and_params(family)
  forward, _ = forward_and_pullback(family)
  rewards = jax.jit(model.rewards)
  readers = {
    'logps': lambda batch: forward(params, batch)['logps'],
    'rewards': lambda batch: rewards(params, batch),
  }
  for kind, read in readers.items():
    tables = {}
    for name, batch in batches(True, True, completions=3).items():
      values = read(batch)
      np.testing.assert_array_equal(read(poisoned(batch, 6)), values)
      tables[name] = np.full((NUM_GROUPS, 3), np.nan)
      collect(batch, values, tables[name])
    assert np.std(tables['padded']) > 0.1, kind
    for name in ('shared', 'packed'):
      np.testing.assert_allclose(
        tables[name], tables['padded'], rtol=2e-5, atol=2e-6, err_msg=kind
      )


def test_logps_equal_those_of_each_text_alone():
  """A layout with one completion in one row has nothing to get wrong."""
  _, params = model_and_params('transformer')
  forward, _ = forward_and_pullback('transformer')
  groups = random_groups(np.random.default_rng(2), 4, completions=(2, 3))
  alone = [
    dataclasses.replace(
      group,
      completions=(text,),
      index=i,
      chosen=0,
      reference_logps=None,
      rewards=None,
    )
    for i, (group, text) in enumerate(
      (group, text) for group in groups for text in group.completions
    )
  ]
  single = lay_out(
    alone,
    capacity_for(alone, packing='padded', batch_size=len(alone)),
    'padded',
  )
  assert single.group.max() == 1 and single.branch.max() == 1
  wanted = np.asarray(forward(params, single)['logps'])[:, 0]
  batch = lay_out(
    groups,
    capacity_for(groups, packing='packed', batch_size=4, max_row_length=50),
    'packed',
  )
  table = np.full((4, 3), np.nan)
  collect(batch, forward(params, batch)['logps'], table)
  np.testing.assert_allclose(
    table[np.isfinite(table)], wanted, rtol=2e-5, atol=2e-6
  )


def test_reference_read_by_index_fits_every_packing():
  table = np.random.default_rng(1).normal(-9, 2, (NUM_GROUPS, 2))
  values = [
    loss_and_gradient('transformer', 'dpo', fill_reference(batch, table))[0]
    for batch in batches(True, False).values()
  ]
  plain = loss_and_gradient(
    'transformer', 'dpo', batches(True, False)['padded']
  )
  assert abs(values[0][0] - plain[0][0]) > 1e-3
  assert_close(values[0], values[1])
  assert_close(values[0], values[2])


def test_flip_swaps_two_indices_and_nothing_else():
  flips = np.arange(NUM_GROUPS) % 3 == 0
  reports = []
  for batch in batches(True, False).values():
    flipped = relabel(batch, is_flipped=flips)
    (_, before), _ = loss_and_gradient('transformer', 'dpo', batch)
    (_, after), _ = loss_and_gradient('transformer', 'dpo', flipped)
    reports.append(after)
    weight = batch.examples.weight
    share = np.where(
      np.isin(batch.examples.index, np.flatnonzero(flips)), weight, 0
    )
    assert 0 < share.sum() < weight.sum()
    assert before['rewards/margins'] != after['rewards/margins']
    for name in ('logps', 'rewards'):  # the sum over a pair stays
      sums = [
        report[f'{name}/chosen'] + report[f'{name}/rejected']
        for report in (before, after)
      ]
      np.testing.assert_allclose(*sums, rtol=1e-5)
  assert_close(reports[0], reports[1])
  assert_close(reports[0], reports[2])
  assert jnp.isfinite(reports[0]['rewards/margins'])

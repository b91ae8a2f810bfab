"""Objectives: values at the start, weights, refusals, poison, separability."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.preference import METHODS, hyperparameters, reads
from alignment.roles.learner import preference_objective, sft_objective
from alignment.roles.reference import keep_batch
from alignment.training.mesh import jit_step
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step, total_loss
from alignment.types import Batch, Frozen
from tests.roles.worlds import (
  MODEL,
  batch_of,
  flat,
  frozen,
  pairs,
  unit_pairs,
)

KEY = jax.random.key(0)
PARAMS = MODEL.init(jax.random.key(0))
RNG = np.random.default_rng(4)
SMOOTH = 0.2

LOGISTIC = {'dpo', 'cdpo', 'rdpo', 'forward', 'soft_label', 'dpo_pro'}
LOGISTIC |= {'sigmoid_norm', 'aot', 'aot_unpaired'}


def batch_for(method: str, **fields) -> Batch:
  smooth = SMOOTH if 'label_smoothing' in reads(method) else 0.0
  return batch_of(unit_pairs(11, label_smoothing=smooth, **fields))


def value(objective, numbers, batch, **hyper):
  return total_loss(objective, batch, frozen(**hyper).hyper, numbers)[0]


def random_logps(batch, scale=1.0):
  logps = scale * RNG.normal(size=batch.completions.length.shape) - 5.0
  return {'logps': jnp.asarray(logps, jnp.float32)}


@pytest.mark.parametrize(
  'method', [m for m in METHODS if 'reference_chosen_logps' in reads(m)]
)
def test_the_loss_of_the_reference_is_the_loss_at_zero(method):
  batch = batch_for(method)
  objective = preference_objective(MODEL, method)
  start = {'logps': jnp.asarray(batch.completions.reference_logps)}
  found = value(objective, start, batch)
  zeros = {name: jnp.zeros(1) for name in reads(method)}
  given = {
    'chosen_lengths': jnp.ones(1),
    'rejected_lengths': jnp.ones(1),
    'label_smoothing': jnp.full(1, SMOOTH),
    'label_prob': jnp.ones(1),
    'mask': jnp.ones(1, bool),
  }
  zeros |= {name: given[name] for name in reads(method) if name in given}
  np.testing.assert_allclose(found, METHODS[method](**zeros)[0], rtol=1e-5)
  if method in LOGISTIC:
    np.testing.assert_allclose(found, math.log(2), rtol=1e-5)


def gradients(objective, numbers, batch):
  return jax.grad(lambda n: value(objective, n, batch))(numbers)['logps']


@pytest.mark.parametrize('method', METHODS)
def test_separable_means_no_row_moves_another(method):
  batch = batch_for(method)
  objective = preference_objective(MODEL, method)
  numbers = random_logps(batch)
  moved = {'logps': numbers['logps'].at[0].add(jnp.array([2.0, -1.0]))}
  before, after = jax.jit(
    lambda a, b: tuple(gradients(objective, n, batch) for n in (a, b))
  )(numbers, moved)
  others = np.abs(np.asarray(before - after))[1:].max()
  assert objective.separable == (others == 0), others
  assert np.abs(before).max() > 0


@pytest.mark.parametrize(
  'aggregate', ['dr_dpo', 'kldpo', 'wdpo', 'winsor', 'trimmed']
)
def test_coupled_aggregates_say_so(aggregate):
  batch = batch_for('dpo')
  objective = preference_objective(MODEL, 'dpo', aggregate=aggregate)
  assert not objective.separable
  numbers = random_logps(batch, 5.0)
  # The largest loss becomes the smallest: every rank below it moves up.
  real = batch.examples.weight[:, 0] > 0
  losses = numpy_dpo(batch, numbers['logps'], 0.1)
  at = int(np.argmax(np.where(real, losses, -np.inf)))
  up = 60.0 * jax.nn.one_hot(batch.examples.chosen[at, 0], 2)
  moved = {'logps': numbers['logps'].at[at].add(up)}
  before, after = (gradients(objective, n, batch) for n in (numbers, moved))
  others = np.delete(np.asarray(before - after), at, axis=0)
  assert np.abs(others).max() > 1e-6


def test_packings_give_the_same_gradient():
  groups = pairs(9)
  objective = preference_objective(MODEL, 'ipo', nll_coefficient=0.3)
  found = []
  for packing in ('padded', 'shared', 'packed'):
    batch = batch_of(groups, 1, packing)

    def loss(params, batch=batch):
      return value(objective, objective.numbers(params, batch, KEY), batch)

    result, grads = jax.jit(jax.value_and_grad(loss))(PARAMS)
    found.append(np.append(flat(grads), result))
  size = np.linalg.norm(found[0])
  np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-6 * size)
  np.testing.assert_allclose(found[2], found[0], rtol=0, atol=1e-6 * size)


def numpy_dpo(batch, logps, beta):
  """Per-pair DPO losses in float64, by row, in example order."""
  ratio = np.asarray(logps, float) - batch.completions.reference_logps
  row = np.arange(len(ratio))
  examples = batch.examples
  h = ratio[row, examples.chosen[:, 0]] - ratio[row, examples.rejected[:, 0]]
  return np.log1p(np.exp(-beta * h))


def test_weight_is_multiplicity_and_coefficient_is_not():
  batch = batch_of(pairs(11))
  numbers = random_logps(batch)
  objective = preference_objective(MODEL, 'dpo')
  found = value(objective, numbers, batch, beta=0.4)
  real = batch.examples.weight[:, 0] > 0
  weight = batch.examples.weight[real, 0]
  losses = numpy_dpo(batch, numbers['logps'], 0.4)[real]
  scaled = losses * batch.examples.coefficient[real, 0]
  wanted = np.sum(weight * scaled) / np.sum(weight)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_label_smoothing_is_per_example():
  groups = [
    type(g)(**{**vars(g), 'label_smoothing': float(e)})
    for g, e in zip(unit_pairs(11), np.linspace(0, 0.45, 11), strict=True)
  ]
  batch = batch_of(groups)
  numbers = random_logps(batch)
  found = value(preference_objective(MODEL, 'rdpo'), numbers, batch, beta=0.4)
  real = batch.examples.weight[:, 0] > 0
  loss = numpy_dpo(batch, numbers['logps'], 0.4)[real]
  swapped = numpy_dpo(batch, numbers['logps'], -0.4)[real]
  e = batch.examples.label_smoothing[real, 0]
  wanted = np.mean(((1 - e) * loss - e * swapped) / (1 - 2 * e))
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_terms_have_their_own_normalisers():
  batch = batch_of(pairs(11))
  numbers = random_logps(batch)
  objective = preference_objective(MODEL, 'dpo', nll_coefficient=0.3)
  terms, metrics = objective.loss(numbers, batch, {})
  row = np.arange(len(batch.tokens))
  chosen = batch.examples.chosen[:, 0]
  logps = np.asarray(numbers['logps'], float)[row, chosen]
  w, c = batch.examples.weight[:, 0], batch.examples.coefficient[:, 0]
  tokens = batch.completions.length[row, chosen]
  nll = np.sum((-w * c * logps)[w > 0]) / np.sum((w * tokens)[w > 0])
  np.testing.assert_allclose(terms['nll'].value(), 0.3 * nll, rtol=1e-5)
  sft, _ = sft_objective(MODEL).loss(numbers, batch, {})
  np.testing.assert_allclose(sft['nll'].value(), nll, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['logps/chosen'].mean(),
    np.sum((w * logps)[w > 0]) / np.sum(w),
    rtol=1e-5,
  )


def test_wpo_multiplies_by_likelihood_without_gradient():
  batch = batch_of(unit_pairs(11))
  objective = preference_objective(MODEL, 'dpo', wpo=True)
  numbers = objective.numbers(PARAMS, batch, KEY)
  tokens = MODEL.statistics(
    PARAMS, batch, tuple(['token_logps', 'token_log_sum_squares'])
  )
  gain = np.asarray(tokens['token_logps'] - tokens['token_log_sum_squares'])
  factors = np.ones(len(gain))
  for row in range(len(gain)):
    for slot in (0, 1):
      own = gain[row][batch.slot[row] == slot]
      factors[row] *= np.exp(own.mean()) if own.size else 1.0
  real = batch.examples.weight[:, 0] > 0
  losses = numpy_dpo(batch, numbers['logps'], 0.1)
  found = value(objective, numbers, batch)
  wanted = np.mean((losses * factors)[real])
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  plain = {'logps': numbers['logps']}
  pulled = jax.grad(lambda n: value(objective, n, batch))(numbers)
  base = gradients(preference_objective(MODEL, 'dpo'), plain, batch)
  np.testing.assert_allclose(
    pulled['logps'], base * factors[:, None], rtol=1e-4, atol=1e-7
  )
  assert not np.any(pulled['token_log_sum_squares'])


@pytest.mark.parametrize('method', METHODS)
def test_poison_in_empty_slots_changes_nothing(method):
  batch = batch_for(method)
  objective = preference_objective(MODEL, method, nll_coefficient=0.1)
  numbers = random_logps(batch)
  empty = batch.examples.weight <= 0
  assert empty.any()

  def poison(values, where, with_):
    return np.where(where, with_, values).astype(values.dtype)

  examples = batch.examples
  poisoned = batch.replace(
    examples=examples.replace(
      **{
        name: poison(getattr(examples, name), empty, np.nan)
        for name in ('coefficient', 'label_prob', 'label_smoothing')
      },
      chosen=poison(examples.chosen, empty, 77),
      rejected=poison(examples.rejected, empty, -3),
    ),
    completions=jax.tree.map(
      lambda x: poison(x, empty, np.nan if x.dtype == np.float32 else 99),
      batch.completions,
    ),
  )
  both = jax.jit(jax.value_and_grad(lambda n, b: value(objective, n, b)))
  clean, clean_grad = both(numbers, batch)
  bad = {'logps': jnp.where(empty, jnp.nan, numbers['logps'])}
  found, found_grad = both(bad, poisoned)
  assert np.isfinite(clean)
  np.testing.assert_array_equal(found, clean)
  np.testing.assert_array_equal(found_grad['logps'], clean_grad['logps'])


def test_reference_in_step_is_the_precomputed_one():
  anchor = MODEL.init(jax.random.key(9))
  batch = batch_of(unit_pairs(11, reference_logps=None))
  assert np.isnan(batch.completions.reference_logps).any()
  for options in ({}, {'ld_alpha': 0.3}):
    live = preference_objective(MODEL, 'ipo', reference='in_step', **options)
    held = Frozen(models={'reference': anchor})
    filled, _ = live.prepare(PARAMS, held, (), batch, KEY, 0)
    numbers = live.numbers(PARAMS, batch, KEY)
    own = live.numbers(anchor, batch, KEY)
    wanted = own.get('ld_logps', own['logps'])
    np.testing.assert_array_equal(filled.completions.reference_logps, wanted)
    stored = preference_objective(MODEL, 'ipo', **options)
    assert stored.prepare is keep_batch
    assert value(live, numbers, filled) == value(stored, numbers, filled)
  with pytest.raises(ValueError, match="frozen.models\\['reference'\\]"):
    live.prepare(PARAMS, Frozen(), (), batch, KEY, 0)


def test_a_missing_reference_shows():
  batch = batch_of(unit_pairs(11, reference_logps=None))
  numbers = random_logps(batch)
  assert np.isnan(value(preference_objective(MODEL, 'dpo'), numbers, batch))
  free = preference_objective(MODEL, 'dpo', reference='none')
  filled = batch.replace(
    completions=batch.completions.replace(
      reference_logps=np.zeros_like(batch.completions.reference_logps)
    )
  )
  held = value(preference_objective(MODEL, 'dpo'), numbers, filled)
  np.testing.assert_array_equal(value(free, numbers, batch), held)


def test_divergences_replace_the_log_ratio():
  batch = batch_of(unit_pairs(11))
  numbers = random_logps(batch)
  objective = preference_objective(MODEL, 'dpo', divergence='forward_kl')
  ratio = np.asarray(numbers['logps']) - batch.completions.reference_logps
  real = batch.examples.weight[:, 0] > 0
  score = (1 - np.exp(-ratio))[real]
  row = np.arange(len(score))
  h = (
    score[row, batch.examples.chosen[real, 0]]
    - score[row, batch.examples.rejected[real, 0]]
  )
  wanted = np.mean(np.log1p(np.exp(-0.1 * h)))
  np.testing.assert_allclose(value(objective, numbers, batch), wanted, 1e-5)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'method': 'dppo'}, '--loss=dppo'),
    ({'method': 'dpo', 'aggregate': 'median'}, '--aggregate=median'),
    ({'method': 'dpo', 'reference': 'file'}, '--reference=file'),
    ({'method': 'simpo', 'reference': 'in_step'}, 'simpo takes no reference'),
    ({'method': 'dpo', 'choices': {'link': 'ramp'}}, '--link=ramp'),
    ({'method': 'dpo', 'nll_coefficient': -1.0}, 'nll_coefficient must be'),
    ({'method': 'nca', 'divergence': 'js'}, "'nca'"),
    ({'method': 'dpo', 'divergence': 'tv'}, "'tv'"),
    ({'method': 'dpo', 'ld_alpha': 1.5}, 'ld_alpha'),
  ],
)
def test_wrong_arguments_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    preference_objective(MODEL, **arguments).numbers(
      PARAMS, batch_of(pairs(3), 1), KEY
    )


@pytest.mark.parametrize(
  'method, aggregate, hyper',
  [
    ('dpo', 'mean', 'gamma'),
    ('dpo', 'mean', 'label_smoothing'),
    ('dpo', 'mean', 'beta_prime'),
    ('simpo', 'dr_dpo', 'tau'),
  ],
)
def test_unused_hyperparameters_are_refused(method, aggregate, hyper):
  objective = preference_objective(MODEL, method, aggregate=aggregate)
  batch = batch_for(method)
  with pytest.raises(ValueError, match=f'--{hyper}=.* does not use it'):
    value(objective, random_logps(batch), batch, **{hyper: 0.2})


@pytest.mark.parametrize(
  'method, fields',
  [
    ('dpo', {'label_smoothing': 0.1}),
    ('aot', {'weight': 2.0}),
    ('aot_unpaired', {'coefficient': 0.5}),
  ],
)
def test_what_a_method_cannot_honour_stops_the_update(method, fields):
  groups = unit_pairs(11)
  groups[4] = type(groups[4])(**{**vars(groups[4]), **fields})
  batch = batch_of(groups)
  optimizer = make_optimizer()
  step = jit_step(make_step(preference_objective(MODEL, method), optimizer))
  state, metrics = step(init_state(PARAMS, optimizer), frozen(), batch, KEY)
  assert bool(metrics['nonfinite'])
  assert 4 in np.asarray(metrics['nonfinite_index'])
  np.testing.assert_array_equal(flat(state.params), flat(PARAMS))


def test_every_hyperparameter_may_be_traced():
  for method in ('dpo', 'truncated_gce', 'sce', 'alphapo'):
    batch = batch_for(method)
    numbers = random_logps(batch)
    hyper = {
      name: default
      for name, default in hyperparameters(method).items()
      if isinstance(default, float)
      and name not in ('label_smoothing', 'log_zero')
    }
    objective = preference_objective(MODEL, method)
    traced = jax.jit(
      lambda h, o=objective, n=numbers, b=batch: value(o, n, b, **h)
    )
    np.testing.assert_allclose(
      traced(hyper), value(objective, numbers, batch), rtol=1e-6
    )

"""The step: exact accumulation, refused updates, streams, compile counts."""

from __future__ import annotations

import concurrent.futures
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.roles.learner import preference_objective, sft_objective
from alignment.roles.reference import keep_batch
from alignment.training.mesh import jit_step
from alignment.training.optimizer import make_optimizer, set_learning_rate
from alignment.training.step import init_state, make_step, stream_keys, update
from alignment.types import Objective, Term, Weighted
from tests.roles.worlds import (
  MODEL,
  batch_of,
  flat,
  frozen,
  pairs,
  unit_pairs,
)

KEY = jax.random.key(3)
SGD = make_optimizer(name='sgd', learning_rate=1.0, max_grad_norm=None)
ADAM = make_optimizer(learning_rate=0.01)
PARAMS = MODEL.init(jax.random.key(0))
PAIRS = batch_of(pairs(13))
UNIT_PAIRS = batch_of(unit_pairs(13))
# Sums of some hundred float32 numbers in another order.
CLOSE = {'rtol': 2e-5, 'atol': 2e-6}

OBJECTIVES = {
  'dpo and nll': (
    preference_objective(MODEL, 'dpo', nll_coefficient=0.3),
    PAIRS,
    {'beta': 0.7},
  ),
  'wpo': (preference_objective(MODEL, 'ipo', wpo=True), PAIRS, {}),
  'ld': (preference_objective(MODEL, 'cpo', ld_alpha=0.3), PAIRS, {}),
  'sft': (sft_objective(MODEL), PAIRS, {}),
  'dr_dpo': (
    preference_objective(MODEL, 'dpo', aggregate='dr_dpo'),
    PAIRS,
    {'beta': 0.7, 'beta_prime': 0.5},
  ),
  'kldpo': (
    preference_objective(MODEL, 'dpo', aggregate='kldpo'),
    PAIRS,
    {'beta': 0.7},
  ),
  'wdpo': (
    preference_objective(MODEL, 'dpo', aggregate='wdpo'),
    PAIRS,
    {'beta': 0.7},
  ),
  'aot_unpaired': (
    preference_objective(MODEL, 'aot_unpaired'),
    UNIT_PAIRS,
    {'beta': 0.7},
  ),
}


def run(objective, batch, hyper, microbatches=1):
  """One SGD step of rate 1: gradient, loss, metrics."""
  step = jit_step(make_step(objective, SGD, microbatches=microbatches))
  state, metrics = step(init_state(PARAMS, SGD), frozen(**hyper), batch, KEY)
  return flat(PARAMS) - flat(state.params), metrics


@pytest.mark.parametrize('name', OBJECTIVES)
def test_microbatches_are_the_whole_batch(name):
  objective, batch, hyper = OBJECTIVES[name]
  whole, metrics = run(objective, batch, hyper)
  assert np.abs(whole).max() > 1e-3
  norm = np.linalg.norm(whole)
  np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-5)
  parts, others = run(objective, batch, hyper, 4)
  # Cancelling sums: compare with the size of the gradient.
  np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5 * norm)
  for key in metrics:
    a, b = flat(metrics[key]), flat(others[key])
    np.testing.assert_allclose(a, b, **CLOSE, err_msg=key)


@pytest.mark.parametrize('name', ['dr_dpo', 'kldpo', 'aot_unpaired'])
def test_naive_accumulation_would_be_another_gradient(name):
  objective, batch, hyper = OBJECTIVES[name]
  assert not objective.separable
  exact, _ = run(objective, batch, hyper)
  wrongly = objective._replace(separable=True)
  naive, _ = run(wrongly, batch, hyper, 4)
  gap = np.linalg.norm(naive - exact) / np.linalg.norm(exact)
  assert gap > 0.01, gap


def test_gradient_is_that_of_the_plain_loss():
  objective, batch, hyper = OBJECTIVES['dr_dpo']

  def plain(params):
    numbers = objective.numbers(params, batch, KEY)
    terms, _ = objective.loss(numbers, batch, frozen(**hyper).hyper)
    return sum(term.value() for term in terms.values())

  value, grads = jax.jit(jax.value_and_grad(plain))(PARAMS)
  found, metrics = run(objective, batch, hyper)
  np.testing.assert_allclose(metrics['loss'].mean(), value, rtol=1e-6)
  scale = np.linalg.norm(found)
  np.testing.assert_allclose(found, flat(grads), rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize('microbatches', [1, 4])
def test_nonfinite_update_is_refused_and_named(microbatches):
  bad = pairs(13)
  bad[5] = type(bad[5])(**{**vars(bad[5]), 'reference_logps': (np.nan, -3.0)})

  def prepare(params, frozen, extra, batch, key, step):
    return batch, extra + 1

  objective = preference_objective(MODEL, 'dpo')._replace(prepare=prepare)
  step = jit_step(make_step(objective, ADAM, microbatches=microbatches))
  start = init_state(PARAMS, ADAM, extra=jnp.zeros(()))
  before = jax.tree.map(np.asarray, start)
  state, metrics = step(start, frozen(), batch_of(bad), KEY)
  assert bool(metrics['nonfinite'])
  assert set(np.ravel(metrics['nonfinite_index'])) == {-1, 5}
  assert int(state.step) == 1
  kept = before.replace(step=np.int32(1))
  jax.tree.map(np.testing.assert_array_equal, state, kept)
  state, metrics = step(state, frozen(), PAIRS, KEY)
  assert not bool(metrics['nonfinite'])
  assert (np.asarray(metrics['nonfinite_index']) == -1).all()
  assert float(state.extra) == 1
  assert np.abs(flat(state.params) - flat(PARAMS)).max() > 0


def test_numbers_are_blamed_before_cotangents():
  def numbers(params, batch, key):
    broken = batch.examples.index[:, 0] == 7
    return {'x': jnp.where(broken, jnp.nan, 1.0) * params['w'][0] ** 2}

  def coupled(numbers, batch, hyper):
    total = jnp.sum(numbers['x']) ** 2
    return {'square': Term(total, jnp.float32(1.0))}, {}

  objective = Objective(keep_batch, numbers, coupled, separable=False)
  step = jit_step(make_step(objective, SGD, microbatches=2))
  state = init_state({'w': jnp.ones(2)}, SGD)
  _, metrics = step(state, frozen(), PAIRS, KEY)
  assert set(np.ravel(metrics['nonfinite_index'])) == {-1, 7}


def test_random_draws_do_not_depend_on_microbatches():
  def numbers(params, batch, key):
    fold = functools.partial(jax.random.fold_in, key)
    draws = jax.vmap(lambda i: jax.random.normal(fold(i)))
    return {'x': params['w'] @ jnp.ones(2) * draws(batch.examples.index[:, 0])}

  def total(numbers, batch, hyper):
    weight = batch.examples.weight[:, 0]
    square = jnp.sum(weight * numbers['x'] ** 2)
    return {'square': Term(square, jnp.sum(weight))}, {}

  objective = Objective(keep_batch, numbers, total)
  losses = []
  for count in (1, 4):
    step = jit_step(make_step(objective, SGD, microbatches=count))
    state, found = init_state({'w': jnp.ones(2) / 9}, SGD), []
    for _ in range(2):
      state, metrics = step(state, frozen(), PAIRS, KEY)
      found.append(float(metrics['loss'].mean()))
    losses.append(found)
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
  keys = [
    stream_keys(KEY, s)[n] for s in (0, 1) for n in ('prepare', 'numbers')
  ]
  assert len({bytes(np.asarray(jax.random.key_data(k))) for k in keys}) == 4


def test_sweeps_compile_once():
  traces = []
  objective = preference_objective(MODEL, 'rdpo')

  def counted(numbers, batch, hyper):
    traces.append(1)
    return objective.loss(numbers, batch, hyper)

  step = jit_step(make_step(objective._replace(loss=counted), ADAM))
  losses, traced = set(), []
  for beta, rate, assumed in ((0.1, 1e-3, 0.1), (0.5, 1e-2, 0.3)):
    state = init_state(PARAMS, ADAM)
    state = state.replace(opt_state=set_learning_rate(state.opt_state, rate))
    batch = batch_of(pairs(13, label_smoothing=assumed))
    for _ in range(3):
      state, metrics = step(state, frozen(beta=beta), batch, KEY)
      traced.append(len(traces))
    losses.add(float(metrics['loss'].mean()))
  # One trace calls the loss more than once; what follows never does.
  assert len(losses) == 2
  assert traced[0] == traced[-1] > 0


def test_donated_states_leave_their_start_alone():
  step = jit_step(make_step(preference_objective(MODEL, 'dpo'), ADAM))
  ends = []
  for _ in range(2):
    state = init_state(PARAMS, ADAM)
    state, _ = step(state, frozen(), PAIRS, KEY)
    ends.append(flat(state.params))
  np.testing.assert_array_equal(*ends)
  assert np.isfinite(flat(PARAMS)).all()


def test_seeds_together_are_seeds_one_by_one():
  step = jit_step(make_step(preference_objective(MODEL, 'dpo'), ADAM))
  batches = {seed: batch_of(pairs(13, seed)) for seed in range(4)}

  def train(seed):
    state = init_state(MODEL.init(jax.random.key(seed)), ADAM)
    for _ in range(5):
      state, _ = step(state, frozen(), batches[seed], jax.random.key(seed))
    return flat(state.params)

  alone = [train(seed) for seed in range(4)]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    together = list(pool.map(train, range(4)))
  np.testing.assert_array_equal(alone, together)


def test_seeds_stacked_are_seeds_one_by_one():
  step = make_step(preference_objective(MODEL, 'dpo'), SGD)
  states = [init_state(MODEL.init(jax.random.key(s)), SGD) for s in range(3)]
  # One capacity serves a stack: the same texts, other labels.
  flips = [PAIRS.examples.chosen, PAIRS.examples.rejected]
  batches = [
    PAIRS.replace(
      examples=PAIRS.examples.replace(
        chosen=flips[i % 2], rejected=flips[1 - i % 2]
      )
    )
    for i in range(3)
  ]
  stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
  together, _ = jax.jit(
    lambda states, batches: jax.lax.map(
      lambda pair: step(pair[0], frozen(), pair[1], KEY),
      (states, batches),
      batch_size=2,
    )
  )(jax.tree.map(stack, *states), jax.tree.map(stack, *batches))
  single = jit_step(step)
  for i, state in enumerate(states):
    alone, _ = single(state, frozen(), batches[i], KEY)
    own = jax.tree.map(lambda x, i=i: x[i], together.params)
    np.testing.assert_allclose(flat(own), flat(alone.params), **CLOSE)


def test_microbatches_must_divide_the_rows():
  objective = preference_objective(MODEL, 'dpo')
  with pytest.raises(ValueError, match='microbatches must be ≥ 1, got 0'):
    make_step(objective, SGD, microbatches=0)
  step = make_step(objective, SGD, microbatches=3)
  with pytest.raises(ValueError, match='microbatches = 3 .* got 16 rows'):
    step(init_state(PARAMS, SGD), frozen(), PAIRS, KEY)


def test_the_state_is_updated_in_place():
  params = {'matrix': jnp.ones((256, 512)), 'other': jnp.ones((512, 256))}
  state = init_state(params, ADAM)

  def step(state, grads):
    loss = {'loss': Weighted(jnp.float32(1.0), jnp.float32(1.0))}
    return update(state, ADAM, grads, (), loss)

  compiled = jax.jit(step, donate_argnums=0).lower(state, params).compile()
  memory = compiled.memory_analysis()
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  # Parameters and both moments; no copy of any of them is made on the way.
  assert memory.alias_size_in_bytes >= 3 * size
  assert memory.temp_size_in_bytes < size / 10

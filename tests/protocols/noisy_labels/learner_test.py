"""The learner against plain steps, and what its schemes leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alignment.losses.classification import CLASSIFICATION
from alignment.protocols.noisy_labels import learner
from alignment.protocols.noisy_labels.plan import Plan, orders

RNG = np.random.default_rng(5)
SIZE, FEATURES, CLASSES = 40, 6, 3
X = jnp.asarray(RNG.normal(size=(SIZE, FEATURES)), jnp.float32)
Y = jnp.argmax(X[:, :CLASSES], axis=1)
PLAN = Plan(5, 12, 3, 8, (1e-2,))
ORDER = orders(0, 2, SIZE, PLAN)
KEYS = tuple(jax.random.split(jax.random.key(1)))


def advance(state, targets, weights=None, share=1.0, order=ORDER, **how):
  weights = jnp.ones(SIZE) if weights is None else weights
  how = {'loss': 'cross_entropy', 'scheme': 'all', **how}
  keywords = how.pop('keywords', {})
  data = learner.Data(X, targets, weights)
  order = order[: len(state.params)]
  return learner.advance(state, data, order, share, 1e-2, keywords, **how)


def _start(num_learners=1, width=5):
  return learner.start(KEYS[:num_learners], X, width, CLASSES)


@pytest.mark.parametrize('width', [0, 5])
def test_a_plain_run_is_adam_on_the_weighted_mean(width):
  weights = jnp.asarray(RNG.uniform(0, 2, SIZE), jnp.float32)
  state = _start(width=width)
  params, optimiser = state.params[0], optax.adam(1e-2)
  opt_state = optimiser.init(params)
  for rows in ORDER[0]:

    def value(p, rows=rows):
      hidden = X[rows]
      if width:
        hidden = jnp.maximum(hidden @ p['hidden'] + p['hidden_bias'], 0)
      losses = CLASSIFICATION['cross_entropy'](
        hidden @ p['out'] + p['out_bias'], Y[rows]
      )
      return jnp.sum(weights[rows] * losses) / jnp.sum(weights[rows])

    updates, opt_state = optimiser.update(jax.grad(value)(params), opt_state)
    params = optax.apply_updates(params, updates)
  found = advance(state, (Y,), weights).params[0]
  for name in params:
    np.testing.assert_allclose(found[name], params[name], rtol=1e-4, atol=1e-6)


def test_every_class_starts_alike():
  scores = learner.logits(_start().params[0], X)
  np.testing.assert_array_equal(scores, np.zeros((SIZE, CLASSES)))


def test_rows_without_weight_do_not_matter():
  weights = jnp.asarray(np.arange(SIZE) % 2, jnp.float32)
  other = jnp.where(weights > 0, Y, (Y + 1) % CLASSES)
  one = advance(_start(), (Y,), weights).params[0]
  two = advance(_start(), (other,), weights).params[0]
  np.testing.assert_array_equal(one['out'], two['out'])


def test_small_loss_drops_the_rows_that_contradict_the_learner():
  """A learner that knows the labels learns nothing from half that are wrong."""
  state = advance(_start(), (Y,), order=jnp.tile(ORDER, (1, 40, 1)))
  scores = np.asarray(learner.logits(state.params[0], X))
  assert np.mean(scores.argmax(1) == Y) > 0.95
  # Each batch of 8 holds 4 wrong labels; the 4 smallest losses are the others.
  rows = jnp.arange(SIZE).reshape(1, 5, 8)
  wrong = jnp.where(jnp.arange(SIZE) % 2 == 0, (Y + 1) % CLASSES, Y)
  right_only = jnp.asarray(np.arange(SIZE) % 2, jnp.float32)
  kept = advance(state, (wrong,), share=0.5, order=rows, scheme='small_loss')
  told = advance(state, (wrong,), right_only, order=rows)
  for name in kept.params[0]:
    np.testing.assert_allclose(
      kept.params[0][name], told.params[0][name], rtol=1e-5, atol=1e-7
    )


def test_co_teaching_learns_what_the_other_finds_easy():
  expert = advance(_start(), (Y,), order=jnp.tile(ORDER, (1, 40, 1)))
  novice = _start(2)
  pair = learner.State(
    (novice.params[1], expert.params[0]),
    (novice.opt_state[1], expert.opt_state[0]),
    novice.table,
  )
  rows = jnp.arange(SIZE)[:8].reshape(1, 1, 8)
  rows = jnp.concatenate([rows, rows])
  wrong = jnp.where(jnp.arange(SIZE) % 2 == 0, (Y + 1) % CLASSES, Y)
  found = advance(
    pair, (wrong, wrong), share=0.5, order=rows, scheme='co_teaching'
  )
  right_only = jnp.asarray(np.arange(SIZE) % 2, jnp.float32)
  alone = learner.State(
    (novice.params[1],), (novice.opt_state[1],), novice.table
  )
  told = advance(alone, (wrong,), right_only, order=rows[:1])
  np.testing.assert_allclose(
    found.params[0]['out'], told.params[0]['out'], rtol=1e-5, atol=1e-7
  )


def test_two_linear_learners_differ_by_their_order():
  state = advance(_start(2, width=0), (Y, Y))
  assert np.abs(state.params[0]['out'] - state.params[1]['out']).max() > 1e-3


def test_elr_keeps_its_table_by_row():
  state = advance(_start(), (Y,), loss='elr')
  seen = np.isin(np.arange(SIZE), np.asarray(ORDER[0]))
  total = np.asarray(state.table).sum(axis=1)
  times = np.bincount(np.asarray(ORDER[0]).ravel(), minlength=SIZE)
  np.testing.assert_allclose(total, 1 - 0.7**times, rtol=1e-5)
  assert seen.all() and times.min() >= 2


def test_orders_are_passes_over_all_rows():
  flat = np.asarray(ORDER).reshape(2, -1)
  for row in flat:
    assert sorted(row[:SIZE]) == list(range(SIZE))
  assert np.any(flat[0] != flat[1])
  again = orders(0, 1, SIZE, PLAN)
  np.testing.assert_array_equal(again[0], ORDER[0])

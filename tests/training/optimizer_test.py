"""Optimisers: golden updates, schedules, decay mask, injected rates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.training.optimizer import (
  decays,
  make_optimizer,
  multiplier,
  set_learning_rate,
)

RNG = np.random.default_rng(0)
PARAMS = {
  'layer': {
    'up': jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
    'norm': {'scale': jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32)},
    'bias': jnp.asarray(RNG.normal(size=4), jnp.float32),
  }
}


def gradients(steps):
  return [
    jax.tree.map(
      lambda x: jnp.asarray(RNG.normal(size=x.shape) * 3, jnp.float32), PARAMS
    )
    for _ in range(steps)
  ]


def descend(optimizer, grads, rate=None):
  params, state = PARAMS, optimizer.init(PARAMS)
  if rate is not None:
    state = set_learning_rate(state, rate)
  for grad in grads:
    updates, state = optimizer.update(grad, state, params)
    params = jax.tree.map(jnp.add, params, updates)
  return params


def adamw(grads, rates, *, decay, clip, b1=0.9, b2=0.95, eps=1e-8):
  """AdamW from its paper, in float64 and per tensor."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
  leaves, tree = jax.tree.flatten(params)
  decayed = jax.tree.leaves(decays(PARAMS))
  m = [np.zeros_like(x) for x in leaves]
  v = [np.zeros_like(x) for x in leaves]
  for t, (grad, rate) in enumerate(zip(grads, rates, strict=True), 1):
    g = [np.asarray(x, np.float64) for x in jax.tree.leaves(grad)]
    norm = np.sqrt(sum(np.sum(x * x) for x in g))
    g = [x * min(1.0, clip / norm) for x in g]
    for i, x in enumerate(g):
      m[i] = b1 * m[i] + (1 - b1) * x
      v[i] = b2 * v[i] + (1 - b2) * x * x
      step = m[i] / (1 - b1**t) / (np.sqrt(v[i] / (1 - b2**t)) + eps)
      leaves[i] = leaves[i] - rate * (step + decay * decayed[i] * leaves[i])
  return jax.tree.unflatten(tree, leaves)


def test_adamw_is_its_equations():
  grads = gradients(5)
  optimizer = make_optimizer(
    learning_rate=0.7,
    schedule='linear',
    warmup_steps=2,
    num_steps=5,
    final_fraction=0.1,
    weight_decay=0.2,
    max_grad_norm=0.5,
    b2=0.95,
  )
  multipliers = np.array([0.5, 1.0, 1.0, 1 - 0.9 / 3, 1 - 1.8 / 3])
  wanted = adamw(grads, 0.05 * multipliers, decay=0.2, clip=0.5)
  found = descend(optimizer, grads, rate=0.05)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    found,
    wanted,
  )


def test_sgd_with_momentum():
  grads = gradients(3)
  found = descend(
    make_optimizer(
      name='sgd', learning_rate=0.1, momentum=0.5, max_grad_norm=None
    ),
    grads,
  )
  # Velocities g1, g2 + g1/2, g3 + g2/2 + g1/4.
  wanted = jax.tree.map(
    lambda p, a, b, c: p - 0.1 * (1.75 * a + 1.5 * b + c), PARAMS, *grads
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    found,
    wanted,
  )


def test_decay_spares_norms_and_vectors():
  assert decays(PARAMS) == {
    'layer': {'up': True, 'norm': {'scale': False}, 'bias': False}
  }


def test_cosine_ends_where_it_should():
  scale = multiplier('cosine', 4, 20, 0.2)
  values = np.array([scale(i) for i in range(26)])
  np.testing.assert_allclose(values[:4], [0.25, 0.5, 0.75, 1.0])
  np.testing.assert_allclose(values[12], 0.6, rtol=1e-6)
  np.testing.assert_allclose(values[20:], 0.2, rtol=1e-6)
  assert (np.diff(values[4:21]) < 0).all()


def test_a_new_rate_keeps_structure_and_types():
  state = make_optimizer(learning_rate=0.1).init(PARAMS)
  other = set_learning_rate(state, 0.3)
  assert jax.tree.structure(state) == jax.tree.structure(other)
  rates = [s.hyperparams['learning_rate'] for s in (state, other)]
  assert rates[0].aval == rates[1].aval
  np.testing.assert_allclose(rates, [0.1, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
  'wrong',
  [
    {'name': 'lion'},
    {'learning_rate': 0.0},
    {'schedule': 'step'},
    {'schedule': 'cosine'},
    {'schedule': 'linear', 'warmup_steps': 5, 'num_steps': 5},
    {'warmup_steps': -1},
    {'final_fraction': 1.5},
    {'max_grad_norm': 0.0},
    {'weight_decay': -0.1},
    {'b1': 1.0},
    {'momentum': -0.1},
    {'momentum': 0.9, 'name': 'adamw'},
    {'eps': 0.0},
  ],
)
def test_values_out_of_range_are_named(wrong):
  # The argument at fault is the first, or num_steps beside a schedule.
  names = '|'.join([*wrong, 'num_steps'])
  with pytest.raises(ValueError, match=f'({names}) must be'):
    make_optimizer(**wrong)


def test_a_rate_must_be_positive():
  state = make_optimizer().init(PARAMS)
  with pytest.raises(ValueError, match='learning_rate must be > 0'):
    set_learning_rate(state, -1.0)

"""pmap: losses that couple rows, repeated steps, refused rows."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest

from alignment.roles.learner import preference_objective
from alignment.training import pmap
from alignment.training.mesh import jit_step
from alignment.training.optimizer import make_optimizer
from alignment.training.step import init_state, make_step
from alignment.types import Frozen
from tests.roles.worlds import MODEL, batch_of, flat, frozen, pairs, unit_pairs

KEY = jax.random.key(0)
SGD = make_optimizer(name='sgd', learning_rate=0.5, max_grad_norm=1.0)
PARAMS = MODEL.init(jax.random.key(0))

pytestmark = pytest.mark.skipif(
  jax.device_count() < 8, reason='needs eight devices'
)


def test_the_file_stays_short():
  lines = pathlib.Path(pmap.__file__).read_text().splitlines()
  assert len(lines) <= 80


def test_a_sorting_loss_sees_every_device():
  objective = preference_objective(MODEL, 'aot', reference='in_step')
  models = {'reference': MODEL.init(jax.random.key(5))}
  held = Frozen(models=models, hyper=frozen(beta=0.6).hyper)
  batch = batch_of(unit_pairs(13, reference_logps=None))
  one, many = (
    jit_step(make_step(objective, SGD)),
    pmap.pmap_step(objective, SGD),
  )
  state = init_state(PARAMS, SGD)
  states = pmap.replicate(state)
  for _ in range(3):
    state, metrics = one(state, held, batch, KEY)
    states, others = many(states, held, batch, KEY)
    np.testing.assert_allclose(
      others['grad_norm'], metrics['grad_norm'], rtol=1e-5
    )
  assert int(states.step[0]) == 3
  ends = jax.tree.map(lambda x: np.asarray(x)[0], states.params)
  # Three updates of norm ½ each: roundings of that size.
  np.testing.assert_allclose(flat(ends), flat(state.params), rtol=0, atol=1e-5)
  assert np.abs(flat(ends) - flat(PARAMS)).max() > 0.05


def test_rows_must_divide_over_devices():
  step = pmap.pmap_step(preference_objective(MODEL, 'dpo'), SGD)
  batch = jax.tree.map(lambda x: x[:12], batch_of(pairs(9)))
  states = pmap.replicate(init_state(PARAMS, SGD))
  with pytest.raises(ValueError, match='devices = 8 .* got 12 rows'):
    step(states, frozen(), batch, KEY)

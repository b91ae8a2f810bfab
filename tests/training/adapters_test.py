"""Steps that train adapters: one base, every backend, nothing copied."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models.lora import Lora, assembler, init_lora
from alignment.roles.learner import preference_objective
from alignment.roles.scoring import with_reference
from alignment.training.mesh import (
  jit_step,
  make_mesh,
  param_shardings,
  place,
  place_batch,
  state_shardings,
)
from alignment.training.optimizer import decays
from alignment.training.pmap import pmap_step, replicate
from alignment.training.step import init_state, make_step
from alignment.types import Frozen
from tests.roles.worlds import batch_of, flat, pairs
from tests.training.sharded import MODEL, SGD

KEY = jax.random.key(0)
BASE = MODEL.init(jax.random.key(1))
LORA = Lora(2, 3.0)
ADAPTERS = jax.tree.map(
  lambda x: x + 0.2 * np.random.default_rng(x.size).normal(size=x.shape),
  init_lora(BASE, LORA, jax.random.key(2)),
)
BATCH = batch_of(pairs(13, reference_logps=None), rows=16)

pytestmark = pytest.mark.skipif(
  jax.device_count() < 8, reason='needs eight devices'
)


def frozen_of(base):
  return Frozen(
    models={'base': base, 'reference': base}, hyper={'beta': jnp.float32(0.8)}
  )


@functools.cache
def objective(reference):
  """A loss that couples rows, so that a local sum would be another one."""
  return preference_objective(
    MODEL, 'dpo', aggregate='dr_dpo', reference=reference
  )


@functools.cache
def plain_step():
  return jit_step(
    make_step(objective('in_step'), SGD, assemble=assembler(LORA))
  )


def on_mesh(spec, microbatches):
  """Gradient (SGD of rate 1) and metrics of one step."""
  mesh, state = make_mesh(spec), init_state(ADAPTERS, SGD)
  step = make_step(
    objective('in_step'),
    SGD,
    microbatches=microbatches,
    assemble=assembler(LORA),
  )
  shardings = state_shardings(state, mesh, min_size=0)
  base = place(BASE, param_shardings(BASE, mesh, min_size=0))
  state, metrics = jit_step(step, mesh, shardings)(
    place(state, shardings), frozen_of(base), place_batch(BATCH, mesh), KEY
  )
  return flat(ADAPTERS) - flat(state.params), metrics


def by_pmap(batch):
  """The same with a reference that the batch holds."""
  step = pmap_step(objective('precomputed'), SGD, assemble=assembler(LORA))
  state = replicate(init_state(ADAPTERS, SGD))
  state, metrics = step(state, frozen_of(BASE), batch, KEY)
  end = jax.tree.map(lambda x: x[0], state.params)
  return flat(ADAPTERS) - flat(end), metrics


@pytest.fixture(scope='module')
def whole():
  state = init_state(ADAPTERS, SGD)
  state, metrics = plain_step()(state, frozen_of(BASE), BATCH, KEY)
  return flat(ADAPTERS) - flat(state.params), metrics


@pytest.mark.parametrize('backend', ['mesh', 'pmap'])
def test_backends_agree(backend, whole):
  """Microbatches on a mesh; pmap with a reference computed beforehand."""
  wanted, metrics = whole
  norm = np.linalg.norm(wanted)
  assert norm > 0.05
  np.testing.assert_allclose(metrics['grad_norm'], norm, rtol=1e-5)
  if backend == 'mesh':
    found, others = on_mesh('data=2,fsdp=2,tensor=2', 2)
  else:
    filled = with_reference(MODEL, BASE, [BATCH])[0]
    found, others = by_pmap(filled)
  # Sums in another order; a wrong reduction would be off by a device count.
  np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6 * norm)
  assert others.keys() == metrics.keys()
  for name in metrics:
    np.testing.assert_allclose(
      flat(others[name]),
      flat(metrics[name]),
      rtol=2e-5,
      atol=2e-6,
      err_msg=name,
    )


def test_the_base_is_there_once():
  """Policy and reference read the same buffers, before and after a step."""
  step = plain_step()
  state, base = init_state(ADAPTERS, SGD), jax.tree.map(jnp.copy, BASE)
  size = sum(x.nbytes for x in jax.tree.leaves(base))
  state, _ = step(state, frozen_of(base), BATCH, KEY)
  before = sum(x.nbytes for x in jax.live_arrays())
  pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(base)]
  frozen = frozen_of(base)
  state, metrics = step(state, frozen, BATCH, KEY)
  jax.block_until_ready((state, metrics))
  for name in ('base', 'reference'):
    leaves = jax.tree.leaves(frozen.models[name])
    assert [x.unsafe_buffer_pointer() for x in leaves] == pointers
  assert sum(x.nbytes for x in jax.live_arrays()) - before < size / 4
  jax.tree.map(np.testing.assert_array_equal, base, BASE)
  given = sum(x.nbytes for x in jax.tree.leaves(state.params))
  assert given < size / 2  # of the adapters alone


def test_where_adapters_lie():
  """b is cut along what it makes, a of output and down along what it reads."""
  mesh = make_mesh('data=2,fsdp=2,tensor=2')
  found = jax.tree.map(
    lambda s: tuple(s.spec), param_shardings(ADAPTERS, mesh)
  )['layers']
  assert found['query']['b'] == (None, None, 'tensor', None, None)
  assert (
    found['key']['b']
    == found['value']['b']
    == (
      None,
      None,
      'tensor',
      None,
    )
  )
  assert found['gate']['b'] == found['up']['b'] == (None, None, 'tensor')
  assert found['output']['a'] == (None, 'tensor', None, None, None)
  assert found['down']['a'] == (None, 'tensor', None)
  for target, name in (('query', 'a'), ('up', 'a'), ('output', 'b')):
    assert set(found[target][name]) == {None}


def test_weight_decay_pulls_on_all_adapters():
  assert all(jax.tree.leaves(decays(ADAPTERS)))

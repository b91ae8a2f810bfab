"""Meshes: specs, shardings, and the same step on one and eight devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from alignment.roles.learner import preference_objective
from alignment.training.mesh import (
  jit_step,
  make_mesh,
  param_shardings,
  place,
  place_batch,
  row_shards,
  state_shardings,
)
from alignment.training.optimizer import make_optimizer
from alignment.training.pmap import pmap_step, replicate
from alignment.training.step import init_state, make_step
from tests.roles.worlds import VOCAB, batch_of, flat, frozen, pairs
from tests.training.sharded import MODEL, SGD

KEY = jax.random.key(0)
PARAMS = MODEL.init(jax.random.key(1))
BATCH = batch_of(pairs(13), rows=16)

pytestmark = pytest.mark.skipif(
  jax.device_count() < 8, reason='needs eight devices'
)


def test_specs():
  assert dict(make_mesh('').shape) == {'data': 1, 'fsdp': 1, 'tensor': 1}
  mesh = make_mesh('fsdp=2, data=-1')
  assert dict(mesh.shape) == {
    'data': jax.device_count() // 2,
    'fsdp': 2,
    'tensor': 1,
  }
  assert mesh.axis_types == (AxisType.Auto,) * 3
  assert make_mesh('tensor=2').size == 2
  assert row_shards(make_mesh('data=2,fsdp=2,tensor=2')) == 4


@pytest.mark.parametrize(
  'spec, message',
  [
    ('model=2', 'at most once'),
    ('data=2,data=2', 'at most once'),
    ('data=0', 'data must be'),
    ('data=two', 'data must be'),
    ('data', 'data must be'),
    ('data=-1,fsdp=-1', 'at most one axis'),
    ('data=3,fsdp=-1', 'do not divide'),
    ('data=64', '64 devices asked for'),
  ],
)
def test_wrong_specs_are_named(spec, message):
  with pytest.raises(ValueError, match=f'--mesh={spec}: .*{message}'):
    make_mesh(spec)


def specs(params, mesh, **options):
  found = param_shardings(params, mesh, **options)
  return jax.tree.map(lambda s: tuple(s.spec), found)


def test_automatic_fsdp_takes_the_largest_divisible_dimension():
  mesh = make_mesh('data=2,fsdp=4')
  shapes = {
    'tall': jax.ShapeDtypeStruct((64, 8), jnp.float32),
    'odd': jax.ShapeDtypeStruct((65, 8), jnp.float32),
    'prime': jax.ShapeDtypeStruct((7, 5), jnp.float32),
    'vector': jax.ShapeDtypeStruct((8,), jnp.float32),
    'number': jax.ShapeDtypeStruct((), jnp.float32),
  }
  assert specs(shapes, mesh, min_size=9) == {
    'tall': ('fsdp', None),
    'odd': (None, 'fsdp'),
    'prime': (None, None),
    'vector': (None,),
    'number': (),
  }
  assert specs(shapes, mesh)['tall'] == (None, None)


def test_tensor_rules_place_the_transformer():
  mesh = make_mesh('data=2,fsdp=2,tensor=2')
  found = specs(PARAMS, mesh, min_size=0)
  layers = found['layers']
  assert layers['attention']['qkv'] == (None, 'fsdp', 'tensor', None, None)
  assert layers['attention']['output'][1] == 'tensor'
  assert layers['mlp']['gate_up'] == (None, 'fsdp', None, 'tensor')
  assert layers['mlp']['down'] == (None, 'tensor', 'fsdp')
  assert found['embedding'] == ('tensor', 'fsdp')
  biases = {
    'attention': {'qkv_bias': jax.ShapeDtypeStruct((4, 3, 5), jnp.float32)},
    'mlp': {'gate_up_bias': jax.ShapeDtypeStruct((2, 6), jnp.float32)},
  }
  assert specs(biases, mesh) == {
    'attention': {'qkv_bias': ('tensor', None, None)},
    'mlp': {'gate_up_bias': (None, 'tensor')},
  }
  rules = (('embedding', PartitionSpec(None, 'tensor')),)
  assert specs(PARAMS, mesh, rules=rules)['embedding'] == (None, 'tensor')


def test_the_optimiser_lies_where_its_parameters_lie():
  mesh = make_mesh('fsdp=4,tensor=2')
  state = init_state(PARAMS, make_optimizer(weight_decay=0.1))
  found = state_shardings(state, mesh, min_size=0)
  params = jax.tree.leaves(found.params)
  adam = next(
    s
    for s in jax.tree.leaves(
      found.opt_state, is_leaf=lambda s: hasattr(s, 'mu')
    )
    if hasattr(s, 'mu')
  )
  assert jax.tree.leaves(adam.mu) == params == jax.tree.leaves(adam.nu)
  assert adam.count.spec == PartitionSpec()
  placed = place(state, found)
  embedding = placed.params['embedding']
  shards = {s.data.shape for s in embedding.addressable_shards}
  assert shards == {(VOCAB // 2, 4)}


def one_step(objective, hyper, mesh=None, microbatches=1):
  """Gradient (SGD of rate 1) and metrics; mesh 'pmap' is the other backend."""
  state = init_state(PARAMS, SGD)
  if mesh == 'pmap':
    step, state = pmap_step(objective, SGD), replicate(state)
    state, metrics = step(state, frozen(**hyper), BATCH, KEY)
    copies = jax.tree.map(np.asarray, state.params)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[-1]), copies)
    end = jax.tree.map(lambda x: x[0], copies)
    return flat(PARAMS) - flat(end), metrics
  step, shardings, batch = (
    make_step(objective, SGD, microbatches=microbatches),
    None,
    BATCH,
  )
  if mesh is not None:
    mesh = make_mesh(mesh)
    shardings = state_shardings(state, mesh, min_size=0)
    state, batch = place(state, shardings), place_batch(batch, mesh)
  step = jit_step(step, mesh, shardings)
  state, metrics = step(state, frozen(**hyper), batch, KEY)
  if shardings is not None:
    lies = jax.tree.map(
      lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, shardings
    )
    assert all(jax.tree.leaves(lies))
  return flat(PARAMS) - flat(state.params), metrics


SPLIT = {'mesh': 'data=2,fsdp=4', 'microbatches': 2}
BACKENDS = {
  'mean': [SPLIT],
  'dr_dpo': [
    SPLIT,
    {'mesh': 'data=8'},
    {'mesh': 'data=2,fsdp=2,tensor=2'},
    {'mesh': 'pmap'},
  ],
}


@pytest.mark.parametrize('aggregate', BACKENDS)
def test_backends_agree(aggregate):
  objective = preference_objective(
    MODEL, 'dpo', aggregate=aggregate, nll_coefficient=0.2
  )
  hyper = {'beta': 0.8}
  wanted, metrics = one_step(objective, hyper)
  norm = np.linalg.norm(wanted)
  assert norm > 0.1
  for backend in BACKENDS[aggregate]:
    found, others = one_step(objective, hyper, **backend)
    # Sums in another order; devices agree to a few float32 roundings of the
    # gradient's size, where a wrong reduction would be off by its device count.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * norm)
    assert others.keys() == metrics.keys()
    for name in metrics:
      np.testing.assert_allclose(
        flat(others[name]),
        flat(metrics[name]),
        rtol=2e-5,
        atol=2e-6,
        err_msg=f'{name} on {backend}',
      )


def test_rows_that_do_not_divide_are_named():
  objective = preference_objective(MODEL, 'dpo')
  mesh = make_mesh('data=4,fsdp=2')
  batch = jax.tree.map(lambda x: x[:12], BATCH)
  state = init_state(PARAMS, SGD)
  with pytest.raises(ValueError, match='mesh = 8 .* got 12 rows'):
    jit_step(make_step(objective, SGD), mesh)(state, frozen(), batch, KEY)
  with pytest.raises(ValueError, match='= 8 .* got 12 rows'):
    place_batch(batch, mesh)
  with pytest.raises(ValueError, match='state_shardings'):
    jit_step(make_step(objective, SGD), None, state_shardings(state, mesh))

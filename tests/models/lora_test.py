"""LoRA: both paths against float64 sums, gradients, what is not computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models.logits import next_token_logits
from alignment.models.lora import PATHS, TARGETS, Lora, init_lora
from alignment.models.stacking import stack_layers
from alignment.models.transformer import transformer
from tests.models.trees import (
  FAMILIES,
  random_batch,
  random_params,
  small_config,
)
from tests.roles.worlds import flat

LORA = Lora(3, 5.0)
TOKENS = np.random.default_rng(1).integers(11, size=(2, 9), dtype=np.int32)
CLOSE = {'rtol': 2e-5, 'atol': 2e-5}
"""Sums of some ten float32 numbers of size 1, in another order."""


def moved(base, lora, seed=2):
  """Adapters far from their start."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda: init_lora(base, lora, jax.random.key(0)))
  return jax.tree.map(
    lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32), shapes
  )


def by_hand(base, adapters, scale):
  """The changed weights of unstacked layers, summed in float64."""
  where = {
    'query': ('attention', 'qkv', np.s_[..., :-2, :]),
    'key': ('attention', 'qkv', np.s_[..., -2, :]),
    'value': ('attention', 'qkv', np.s_[..., -1, :]),
    'output': ('attention', 'output', np.s_[...]),
    'gate': ('mlp', 'gate_up', np.s_[:, 0]),
    'up': ('mlp', 'gate_up', np.s_[:, -1]),
    'down': ('mlp', 'down', np.s_[...]),
  }
  whole = jax.tree.map(lambda x: np.array(x, np.float64), base)
  for layer, own in adapters.items():
    for target, part in own.items():
      module, weight, at = where[target]
      a, b = (np.asarray(part[n], np.float64) for n in 'ab')
      whole[layer][module][weight][at] += scale * np.tensordot(a, b, 1)
  return jax.tree.map(jnp.float32, whole)


@pytest.mark.parametrize(
  'family, targets', [('everything', None), ('gpt 2', ('key', 'output', 'up'))]
)
def test_both_paths_are_the_changed_weights(family, targets):
  config = FAMILIES[family]
  base = random_params(transformer(config))
  lora = dataclasses.replace(LORA, targets=targets, rslora=targets is None)
  adapters = moved(base, lora)
  logits = jax.jit(next_token_logits(config))
  want = logits(by_hand(base, adapters, lora.scale), TOKENS)
  assert np.abs(logits(base, TOKENS) - want).max() > 0.1
  for path in PATHS.values():
    params = jax.jit(path)(base, adapters, lora.scale)
    np.testing.assert_allclose(logits(params, TOKENS), want, **CLOSE)


def test_scales():
  assert Lora(4, 6.0).scale == 1.5
  assert Lora(4, 6.0, rslora=True).scale == 3.0


def shapes_of(config):
  return jax.eval_shape(transformer(config).init, jax.random.key(0))


def test_the_start_changes_nothing_and_fills_its_range():
  base = shapes_of(small_config(width=400, depth=1))
  adapters = init_lora(base, Lora(20, 1.0), jax.random.key(3))['layer_0']
  assert not any(part['b'].any() for part in adapters.values())
  a = np.asarray(adapters['query']['a'])
  bound = 400**-0.5
  assert 0.999 * bound < np.abs(a).max() <= bound
  # Eight thousand draws: the mean of squares is known to 1%, the mean to 0.01.
  np.testing.assert_allclose(np.mean(a**2), bound**2 / 3, rtol=0.05)
  assert abs(a.mean()) < 0.05 * bound


def test_a_draw_depends_on_its_layer_and_target_alone():
  plain, key = shapes_of(small_config()), jax.random.key(4)
  one = init_lora(plain, LORA, key)
  scanned = shapes_of(small_config(scan_layers=True))
  stacked = init_lora(scanned, LORA, key)
  jax.tree.map(np.testing.assert_array_equal, stacked, stack_layers(one))
  few = init_lora(plain, dataclasses.replace(LORA, targets=('up',)), key)
  for name, layer in few.items():
    assert set(layer) == {'up'}
    np.testing.assert_array_equal(layer['up']['a'], one[name]['up']['a'])
  draws = [
    np.asarray(one[layer][target]['a'])
    for layer in one
    for target in ('query', 'gate')
  ]
  assert len({d.tobytes() for d in draws}) == len(draws)


def loss_of(config, batch, path):
  """(adapters, base) -> a loss in which no two tokens may be exchanged."""
  model = transformer(config)

  def loss(adapters, base):
    params = PATHS[path](base, adapters, LORA.scale)
    values = model.statistics(params, batch, ('token_logps',))['token_logps']
    return jnp.sum(jnp.cos(jnp.arange(values.shape[1])) * values)

  return loss


def test_loss_and_gradients_of_the_paths_agree():
  """In layers that are scanned and recomputed, of a base in bfloat16."""
  config = small_config(scan_layers=True, remat=True)
  base = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16) if x.ndim > 2 else x,
    random_params(transformer(config)),
  )
  adapters, batch = moved(base, LORA), random_batch()[1]

  def differentiate(config, path, base):
    loss = loss_of(config, batch, path)
    return jax.jit(jax.value_and_grad(loss))(adapters, base)

  widened = jax.tree.map(lambda x: x.astype(jnp.float32), base)
  want, exact = differentiate(config, 'merged', widened)
  got, grads = differentiate(config, 'low_rank', base)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  exact, grads = flat(exact), flat(grads)
  size = np.abs(exact).max()
  # Sums of some hundred float32 products, in another order.
  np.testing.assert_allclose(grads, exact, rtol=0, atol=1e-5 * size)
  rounded = dataclasses.replace(config, matmul_dtype='bfloat16')
  near = flat(differentiate(rounded, 'low_rank', base)[1])
  # Operands of 8 bits; a wrong term would be off by its own size.
  assert 0 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 0.05


@pytest.mark.parametrize(
  'options',
  [{}, {'scan_layers': True, 'matmul_dtype': 'bfloat16'}],
  ids=['plain', 'scanned, rounded'],
)
def test_the_base_gets_no_gradient_product(options):
  """Forward and inputs' gradients cost 2 forwards; weights' a third one."""
  config = small_config(
    vocab_size=8, width=64, mlp_width=256, head_dim=16, **options
  )
  base, batch = shapes_of(config), random_batch(vocab=8)[1]
  adapters = jax.eval_shape(
    lambda: init_lora(base, Lora(1, 1.0), jax.random.key(0))
  )
  loss = loss_of(config, batch, 'low_rank')

  def flops(function):
    return jax.jit(function).lower(adapters, base).cost_analysis()['flops']

  forward = flops(loss)
  assert 1.8 < flops(jax.grad(loss)) / forward < 2.4
  assert flops(jax.grad(loss, argnums=1)) / forward > 2.7


def test_the_low_rank_path_takes_over_the_arrays_of_the_base():
  base = random_params(transformer(small_config()))
  kept = jax.tree.leaves(PATHS['low_rank'](base, moved(base, LORA), 1.0))
  assert all(any(x is y for y in kept) for x in jax.tree.leaves(base))


@pytest.mark.parametrize(
  'options, message',
  [
    ({'rank': 0}, 'rank must be an integer ≥ 1, got 0'),
    ({'rank': 2.0}, 'rank must be an integer'),
    ({'alpha': 0.0}, 'alpha must be > 0'),
    ({'alpha': float('inf')}, 'alpha must be > 0'),
    ({'targets': ()}, 'targets must be some of'),
    ({'targets': ('qkv',)}, 'targets must be some of'),
    ({'path': 'fused'}, "path must be 'low_rank' or 'merged', got 'fused'"),
  ],
)
def test_values_outside_their_range(options, message):
  with pytest.raises(ValueError, match=message):
    Lora(**{'rank': 2, 'alpha': 1.0, **options})


def test_bases_without_a_place_for_adapters():
  key = jax.random.key(0)
  plain = shapes_of(FAMILIES['gpt 2'])
  with pytest.raises(ValueError, match=r"targets must be .* got \('gate',\)"):
    init_lora(plain, dataclasses.replace(LORA, targets=('gate',)), key)
  with pytest.raises(ValueError, match='no layers to adapt'):
    init_lora({'weights': jnp.zeros(3)}, LORA, key)
  with pytest.raises(ValueError, match='reward head'):
    init_lora({**plain, 'reward_head': jnp.zeros(12)}, LORA, key)
  adapters = moved(plain, LORA)
  assert set(adapters['layer_1']) == set(TARGETS) - {'gate'}
  for path in PATHS.values():
    with pytest.raises(ValueError, match="of 'layers' have no place"):
      path(plain, stack_layers(adapters), 1.0)

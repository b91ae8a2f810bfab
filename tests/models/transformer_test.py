"""The transformer against a float64 oracle, across layouts and options."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from alignment.data.layout import Group, capacity_for, lay_out, owners
from alignment.models.rotary import Rotary
from alignment.models.stacking import stack_layers
from alignment.models.transformer import transformer
from tests.models import oracle
from tests.models.trees import (
  FAMILIES,
  NAMES,
  PACKINGS,
  per_completion,
  random_batch,
  random_params,
  small_config,
)


@functools.cache
def _statistics(config):
  model = transformer(config)
  return jax.jit(lambda params, batch: model.statistics(params, batch, NAMES))


@functools.cache
def _loss_and_grad(config):
  model = transformer(config)

  def loss(params, batch):
    values = model.statistics(params, batch, NAMES)
    # Uneven weights: no two tokens may be exchanged.
    weight = jnp.cos(jnp.arange(batch.target.shape[1]))
    return sum(
      (k + 1) * jnp.sum(weight * values[n]) for k, n in enumerate(NAMES)
    )

  return jax.jit(jax.value_and_grad(loss))


def _float64(params):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def _assert_trees_close(got, want, **tolerance):
  compare = functools.partial(np.testing.assert_allclose, **tolerance)
  jax.tree.map(compare, got, want)


@pytest.mark.parametrize(
  'family, packing',
  [(family, 'packed') for family in FAMILIES if family != 'everything']
  + [
    (family, packing) for family in (None, 'everything') for packing in PACKINGS
  ],
)
def test_statistics_equal_the_oracle_in_every_layout(family, packing):
  config = FAMILIES.get(family, small_config())
  params = random_params(transformer(config))
  groups, batch = random_batch(packing)
  got = _statistics(config)(params, batch)
  for name in NAMES:
    assert got[name].dtype == jnp.float32
    found = per_completion(groups, batch, got[name])
    for group in groups:
      for k, completion in enumerate(group.completions):
        want = oracle.completion_statistics(
          _float64(params), group.prompt, completion, config
        )[name]
        np.testing.assert_allclose(
          found[group.index, k], want, rtol=2e-5, atol=2e-5
        )
  padding = batch.slot == batch.completions.length.shape[1]
  assert padding.any()
  for value in got.values():
    np.testing.assert_array_equal(np.asarray(value)[padding], 0.0)


def test_every_option_of_the_oracle_matters():
  config = FAMILIES['everything']
  params = _float64(random_params(transformer(config)))
  tokens = np.arange(9) % config.vocab_size
  full = oracle.logits(params, tokens, config)
  changes = {
    'windowed': None,
    'window': 4,
    'rotary': Rotary(fraction=0.7),
    'local_rotary': None,
    'norm': 'rms',
    'norm_eps': 0.1,
    'norm_offset': 0.0,
    'post_norms': False,
    'qk_norm': False,
    'parallel': False,
    'activation': 'gelu_tanh',
    'gated': False,
    'qkv_bias': False,
    'output_bias': False,
    'mlp_bias': False,
    'query_scale': None,
    'attention_softcap': None,
    'logit_softcap': None,
    'embedding_scale': 1.0,
    'tied_head': True,
  }
  for name, value in changes.items():
    changed = dataclasses.replace(config, **{name: value})
    other = oracle.logits(params, tokens, changed)
    assert np.abs(other - full).max() > 1e-4, name


@pytest.mark.parametrize('packing', PACKINGS)
def test_rewards_equal_the_oracle_at_the_last_token(packing):
  config = small_config(head='scalar')
  model = transformer(config)
  params = random_params(model)
  groups, batch = random_batch(packing)
  got = np.asarray(jax.jit(model.rewards)(params, batch))
  index, number = owners(batch)
  by_index = {group.index: group for group in groups}
  for row, slot in np.ndindex(index.shape):
    want = 0.0
    if index[row, slot] >= 0:
      group = by_index[index[row, slot]]
      completion = group.completions[number[row, slot]]
      want = oracle.completion_reward(
        _float64(params), group.prompt, completion, config
      )
    np.testing.assert_allclose(got[row, slot], want, rtol=2e-5, atol=2e-5)


def test_gradients_do_not_depend_on_the_layout():
  config = small_config()
  model = transformer(config)
  params = random_params(model)

  def loss(params, batch):
    values = model.statistics(params, batch, ('token_logps',))
    return jnp.sum(jnp.sin(values['token_logps']))

  def grad(packing):
    return jax.jit(jax.grad(loss))(params, random_batch(packing)[1])

  shared = grad('shared')
  assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(shared))
  for packing in ('padded', 'packed'):
    _assert_trees_close(grad(packing), shared, rtol=1e-3, atol=1e-4)


def test_a_statistic_depends_on_the_path_to_its_source_alone():
  # Every position gets a token of its own, so that the gradient with respect
  # to the embedding table tells which positions a statistic has read.
  rng = np.random.default_rng(4)
  groups = [
    Group(np.zeros(p, np.int32), tuple(np.zeros(c, np.int32) for c in cs), i)
    for i, (p, cs) in enumerate([(2, (3, 2)), (1, (1, 2, 2)), (3, (2, 1))])
  ]
  capacity = capacity_for(
    groups, packing='packed', batch_size=3, max_row_length=24
  )
  batch = lay_out(groups, capacity, 'packed')
  rows, length = batch.tokens.shape
  assert (batch.group.max(1) > 1).any() and (batch.group == 0).any()
  vocab = rows * length
  batch = batch.replace(
    tokens=rng.permutation(vocab).reshape(rows, length).astype(np.int32),
    target=rng.integers(0, vocab, batch.target.shape).astype(np.int32),
  )
  config = small_config(vocab_size=vocab)
  model = transformer(config)
  params = random_params(model)

  def statistic(embedding):
    own = params | {'embedding': embedding}
    return model.statistics(own, batch, ('token_logps',))['token_logps']

  jacobian = jax.jit(jax.jacrev(statistic))(params['embedding'])
  read = np.abs(np.asarray(jacobian)).sum(-1) > 0  # [R, L, V]
  for r, l in np.ndindex(batch.target.shape):
    expected = set()
    if batch.slot[r, l] < batch.completions.length.shape[1]:
      i = batch.source[r, l]
      expected = {
        batch.tokens[r, j]
        for j in range(i + 1)
        if batch.group[r, j] == batch.group[r, i]
        and batch.branch[r, j] in (0, batch.branch[r, i])
      }
    assert set(np.flatnonzero(read[r, l])) == expected, (r, l)


def test_padding_of_random_numbers_changes_nothing():
  config = small_config()
  params = random_params(transformer(config))
  _, batch = random_batch('packed')
  rng = np.random.default_rng(9)
  hole, gap = batch.group == 0, batch.slot == batch.completions.length.shape[1]
  assert hole.any() and gap.any()

  def poison(array, where, low, high):
    noise = rng.integers(low, high, array.shape).astype(np.int32)
    return np.where(where, noise, array)

  wild = 2**30
  poisoned = batch.replace(
    tokens=poison(batch.tokens, hole, -wild, wild),
    positions=poison(batch.positions, hole, -wild, wild),
    branch=poison(batch.branch, hole, 0, 3),
    source=poison(batch.source, gap, -wild, wild),
    target=poison(batch.target, gap, -wild, wild),
  )
  value, grad = _loss_and_grad(config)(params, batch)
  other_value, other_grad = _loss_and_grad(config)(params, poisoned)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))
  np.testing.assert_array_equal(value, other_value)
  jax.tree.map(np.testing.assert_array_equal, grad, other_grad)


@pytest.mark.parametrize('remat', [False, True])
def test_scanned_and_recomputed_layers_are_the_same_model(remat):
  plain = small_config(depth=3)
  params = random_params(transformer(plain))
  _, batch = random_batch('packed')
  value, grad = _loss_and_grad(plain)(params, batch)
  for scan_layers in (False, True):
    if not (remat or scan_layers):
      continue
    config = small_config(depth=3, remat=remat, scan_layers=scan_layers)
    place = (lambda x: stack_layers(x)) if scan_layers else (lambda x: x)
    started = jax.eval_shape(transformer(config).init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(
      jnp.shape, place(params)
    )
    other_value, other_grad = _loss_and_grad(config)(place(params), batch)
    np.testing.assert_allclose(other_value, value, rtol=1e-5)
    _assert_trees_close(other_grad, place(grad), rtol=1e-4, atol=1e-4)


def test_layers_that_differ_are_scanned():
  plain = FAMILIES['everything']
  params = random_params(transformer(plain))
  _, batch = random_batch('packed')
  scanned = dataclasses.replace(plain, scan_layers=True, remat=True)
  got = _statistics(scanned)(stack_layers(params), batch)
  want = _statistics(plain)(params, batch)
  _assert_trees_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('options', [{}, {'rotary': None}])
def test_tokens_beyond_the_context_come_out_as_nan(options):
  groups, batch = random_batch('packed')
  longest = max(len(g.prompt) + max(map(len, g.completions)) for g in groups)
  padding = batch.group == 0
  assert padding.any()
  # Padding has no position.
  batch = batch.replace(positions=np.where(padding, 2**30, batch.positions))
  enough = small_config(context=longest - 1, **options)
  params = random_params(transformer(enough))
  values = _statistics(enough)(params, batch)
  assert all(np.isfinite(value).all() for value in values.values())
  short = small_config(context=longest - 2, **options)
  params = random_params(transformer(short))
  found = per_completion(
    groups, batch, _statistics(short)(params, batch)['token_logps']
  )
  for group in groups:
    for k, completion in enumerate(group.completions):
      # A token is predicted from the position before its own.
      reads = np.arange(len(completion)) + len(group.prompt) - 1
      np.testing.assert_array_equal(
        np.isnan(found[group.index, k]), reads >= short.context
      )


def test_layers_of_a_scan_start_different():
  model = transformer(small_config(scan_layers=True))
  qkv = model.init(jax.random.key(0))['layers']['attention']['qkv']
  assert float(jnp.abs(qkv[0] - qkv[1]).max()) > 0.1


@pytest.mark.parametrize('head_chunk', [1, 11 * 3, 11 * 4])
def test_chunked_model_equals_whole(head_chunk):
  params = random_params(transformer(small_config()))
  _, batch = random_batch('packed')
  value, grad = _loss_and_grad(small_config())(params, batch)
  config = small_config(head_chunk=head_chunk)
  other_value, other_grad = _loss_and_grad(config)(params, batch)
  np.testing.assert_allclose(other_value, value, rtol=1e-5)
  _assert_trees_close(other_grad, grad, rtol=1e-4, atol=1e-4)


def test_few_key_heads_equal_repeated_key_heads():
  grouped, full = small_config(), small_config(num_kv_heads=4)
  params = random_params(transformer(grouped))
  wide = jax.tree.map(lambda x: x, params)
  for index in range(grouped.depth):
    attention = params[f'layer_{index}']['attention']
    qkv, output = attention['qkv'], attention['output']
    heads = [
      jnp.stack(
        [qkv[:, h // 2, h % 2], qkv[:, h // 2, 2], qkv[:, h // 2, 3]], 1
      )
      for h in range(4)
    ]
    wide[f'layer_{index}']['attention'] = {
      'qkv': jnp.stack(heads, 1),
      'output': output.reshape(4, 1, *output.shape[2:]),
    }
  _, batch = random_batch('shared')
  _assert_trees_close(
    _statistics(full)(wide, batch),
    _statistics(grouped)(params, batch),
    rtol=1e-5,
    atol=1e-5,
  )


def _products(jaxpr):
  """Every dot_general of a jaxpr and of the jaxprs inside it."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for inner in jaxprs_in_params(equation.params):
      yield from _products(inner)


@pytest.mark.parametrize('options', [{}, {'scan_layers': True, 'remat': True}])
def test_bfloat16_operands_accumulate_in_float32(options):
  config = small_config(matmul_dtype='bfloat16', **options)
  model = transformer(config)
  params = random_params(model)
  _, batch = random_batch('shared')
  loss = lambda params: model.statistics(params, batch, NAMES)['token_logps']  # noqa: E731
  grad = jax.grad(lambda params: jnp.sum(loss(params)))
  names = lambda found: sorted(  # noqa: E731
    str(e.invars[0].aval.dtype) + ' ' + str(e.invars[1].aval.dtype)
    for e in found
  )
  layers = 1 if options else config.depth
  weights = 4 * layers + 1  # qkv, output, gate_up, down; the head
  forward = list(_products(jax.make_jaxpr(loss)(params).jaxpr))
  both = list(_products(jax.make_jaxpr(grad)(params).jaxpr))
  assert names(forward).count('bfloat16 bfloat16') == weights
  rounded = names(both).count('bfloat16 bfloat16')
  # Forward, both gradients; layers recomputed in the backward pass come twice.
  assert rounded >= 3 * weights
  for equation in (*forward, *both):
    assert equation.outvars[0].aval.dtype == jnp.float32
    types = {str(var.aval.dtype) for var in equation.invars}
    assert len(types) == 1  # never a mixed product
  # Only attention's own products, two a layer, stay in float32.
  assert names(forward).count('float32 float32') == 2 * layers


@pytest.mark.parametrize(
  'options', [{}, {'scan_layers': True, 'remat': True}, {'head_chunk': 30}]
)
def test_bfloat16_is_close_and_runs_compiled(options):
  full, rounded = (
    small_config(**options),
    small_config(matmul_dtype='bfloat16', **options),
  )
  params = random_params(transformer(full))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype('float32')
  }
  _, batch = random_batch('packed')
  value, grad = _loss_and_grad(full)(params, batch)
  other_value, other_grad = _loss_and_grad(rounded)(params, batch)
  # bfloat16 keeps 8 bits: relative errors of 2⁻⁹ per operand add up over the
  # layers; cosine similarity because single small entries may lose their sign.
  np.testing.assert_allclose(other_value, value, rtol=0.05)
  assert value != other_value
  for got, want in zip(
    jax.tree.leaves(other_grad), jax.tree.leaves(grad), strict=True
  ):
    assert got.dtype == jnp.float32
    cosine = jnp.vdot(got, want) / jnp.linalg.norm(got) / jnp.linalg.norm(want)
    assert float(cosine) > 0.995


def test_float32_products_ask_for_the_highest_precision():
  model = transformer(small_config(head='both'))
  params = random_params(model)
  _, batch = random_batch('shared')

  def numbers(params):
    values = model.statistics(params, batch, NAMES)
    return jnp.sum(values['token_logps']) + jnp.sum(
      model.rewards(params, batch)
    )

  products = list(_products(jax.make_jaxpr(jax.grad(numbers))(params).jaxpr))
  assert products
  highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
  assert {equation.params['precision'] for equation in products} == {highest}


def test_starts_near_uniform_and_with_zero_reward():
  config = small_config(head='both', vocab_size=64, width=32)
  model = transformer(config)
  params = model.init(jax.random.key(3))
  _, batch = random_batch('shared')
  values = model.statistics(params, batch, ('token_entropy',))
  counted = batch.slot < batch.completions.length.shape[1]
  entropy = np.asarray(values['token_entropy'])[counted]
  np.testing.assert_allclose(entropy, np.log(64), atol=0.05)
  np.testing.assert_array_equal(model.rewards(params, batch), 0.0)


def test_statistics_without_a_vocabulary_are_refused():
  _, batch = random_batch('shared')
  scalar = transformer(small_config(head='scalar'))
  with pytest.raises(ValueError, match='head must be .* for statistics'):
    scalar.statistics({}, batch, NAMES)
  with pytest.raises(ValueError, match='head must be .* for rewards'):
    transformer(small_config()).rewards({}, batch)

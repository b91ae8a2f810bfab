"""Decoding with a memory against the whole text read at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import Group, capacity_for, lay_out
from alignment.models.decoding import generate, pad_prompts
from alignment.models.logits import next_token_logits
from alignment.models.stacking import stack_layers
from alignment.models.transformer import transformer
from tests.models import oracle
from tests.models.trees import (
  FAMILIES,
  per_completion,
  random_params,
  small_config,
)

ROOM = 9
NEVER = (-1, -1)
"""Two ends of text that no token is."""


def _prompts(lengths=(5, 1, 8, 3), seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 11, n).astype(np.int32) for n in lengths]


@functools.cache
def _model(family):
  config = FAMILIES.get(family, small_config())
  return config, random_params(transformer(config), seed=2)


_generate = functools.cache(generate)


def _decoded(config, params, prompts, eos_ids=NEVER, room=ROOM):
  padded, lengths = pad_prompts(prompts)
  found = _generate(config)(
    params, padded, lengths, max_new_tokens=room, eos_ids=eos_ids
  )
  return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize('family', ['everything', 'gpt 2', 'gemma 2'])
def test_greedy_tokens_are_the_likeliest_of_the_oracle(family):
  config, params = _model(family)
  prompts = _prompts()
  found = _decoded(config, params, prompts)
  plain = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for row, prompt in enumerate(prompts):
    tokens = np.concatenate([prompt, found.tokens[row]])
    logits = oracle.logits(plain, tokens, config)[len(prompt) - 1 : -1]
    best = np.sort(logits, axis=-1)
    # A tie within rounding could go either way; these are none.
    assert (best[:, -1] - best[:, -2]).min() > 1e-4
    np.testing.assert_array_equal(found.tokens[row], logits.argmax(-1))
    largest = best[:, -1] - np.log(np.exp(logits).sum(-1))
    np.testing.assert_allclose(found.logps[row], largest, atol=2e-5)


def test_logps_are_the_statistics_of_the_same_completion():
  config, params = _model('everything')
  prompts = _prompts()
  found = _decoded(config, params, prompts)
  groups = [
    Group(prompt, (tokens,), index)
    for index, (prompt, tokens) in enumerate(
      zip(prompts, found.tokens, strict=True)
    )
  ]
  capacity = capacity_for(
    groups, packing='packed', batch_size=4, max_row_length=40
  )
  batch = lay_out(groups, capacity, 'packed')
  model = transformer(config)
  values = jax.jit(lambda p, b: model.statistics(p, b, ('token_logps',)))(
    params, batch
  )
  by_row = per_completion(groups, batch, values['token_logps'])
  wanted = np.stack([by_row[row, 0] for row in range(4)])
  # The same functions over keys in another order of storage.
  np.testing.assert_allclose(found.logps, wanted, atol=1e-5)


def test_neither_the_batch_nor_padding_matters():
  config, params = _model('everything')
  prompts = _prompts()
  together = _decoded(config, params, prompts)
  for row, prompt in enumerate(prompts[:2]):
    padded = np.full((1, 19), 10, np.int32)  # no bucket's width
    padded[0, : len(prompt)] = prompt
    alone = generate(config)(
      params, padded, np.array([len(prompt)]), max_new_tokens=ROOM, eos_ids=()
    )
    np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
    np.testing.assert_allclose(alone.logps[0], together.logps[row], atol=1e-5)


def test_rows_end_at_their_first_end_of_text():
  config, params = _model('gpt 2')
  prompts = [*_prompts((5, 1, 8)), np.array([1, 2])]
  free = _decoded(config, params, prompts)
  ends = (int(free.tokens[0, 2]), int(free.tokens[1, 4]))
  stopped = _decoded(config, params, prompts, ends)
  lengths = []
  for row in range(4):
    hits = np.flatnonzero(np.isin(free.tokens[row], ends))
    length = hits[0] + 1 if hits.size else ROOM
    lengths.append(length)
    for name in ('tokens', 'logps'):
      got, whole = getattr(stopped, name)[row], getattr(free, name)[row]
      np.testing.assert_allclose(got[:length], whole[:length], atol=1e-5)
      np.testing.assert_array_equal(got[length:], 0)
  np.testing.assert_array_equal(stopped.lengths, lengths)
  assert min(lengths) < ROOM


def test_stops_once_every_row_has_ended_and_skips_rows_without_a_prompt():
  config, params = _model('plain')
  calls = []

  def third_is_the_end(logits, keys):
    jax.debug.callback(lambda: calls.append(1))
    return jnp.full(logits.shape[0], 7, jnp.int32)

  padded, lengths = pad_prompts(_prompts((4, 2, 3)))
  assert padded.shape == (4, 16)
  run = generate(config, third_is_the_end)
  found = run(params, padded, lengths, max_new_tokens=ROOM, eos_ids=(7,))
  jax.effects_barrier()
  np.testing.assert_array_equal(found.lengths, [1, 1, 1, 0])
  np.testing.assert_array_equal(found.tokens[:, 0], [7, 7, 7, 0])
  assert len(calls) == 1


def test_draws_depend_on_the_key_of_the_row_alone():
  config, params = _model('plain')

  def draw(logits, keys):
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)

  run = generate(config, draw)
  options = dict(max_new_tokens=ROOM, eos_ids=())
  padded, lengths = pad_prompts(_prompts((4, 4)))
  padded[1] = padded[0]
  keys = jax.random.split(jax.random.key(3), 2)
  found = run(params, padded, lengths, keys, **options)
  swapped = run(params, padded, lengths, keys[::-1], **options)
  assert (found.tokens[0] != found.tokens[1]).any()
  np.testing.assert_array_equal(found.tokens, swapped.tokens[::-1])
  # A draw is not repeated from one token to the next.
  assert len(set(np.asarray(found.tokens[0]).tolist())) > 2


def test_stacked_parameters_decode_alike():
  config, params = _model('everything')
  prompts = _prompts()
  want = _decoded(config, params, prompts)
  scanned = dataclasses.replace(config, scan_layers=True, remat=True)
  got = _decoded(scanned, stack_layers(params), prompts)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_allclose(got.logps, want.logps, atol=1e-6)


def test_bfloat16_products_round_what_training_rounds():
  config = small_config(depth=1, tied_head=True, matmul_dtype='bfloat16')
  params = random_params(transformer(config), seed=2)
  prompts = _prompts((5, 1))
  found = _decoded(config, params, prompts, room=2)
  full = dataclasses.replace(config, matmul_dtype='float32')
  plain = _decoded(full, params, prompts, room=2)
  assert np.abs(plain.logps[:, 0] - found.logps[:, 0]).max() > 1e-5
  # 8 bits in every operand.
  np.testing.assert_allclose(found.logps[:, 0], plain.logps[:, 0], atol=0.1)
  want = next_token_logits(config)(params, pad_prompts(prompts)[0])
  want = jax.nn.log_softmax(want)[[0, 1], [4, 0], found.tokens[:, 0]]
  np.testing.assert_allclose(found.logps[:, 0], want, atol=1e-5)


def test_matrices_stored_in_bfloat16_decode_as_they_are():
  config = small_config(depth=1, matmul_dtype='bfloat16')
  params = random_params(transformer(config), seed=2)
  prompts = _prompts((5, 1))
  stored = jax.tree.map(
    lambda x: x.astype(jnp.bfloat16) if x.ndim > 1 else x, params
  )
  # Its rows are read as they are, not as operands.
  stored['embedding'] = params['embedding']
  found = _decoded(config, stored, prompts)
  want = _decoded(config, params, prompts)
  jax.tree.map(np.testing.assert_array_equal, found, want)


def test_refusals():
  config, params = _model('everything')
  padded, lengths = pad_prompts(_prompts())
  with pytest.raises(ValueError, match='max_new_tokens=0 must be ≥ 1'):
    generate(config)(params, padded, lengths, max_new_tokens=0, eos_ids=())
  with pytest.raises(ValueError, match='tokens=31: must be .* context = 30'):
    generate(config)(params, padded, lengths, max_new_tokens=15, eos_ids=())
  with pytest.raises(ValueError, match='head must be .* for logits'):
    generate(small_config(head='scalar'))


def test_prompts_come_in_few_shapes():
  padded, lengths = pad_prompts(_prompts((5, 1, 17)))
  assert padded.shape == (4, 32)
  np.testing.assert_array_equal(lengths, [5, 1, 17, 0])
  np.testing.assert_array_equal(padded[2, :17], _prompts((5, 1, 17))[2])
  np.testing.assert_array_equal(padded[2, 17:], 0)
  assert pad_prompts(_prompts((17,)), limit=20)[0].shape == (1, 20)
  with pytest.raises(ValueError, match='limit=16 must be ≥ 17 tokens'):
    pad_prompts(_prompts((17,)), limit=16)
  for empty in ([], _prompts((2, 0))):
    with pytest.raises(ValueError, match='prompts must each have a token'):
      pad_prompts(empty)

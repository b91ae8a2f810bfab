"""Decoding with a memory against the whole text read at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.data.layout import Group, capacity_for, lay_out
from alignment.models.decoding import generate, pad_prompts
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


def _prompts(lengths=(5, 1, 8, 3), seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 11, n).astype(np.int32) for n in lengths]


@functools.cache
def _model(family):
  config = FAMILIES.get(family, small_config())
  return config, random_params(transformer(config), seed=2)


def _decoded(config, params, prompts, eos_ids=(), room=ROOM):
  padded, lengths = pad_prompts(prompts, limit=18)
  found = generate(config)(
    params, padded, lengths, max_new_tokens=room, eos_ids=eos_ids
  )
  return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize('family', ['plain', 'everything', 'gpt 2', 'gemma 2'])
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

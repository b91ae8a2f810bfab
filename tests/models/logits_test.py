"""Next-token logits of plain rows."""

import jax
import numpy as np
import pytest

from alignment.models.logits import next_token_logits
from alignment.models.transformer import transformer
from tests.models import oracle
from tests.models.trees import FAMILIES, random_params, small_config


def test_logits_equal_the_oracle():
  config = FAMILIES['gemma 2']
  params = random_params(transformer(config))
  tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, 7))
  got = jax.jit(next_token_logits(config))(params, tokens)
  plain = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for row, text in zip(got, tokens, strict=True):
    want = oracle.logits(plain, text, config)
    np.testing.assert_allclose(row, want, rtol=2e-5, atol=2e-5)


def test_refusals():
  with pytest.raises(ValueError, match='head must be .* for logits'):
    next_token_logits(small_config(head='scalar'))
  logits = next_token_logits(small_config(context=4))
  with pytest.raises(ValueError, match='tokens=5: must be .* context = 4'):
    logits({}, np.zeros((2, 5), np.int32))

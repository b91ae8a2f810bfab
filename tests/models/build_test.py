"""From config to model, and how many parameters it has."""

import jax
import pytest

from alignment.models.build import build
from alignment.models.hashed import HashedConfig
from alignment.models.model import count_params
from tests.models.trees import small_config


def test_builds_what_the_config_describes():
  config = small_config()
  shapes = jax.eval_shape(build(config).init, jax.random.key(0))
  v, d, depth = config.vocab_size, config.width, config.depth
  heads = config.num_heads + 2 * config.num_kv_heads
  attention = d * config.head_dim * (heads + config.num_heads)
  layer = attention + 3 * d * config.mlp_width + 2 * d
  assert count_params(shapes) == 2 * v * d + d + depth * layer
  tied = jax.eval_shape(
    build(small_config(tied_head=True)).init, jax.random.key(0)
  )
  assert count_params(tied) == count_params(shapes) - v * d
  hashed = build(HashedConfig(9)).init(jax.random.key(0))
  assert count_params(hashed) == 9


def test_refuses_an_unknown_family():
  with pytest.raises(ValueError, match='config must be .* got dict'):
    build({'width': 3})

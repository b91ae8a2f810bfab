"""Refusals of the transformer's config."""

import dataclasses

import pytest

from tests.models.trees import small_config


@pytest.mark.parametrize(
  'change',
  [
    {'vocab_size': 0},
    {'width': 0},
    {'depth': 0},
    {'num_heads': 0},
    {'num_kv_heads': 0},
    {'num_kv_heads': 3},
    {'head_dim': 7},
    {'head_dim': 0},
    {'mlp_width': -1},
    {'norm_eps': 0.0},
    {'matmul_dtype': 'float16'},
    {'head': 'value'},
    {'head_chunk': 0},
    {'tied_head': True, 'head': 'scalar'},
    {'width': 2.5},
    {'norm_eps': float('nan')},
  ],
  ids=str,
)
def test_refuses_values_out_of_range(change):
  name, value = next(iter(change.items()))
  with pytest.raises(ValueError, match=f'{name} must be .*{value}'):
    small_config(**change)


def test_is_frozen_and_hashable():
  config = small_config()
  assert hash(config) == hash(small_config())
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.width = 3

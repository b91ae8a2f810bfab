"""Refusals of the transformer's config."""

import dataclasses
import re

import pytest

from alignment.models.rotary import Rotary
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
    {'context': 0},
    {'window': 0},
    {'window': True},
    {'windowed': (True, False)},
    {'windowed': (True,), 'window': 2},
    {'windowed': (False, False), 'window': 2},
    {'windowed': [True, False], 'window': 2},
    {'context': None, 'rotary': None},
    {'rotary': Rotary(fraction=0.5)},
    {'rotary': Rotary(fraction=0.1)},
    {'local_rotary': Rotary()},
    {'local_rotary': Rotary(), 'window': 2, 'rotary': None, 'context': 4},
    {'local_rotary': Rotary(fraction=0.7), 'window': 2},
    {'norm': 'batch'},
    {'activation': 'relu'},
    {'norm_offset': float('inf')},
    {'query_scale': 0.0},
    {'attention_softcap': -1.0},
    {'logit_softcap': 0.0},
    {'embedding_scale': float('inf')},
    {'qk_norm': 1},
    {'post_norms': None},
  ],
  ids=str,
)
def test_refuses_values_out_of_range(change):
  name, value = next(iter(change.items()))
  with pytest.raises(
    ValueError, match=f'{name} must be .*{re.escape(str(value))}'
  ):
    small_config(**change)


def test_says_which_layers_are_windowed():
  assert small_config().windowed_layers == (False, False)
  assert small_config(window=2).windowed_layers == (True, True)
  alternate = small_config(window=2, windowed=(True, False))
  assert alternate.windowed_layers == (True, False)


def test_is_frozen_and_hashable():
  config = small_config()
  assert hash(config) == hash(small_config())
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.width = 3

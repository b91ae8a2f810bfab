"""Rotary frequencies against those of `transformers`, every scaling."""

import numpy as np
import pytest

from alignment.models.rotary import Rotary
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

CASES = {
  'linear': Rotary(theta=5000.0, scaling='linear', factor=3.0),
  'llama3': Rotary(
    theta=500_000.0,
    scaling='llama3',
    factor=8.0,
    original_context=512,
    low_freq_factor=1.5,
    high_freq_factor=6.0,
  ),
  'yarn': Rotary(
    scaling='yarn',
    factor=4.0,
    original_context=1024,
    beta_slow=2.0,
    beta_fast=20.0,
    attention_factor=1.25,
  ),
  # Pairs that turn far less, and far more, than the ramp asks for.
  'yarn, short context': Rotary(
    theta=100.0, scaling='yarn', factor=4.0, original_context=9
  ),
}


@pytest.mark.parametrize('fraction', [1.0, 0.5])
@pytest.mark.parametrize('name', CASES)
def test_frequencies(name, fraction):
  head_dim, rotary = 64, CASES[name]
  ours = Rotary(**(vars(rotary) | {'fraction': fraction}))
  ropes = peer('transformers.modeling_rope_utils').ROPE_INIT_FUNCTIONS
  config = peer('transformers').LlamaConfig(
    hidden_size=head_dim * 2,
    num_attention_heads=2,
    head_dim=head_dim,
    max_position_embeddings=4096,
    rope_parameters={
      'rope_type': ours.scaling,
      'rope_theta': ours.theta,
      'partial_rotary_factor': fraction,
      'factor': ours.factor,
      'original_max_position_embeddings': ours.original_context,
      'low_freq_factor': ours.low_freq_factor,
      'high_freq_factor': ours.high_freq_factor,
      'beta_slow': ours.beta_slow,
      'beta_fast': ours.beta_fast,
      'attention_factor': ours.attention_factor,
    },
  )
  theirs, factor = ropes[ours.scaling](config, 'cpu')
  # Theirs are computed in float32, through a power of the base.
  np.testing.assert_allclose(
    ours.frequencies(head_dim), theirs.numpy(), rtol=2e-6
  )
  assert factor == ours.attention_factor

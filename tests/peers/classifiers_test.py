"""Reward models as sequence classifiers of `transformers`, both ways."""

import jax
import numpy as np
import pytest

from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.load import load_model
from alignment.models.huggingface.save import save_model
from alignment.models.transformer import transformer
from alignment.types import Batch, Completions
from tests.models.huggingface.folders import random_params, same, small_config
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

CASES = {
  'LlamaForCausalLM': {},
  'GPT2LMHeadModel': dict(
    rotary=None,
    norm='layer',
    norm_eps=1e-5,
    activation='gelu_tanh',
    gated=False,
    num_kv_heads=4,
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
  ),
  'Gemma3ForCausalLM': dict(
    norm_offset=1.0,
    post_norms=True,
    qk_norm=True,
    activation='gelu_tanh',
    embedding_scale=24**0.5,
  ),
}


def tokens() -> np.ndarray:
  """`[3, 9]`, none of them the padding of the config, 0."""
  return np.random.default_rng(4).integers(1, 31, (3, 9), dtype=np.int32)


def our_rewards(config, params) -> np.ndarray:
  """`[3]`, of rows of one prompt token and one completion."""
  rows, length = tokens().shape
  at = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
  unread = np.zeros((rows, 1), np.int32)
  lengths = np.full((rows, 1), length - 1, np.int32)
  batch = Batch(
    tokens=tokens(),
    positions=at,
    group=np.ones_like(at),
    branch=(at > 0).astype(np.int32),
    source=unread,
    target=unread,
    slot=unread,
    examples=None,
    completions=Completions(lengths, None, None, None),
  )
  return np.asarray(jax.jit(transformer(config).rewards)(params, batch))[:, 0]


def their_rewards(model) -> np.ndarray:
  torch = peer('torch')
  with torch.no_grad():
    return model(torch.tensor(tokens(), dtype=torch.long)).logits[:, 0].numpy()


@pytest.mark.parametrize('architecture', CASES)
def test_a_reward_model_is_theirs_and_comes_back(architecture, tmp_path):
  transformers = peer('transformers')
  config = small_config(head='scalar', **CASES[architecture])
  params = jax.tree.map(lambda leaf: 0.3 * leaf, random_params(config))
  save_model(
    tmp_path / 'ours',
    config,
    params,
    FAMILIES[architecture],
    provenance=Provenance('', '', '', ()),
    token_ids={'bos_token_id': None, 'eos_token_id': None, 'pad_token_id': 0},
  )
  model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
    tmp_path / 'ours', output_loading_info=True, attn_implementation='eager'
  )
  assert not info['missing_keys'] and not info['unexpected_keys']
  theirs = their_rewards(model)
  ours = our_rewards(config, params)
  assert np.ptp(ours) > 0.1
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
  model.save_pretrained(tmp_path / 'theirs')
  loaded = load_model(tmp_path / 'theirs')
  assert loaded.config == config
  assert same(loaded.params, params)

"""LoRA folders against `peft`: theirs are read, ours are loaded there."""

import copy
import json

import jax
import numpy as np
import pytest

from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.load import load_model
from alignment.models.huggingface.peft import load_adapters, save_adapters
from alignment.models.logits import next_token_logits
from alignment.models.lora import PATHS, Lora, init_lora
from tests.peers.family_cases import CASES, random_model
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

MODELS = (
  'llama',
  'mistral, window',
  'qwen2, tied',
  'qwen3',
  'gemma2, soft-caps',
  'gemma3',
  'gpt2',
  'gpt_neox',
)
LINEAR = {
  'GPT2LMHeadModel': ('c_attn', 'attn.c_proj', 'c_fc', 'mlp.c_proj'),
  'GPTNeoXForCausalLM': (
    'query_key_value',
    'attention.dense',
    'dense_h_to_4h',
    'dense_4h_to_h',
  ),
}
LLAMA_LIKE = ('q_proj', 'k_proj', 'v_proj', 'o_proj') + (
  'gate_proj',
  'up_proj',
  'down_proj',
)
OPTIONS = {
  'some modules': {'target_modules': ['v_proj', 'down_proj']},
  'one layer, rslora': {'layers_to_transform': [1], 'use_rslora': True},
  'patterns': {
    'rank_pattern': {'q_proj': 5, 'layers.1.mlp.up_proj': 2},
    'alpha_pattern': {'^model.layers.0.self_attn.o_proj': 3, 'q_proj': 11},
  },
}
TOKENS = np.random.default_rng(4).integers(37, size=(2, 40), dtype=np.int32)
BOUND = 1e-4
"""Float32 sums in another order; logits are of size 1 to 10."""
PROVENANCE = Provenance(data='none', noise='none', loss='none', seeds=(0,))


def their_logits(model):
  torch = peer('torch')
  with torch.no_grad():
    return model(torch.tensor(TOKENS, dtype=torch.long)).logits.numpy()


def our_logits(loaded, lora, adapters, path='low_rank'):
  params = PATHS[path](loaded.params, adapters, lora.scale)
  return jax.jit(next_token_logits(loaded.config))(params, TOKENS)


def base_of(case, folder, **overrides):
  random_model(case).save_pretrained(folder)
  return load_model(folder, **overrides)


def linear(case):
  return list(LINEAR.get(CASES[case][0], LLAMA_LIKE))


def theirs_of(case, folder, **options):
  """Adapters of `peft` in a folder, and the logits that they give."""
  torch, peft = peer('torch'), peer('peft')
  settings = {'r': 3, 'lora_alpha': 7, 'target_modules': linear(case)}
  config = peft.LoraConfig(task_type='CAUSAL_LM', **{**settings, **options})
  model = peft.get_peft_model(copy.deepcopy(random_model(case)), config).eval()
  generator = torch.Generator().manual_seed(3)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if 'lora_' in name:
        weight.normal_(0.0, 0.2, generator=generator)
  model.save_pretrained(folder)
  return their_logits(model)


def check_theirs(case, tmp_path, path='low_rank', options=None, **overrides):
  base = base_of(case, tmp_path / 'base', **overrides)
  want = theirs_of(case, tmp_path / 'adapters', **(options or {}))
  found = load_adapters(tmp_path / 'adapters', base.config, base.family)
  got = our_logits(base, found.lora, found.adapters, path)
  assert np.abs(got - want).max() <= BOUND
  assert np.abs(their_logits(random_model(case)) - want).max() > 0.1
  return found


def test_every_family_is_there():
  assert {CASES[case][0] for case in MODELS} == set(FAMILIES)


@pytest.mark.parametrize('case', MODELS)
def test_their_adapters_give_the_same_logits(case, tmp_path):
  check_theirs(case, tmp_path)


@pytest.mark.parametrize('name', OPTIONS)
def test_their_options(name, tmp_path):
  found = check_theirs(
    'llama', tmp_path, 'merged', OPTIONS[name], scan_layers=True
  )
  if name == 'some modules':
    assert found.lora.targets == ('value', 'down')


@pytest.mark.parametrize('case', MODELS)
def test_our_adapters_load_there(case, tmp_path):
  peft = peer('peft')
  base = base_of(case, tmp_path / 'base')
  # Targets of one module of theirs have `a` of their own; one target is not
  # there, and the scale is no round number.
  targets = ('query', 'value', 'output', 'up', 'down')
  lora = Lora(4, 5.0, targets, rslora=case in ('gpt2', 'llama'))
  adapters = init_lora(base.params, lora, jax.random.key(1))
  rng = np.random.default_rng(2)
  adapters = jax.tree.map(
    lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), adapters
  )
  want = our_logits(base, lora, adapters)
  folder = save_adapters(
    tmp_path / 'adapters',
    base.config,
    lora,
    adapters,
    base.family,
    provenance=PROVENANCE,
  )
  model = peft.PeftModel.from_pretrained(
    copy.deepcopy(random_model(case)), folder
  )
  got = their_logits(model.eval())
  assert np.abs(got - want).max() <= BOUND
  assert np.abs(their_logits(random_model(case)) - want).max() > 0.1
  again = load_adapters(folder, base.config, base.family)
  assert np.abs(our_logits(base, again.lora, again.adapters) - want).max() <= (
    BOUND
  )
  said = json.loads((folder / 'adapter_config.json').read_text())
  fused = case in ('gpt2', 'gpt_neox')
  assert list(said['rank_pattern'].values()) == [8] * fused

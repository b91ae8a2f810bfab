"""Folders of PEFT: round trips, and what is refused in them."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.peft import load_adapters, save_adapters
from alignment.models.huggingface.table import abstract_params
from alignment.models.lora import Lora, init_lora
from alignment.models.stacking import stack_layers
from tests.models.huggingface.folders import (
  LLAMA,
  PROVENANCE,
  edit_json,
  small_config,
)

GPT2 = FAMILIES['GPT2LMHeadModel']
SETTINGS, TENSORS = 'adapter_config.json', 'adapter_model.safetensors'
FUSED = small_config(
  num_kv_heads=4,
  norm='layer',
  rotary=None,
  gated=False,
  activation='gelu_tanh',
  qkv_bias=True,
  output_bias=True,
  mlp_bias=True,
  tied_head=True,
)
LORA = Lora(2, 3.0)


def adapters_of(config, lora, seed=0):
  shapes = jax.eval_shape(
    lambda: init_lora(abstract_params(config), lora, jax.random.key(0))
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )


def write(folder, config=None, family=LLAMA, lora=LORA, adapters=None):
  config = config or small_config()
  adapters = adapters or adapters_of(config, lora)
  save_adapters(folder, config, lora, adapters, family, provenance=PROVENANCE)
  return adapters


def edit_tensors(folder, change):
  path = folder / TENSORS
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def products(adapters, scale):
  """Layer and target -> scale · a · b, float64."""
  return {
    (layer, target): scale
    * np.tensordot(np.float64(part['a']), np.float64(part['b']), 1)
    for layer, own in adapters.items()
    for target, part in own.items()
  }


@pytest.mark.parametrize('scanned', [False, True])
def test_adapters_come_back_as_they_were(tmp_path, scanned):
  adapters = write(tmp_path / 'a')
  config = small_config(scan_layers=scanned)
  found = load_adapters(tmp_path / 'a', config, LLAMA)
  assert (found.lora.rank, found.lora.alpha, found.lora.rslora) == (2, 3, False)
  want = stack_layers(adapters) if scanned else adapters
  jax.tree.map(np.testing.assert_array_equal, found.adapters, want)
  stacked = tmp_path / 'stacked'
  write(stacked, config, adapters=stack_layers(adapters))
  assert (stacked / TENSORS).read_bytes() == (
    tmp_path / 'a' / TENSORS
  ).read_bytes()
  card = (tmp_path / 'a' / 'README.md').read_text()
  assert 'library_name: "peft"' in card and '40 pairs' in card


@pytest.mark.parametrize('rslora', [False, True])
def test_a_fused_module_keeps_every_product(tmp_path, rslora):
  """Query and value only, of unlike a: blocks of twice the rank."""
  lora = Lora(2, 3.0, ('query', 'value', 'down'), rslora=rslora)
  adapters = write(tmp_path / 'a', FUSED, GPT2, lora)
  said = json.loads((tmp_path / 'a' / SETTINGS).read_text())
  assert said['rank_pattern'] == {'attn.c_attn': 4}
  assert said['target_modules'] == ['attn.c_attn', 'mlp.c_proj']
  found = load_adapters(tmp_path / 'a', FUSED, GPT2)
  want = products(adapters, lora.scale)
  got = products(found.adapters, found.lora.scale)
  for place, product in got.items():
    # b was multiplied by a ratio of scales that rounding leaves near 1.
    np.testing.assert_allclose(
      product, want.get(place, 0.0 * product), rtol=1e-6, atol=1e-6
    )
  assert set(got) - set(want) == {(f'layer_{i}', 'key') for i in range(3)}
  # What was read has one a, and is written as it was read.
  write(tmp_path / 'b', FUSED, GPT2, found.lora, found.adapters)
  back = json.loads((tmp_path / 'b' / SETTINGS).read_text())
  assert back['rank_pattern'] == said['rank_pattern']


def test_patterns_and_stacked_layers(tmp_path):
  """Ranks and alphas of modules; the rest of a stack is 0 in both."""
  folder = tmp_path / 'a'
  adapters = write(folder)

  def shorten(tensors):
    name = 'base_model.model.model.layers.1.self_attn.q_proj.lora_'
    tensors[f'{name}A.weight'] = tensors[f'{name}A.weight'][:1]
    tensors[f'{name}B.weight'] = tensors[f'{name}B.weight'][:, :1].copy()

  edit_tensors(folder, shorten)
  patterns = {
    'rank_pattern': {r'layers\.1\.self_attn\.q_proj$': 1},
    'alpha_pattern': {'^model.layers.0.mlp.up_proj': 12, 'proj': 99},
  }
  edit_json(folder, patterns, SETTINGS)
  plain = load_adapters(folder, small_config(), LLAMA)
  want = products(adapters, LORA.scale)
  got = products(plain.adapters, plain.lora.scale)
  short = adapters['layer_1']['query']
  first = np.tensordot(short['a'][:, :1], short['b'][:1], 1)
  want['layer_1', 'query'] = 3.0 * first  # alpha over a rank of 1
  want['layer_0', 'up'] = 4.0 * want['layer_0', 'up']
  for place, product in want.items():
    np.testing.assert_allclose(got[place], product, rtol=1e-5, atol=1e-5)
  config = small_config(scan_layers=True)
  stacked = load_adapters(folder, config, LLAMA).adapters
  query = stacked['layers']['query']
  assert query['a'].shape == (3, 24, 2)
  assert not query['a'][1, :, 1].any() and not query['b'][1, 1].any()
  np.testing.assert_array_equal(
    query['a'][1, :, 0], plain.adapters['layer_1']['query']['a'][:, 0]
  )


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'peft_type': 'IA3'}, "peft_type is 'IA3'"),
    ({'peft_type': None}, 'peft_type is None'),
    ({'use_dora': True}, 'use_dora is True'),
    ({'bias': 'all'}, "bias is 'all'"),
    ({'lora_bias': True}, 'lora_bias is True'),
    ({'modules_to_save': ['lm_head']}, 'modules_to_save'),
    ({'trainable_token_indices': [3]}, 'trainable_token_indices'),
    ({'layer_replication': [[0, 2]]}, 'layer_replication'),
    ({'init_lora_weights': 'pissa'}, "init_lora_weights is 'pissa'"),
    ({'an_option_of_tomorrow': 1}, 'an_option_of_tomorrow is 1'),
    ({'r': 0}, 'r is 0'),
    ({'r': True}, 'r is True'),
    ({'r': 4}, 'says rank 4 for model.layers.0.*whose tensors have 2'),
    ({'lora_alpha': 0}, 'lora_alpha is 0'),
    ({'lora_alpha': 10**400}, 'lora_alpha is 1000'),
    ({'lora_alpha': '3'}, "lora_alpha is '3'"),
    ({'rank_pattern': {'(a+)+b': 1}}, r"expression '\(a\+\)\+b'"),
    ({'alpha_pattern': {'q_proj': -1}}, 'alpha_pattern is'),
    ({'rank_pattern': [1]}, r'rank_pattern is \[1\]'),
    ({'target_modules': ['q_proj']}, 'target_modules and the tensors do not'),
    ({'target_modules': [3]}, r'target_modules is \[3\]'),
    ({'layers_to_transform': [1]}, 'target_modules and the tensors do not'),
    ({'layers_to_transform': ['1']}, 'layers_to_transform is'),
  ],
)
def test_settings_that_are_refused(tmp_path, changes, message):
  folder = tmp_path / 'a'
  write(folder)
  edit_json(folder, changes, SETTINGS)
  with pytest.raises(ModelError, match=message):
    load_adapters(folder, small_config(), LLAMA)


def test_an_expression_as_target_is_not_run(tmp_path):
  """One that would never end: what the tensors are decides."""
  folder = tmp_path / 'a'
  adapters = write(folder)
  edit_json(folder, {'target_modules': '(a|aa|.*.*)*!' * 50}, SETTINGS)
  found = load_adapters(folder, small_config(), LLAMA)
  jax.tree.map(np.testing.assert_array_equal, found.adapters, adapters)


def _rename(old, new):
  def change(tensors):
    (name,) = (n for n in tensors if n.endswith(old))
    tensors[name.replace(old, new)] = tensors.pop(name)

  return change


def _replace(end, values):
  def change(tensors):
    (name,) = (n for n in tensors if n.endswith(end))
    tensors[name] = np.float32(values)

  return change


UP = 'layers.2.mlp.up_proj.lora_'


@pytest.mark.parametrize(
  'change, message',
  [
    (_rename(f'{UP}A.weight', f'{UP}embedding_A'), 'is no adapter of a linear'),
    (_rename(f'{UP}A.weight', 'layers.3.mlp.up_proj.lora_A.weight'), 'is no'),
    (lambda t: t.clear(), 'holds no adapters'),
    (lambda t: t.pop(f'base_model.model.model.{UP}B.weight'), 'and B None'),
    (_replace(f'{UP}A.weight', np.ones((3, 24))), r'A \(3, 24\) and B \(10, 2'),
    (_replace(f'{UP}A.weight', np.ones((2, 23))), r'must be \[r, 24\]'),
    (_replace(f'{UP}A.weight', np.ones(24)), r'A \(24,\)'),
    (_replace(f'{UP}B.weight', np.full((10, 2), np.nan)), 'NaN or infinity'),
  ],
)
def test_tensors_that_are_refused(tmp_path, change, message):
  folder = tmp_path / 'a'
  write(folder)
  edit_tensors(folder, change)
  with pytest.raises(ModelError, match=message):
    load_adapters(folder, small_config(), LLAMA)


def test_files_that_are_refused(tmp_path):
  folder = tmp_path / 'a'
  write(folder)
  with pytest.raises(ModelError, match='is there and not an empty folder'):
    write(folder)
  content = (folder / TENSORS).read_bytes()
  for lie in (b'\xff' * 8 + content[8:], content[:-4]):
    (folder / TENSORS).write_bytes(lie)
    with pytest.raises(ModelError):
      load_adapters(folder, small_config(), LLAMA)
  (folder / TENSORS).unlink()
  (folder / 'adapter_model.bin').write_bytes(b'pickle')
  with pytest.raises(ModelError, match='has no adapter_model.safetensors'):
    load_adapters(folder, small_config(), LLAMA)
  secret = tmp_path / 'secret.safetensors'
  secret.write_bytes(content)
  (folder / TENSORS).symlink_to(secret)
  with pytest.raises(ModelError, match='out of the folder'):
    load_adapters(folder, small_config(), LLAMA)


def test_adapters_without_a_place_are_not_written(tmp_path):
  adapters = adapters_of(small_config(), LORA)
  for config, family, place in (
    (small_config(depth=2), LLAMA, 'layer_2/.*'),
    (FUSED, GPT2, 'layer_0/gate'),
  ):
    with pytest.raises(ValueError, match=f'{place}: the base has no such map'):
      write(tmp_path / 'a', config, family, adapters=adapters)
  adapters['layer_0']['gate']['b'][0, 0] = np.inf
  with pytest.raises(ModelError, match='NaN or infinity'):
    write(tmp_path / 'b', adapters=adapters)
  assert not list(tmp_path.iterdir())

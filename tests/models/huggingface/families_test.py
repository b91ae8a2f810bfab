"""Config mappings and weight tables of every family, without `transformers`."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest

from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.table import abstract_params, by_path
from alignment.models.rotary import Rotary

_SIZES = {
  'vocab_size': 19,
  'hidden_size': 24,
  'intermediate_size': 10,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'max_position_embeddings': 48,
}
_GEMMA = {**_SIZES, 'head_dim': 8, 'sliding_window': 5}
_GPT2 = {
  'vocab_size': 19,
  'n_embd': 24,
  'n_layer': 2,
  'n_head': 4,
  'n_positions': 48,
}
_NEOX = {**_SIZES, 'rotary_pct': 0.34}
_WINDOWS = {'use_sliding_window': True, 'sliding_window': 7}
_YARN = {
  'rope_type': 'yarn',
  'rope_theta': 500.0,
  'factor': 4.0,
  'original_max_position_embeddings': 12,
}
_TIED, _UNTIED = ({'tie_word_embeddings': tied} for tied in (True, False))

SETTINGS = {
  'LlamaForCausalLM': (
    _SIZES,
    {**_SIZES, **_TIED, 'attention_bias': True, 'head_dim': 10},
    {**_SIZES, 'mlp_bias': True, 'rope_parameters': _YARN},
  ),
  'MistralForCausalLM': (_SIZES, {**_SIZES, **_TIED, 'sliding_window': None}),
  'Qwen2ForCausalLM': (
    {**_SIZES, **_TIED},
    {**_SIZES, **_WINDOWS, 'max_window_layers': 1, 'head_dim': 8},
  ),
  'Qwen3ForCausalLM': (
    {**_SIZES, 'head_dim': 8},
    {**_SIZES, **_TIED, **_WINDOWS, 'attention_bias': True, 'head_dim': 6},
  ),
  'Gemma2ForCausalLM': (
    _GEMMA,
    {**_GEMMA, **_UNTIED, 'attention_bias': True, 'query_pre_attn_scalar': 7},
  ),
  'Gemma3ForCausalLM': (
    {**_GEMMA, 'sliding_window_pattern': 2},
    {**_GEMMA, **_UNTIED, 'layer_types': ['full_attention'] * 2},
  ),
  'GPT2LMHeadModel': (
    _GPT2,
    {**_GPT2, **_UNTIED, 'n_inner': 10, 'scale_attn_weights': False},
  ),
  'GPTNeoXForCausalLM': (
    _NEOX,
    {**_NEOX, **_TIED, 'attention_bias': False, 'use_parallel_residual': False},
  ),
}
MODELS = [
  (architecture, index)
  for architecture, several in SETTINGS.items()
  for index in range(len(several))
]


def read(architecture, index=0, **changes):
  return FAMILIES[architecture].read(SETTINGS[architecture][index] | changes)


def tensors(weight, rng):
  return [rng.normal(size=shape) for shape in weight.shapes]


def test_settings_of_every_family():
  assert set(SETTINGS) == set(FAMILIES)


@pytest.mark.parametrize('architecture, index', MODELS)
def test_the_table_is_the_parameter_tree(architecture, index):
  config = read(architecture, index)
  table = FAMILIES[architecture].weights(config)
  wanted = {k: v.shape for k, v in by_path(abstract_params(config)).items()}
  rng = np.random.default_rng(index)
  packed = {w.path: w.pack(*tensors(w, rng)).shape for w in table}
  assert packed == wanted
  names = [name for weight in table for name in weight.names]
  assert len(table) == len(wanted) and len(set(names)) == len(names)


@pytest.mark.parametrize('architecture, index', MODELS)
def test_there_and_back(architecture, index):
  """Every number is kept, and in its place."""
  config, rng = read(architecture, index), np.random.default_rng(index)
  for weight in FAMILIES[architecture].weights(config):
    theirs = tensors(weight, rng)
    ours = weight.pack(*theirs)
    back = weight.unpack(ours)
    assert len(back) == len(theirs)
    for one, other in zip(back, theirs, strict=True):
      np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('architecture', FAMILIES)
def test_where_queries_keys_and_values_lie(architecture):
  """Number by number: d input, g query head of key-value head k, f feature."""
  config = read(architecture)
  heads, features = config.num_kv_heads, config.head_dim
  per_head = config.num_heads // heads
  table = {w.path: w for w in FAMILIES[architecture].weights(config)}
  weight = table['layer_1/attention/qkv']
  theirs = tensors(weight, np.random.default_rng(5))
  ours = weight.pack(*theirs)
  for d, k, g, f in np.ndindex(ours.shape):
    if architecture == 'GPT2LMHeadModel':
      want = theirs[0][d, g * heads * features + k * features + f]
    elif architecture == 'GPTNeoXForCausalLM':
      want = theirs[0][(k * 3 + g) * features + f, d]
    elif g < per_head:
      want = theirs[0][(k * per_head + g) * features + f, d]
    else:
      want = theirs[g - per_head + 1][k * features + f, d]
    assert ours[d, k, g, f] == want


@pytest.mark.parametrize('architecture, index', MODELS)
def test_config_is_written_as_it_is_read(architecture, index):
  config, family = read(architecture, index), FAMILIES[architecture]
  written = json.loads(json.dumps(family.write(config)))
  assert family.read(written) == config
  running = dataclasses.replace(config, remat=True, matmul_dtype='bfloat16')
  assert family.write(running) == family.write(config)


@pytest.mark.parametrize('architecture', FAMILIES)
@pytest.mark.parametrize(
  'changes',
  [
    {'context': None},
    {'parallel': True, 'post_norms': True},
    {'query_scale': 0.123},
    {'attention_softcap': 2.5, 'norm': 'layer'},
    {'embedding_scale': 1.5},
    {'qkv_bias': True, 'output_bias': False, 'qk_norm': True, 'window': None},
  ],
  ids=str,
)
def test_what_a_family_does_not_have_is_not_written(architecture, changes):
  config = read(architecture)
  if 'window' in changes:
    changes = changes | {'windowed': None, 'local_rotary': None}
  if changes.get('context', 1) is None and config.rotary is None:
    return  # no such config
  with pytest.raises(ValueError, match=' must be '):
    FAMILIES[architecture].write(dataclasses.replace(config, **changes))


@pytest.mark.parametrize('architecture', FAMILIES)
def test_fields_with_other_values_are_refused_by_name(architecture):
  fixed = FAMILIES[architecture].fixed
  assert 'is_causal' in fixed
  for name, allowed in fixed.items():
    for value in allowed:
      read(architecture, **{name: value})
    for value in ('another', [1], 0.375):
      with pytest.raises(ModelError, match=f'{name}='):
        read(architecture, **{name: value})


@pytest.mark.parametrize('architecture', FAMILIES)
def test_sizes_out_of_range_are_refused_by_name(architecture):
  defaults = FAMILIES[architecture].defaults
  sizes = [n for n, v in SETTINGS[architecture][0].items() if n in defaults]
  sizes = [n for n in sizes if type(defaults[n]) is int]
  assert len(sizes) >= 5
  for name in sizes:
    for value in (0, -1, 2.5, '8', True, 2**24 + 1, 10**400):
      with pytest.raises(ModelError, match=f'{name}='):
        read(architecture, **{name: value})


@pytest.mark.parametrize('architecture', FAMILIES)
def test_other_kinds_of_values_are_refused_by_name(architecture):
  defaults = FAMILIES[architecture].defaults
  for name in defaults:
    with pytest.raises(ModelError, match=re.escape(f'{name}=[0.5]')):
      read(architecture, **{'use_sliding_window': True, name: [0.5]})
  activation = next(name for name in defaults if 'act' in name)
  with pytest.raises(ModelError, match=f"{activation}='relu'"):
    read(architecture, **{activation: 'relu'})


def test_absent_and_null_are_not_the_same():
  assert read('MistralForCausalLM').window == 4096
  assert read('MistralForCausalLM', sliding_window=None).window is None
  assert read('Gemma2ForCausalLM').logit_softcap == 30.0
  assert (
    read('Gemma2ForCausalLM', final_logit_softcapping=None).logit_softcap
    is None
  )
  assert read('GPT2LMHeadModel', n_inner=None).mlp_width == 96
  assert read('LlamaForCausalLM', num_key_value_heads=None).num_kv_heads == 4


def test_layers_that_are_windowed():
  usual = {'use_sliding_window': True, 'sliding_window': 3}
  qwen = read('Qwen2ForCausalLM', max_window_layers=1, **usual)
  assert (qwen.window, qwen.windowed) == (3, (False, True))
  assert read('Qwen2ForCausalLM', max_window_layers=1).window is None
  gemma = read('Gemma3ForCausalLM', num_hidden_layers=7)
  pattern = read('Gemma3ForCausalLM', 1, num_hidden_layers=7, layer_types=None)
  assert gemma.windowed == (True, False) * 3 + (True,)
  assert pattern.windowed == (True,) * 5 + (False, True)
  for types in (
    ['sliding_attention'],
    ['chunked_attention', 'full_attention'],
    'full_attention',
  ):
    with pytest.raises(ModelError, match='layer_types='):
      read('Gemma2ForCausalLM', layer_types=types)
  with pytest.raises(ModelError, match='no window is in use'):
    read('Qwen3ForCausalLM', layer_types=['sliding_attention'] * 2)


def test_gpt2_under_its_other_names():
  alias = {'hidden_size': 32, 'num_attention_heads': 8}
  own = {'n_embd': 32, 'n_head': 8}
  bare = {k: v for k, v in _GPT2.items() if k not in own}
  family = FAMILIES['GPT2LMHeadModel']
  assert family.read(bare | alias) == family.read(bare | own)
  with pytest.raises(ModelError, match='num_attention_heads=8 must be n_head'):
    read('GPT2LMHeadModel', num_attention_heads=8)


@pytest.mark.parametrize(
  'old, new',
  [
    ({'rope_theta': 77.0}, {'rope_type': 'default', 'rope_theta': 77.0}),
    (
      {'rope_theta': 77.0, 'rope_scaling': {'type': 'linear', 'factor': 3}},
      {'rope_type': 'linear', 'rope_theta': 77, 'factor': 3.0},
    ),
    (
      {
        'rope_theta': 500.0,
        'rope_scaling': {k: v for k, v in _YARN.items() if k != 'rope_theta'},
      },
      _YARN,
    ),
  ],
)
def test_rotary_embeddings_old_and_new(old, new):
  found = read('LlamaForCausalLM', **old)
  assert found.rotary != Rotary()
  assert found == read('LlamaForCausalLM', rope_parameters=new)
  written = FAMILIES['LlamaForCausalLM'].write(found)
  older = {k: v for k, v in written.items() if k != 'rope_parameters'}
  newer = {k: v for k, v in written.items() if k in _SIZES}
  newer['rope_parameters'] = written['rope_parameters']
  assert FAMILIES['LlamaForCausalLM'].read(older) == found
  assert FAMILIES['LlamaForCausalLM'].read(newer) == found


def test_what_yarn_multiplies_by():
  def factor(**more):
    rotary = read('LlamaForCausalLM', rope_parameters=_YARN | more).rotary
    return rotary.attention_factor

  plain = 0.1 * math.log(4) + 1
  assert factor() == pytest.approx(plain)
  assert factor(attention_factor=1.5) == 1.5
  both = factor(mscale=0.5, mscale_all_dim=2.0)
  assert both == pytest.approx(
    (0.05 * math.log(4) + 1) / (0.2 * math.log(4) + 1)
  )
  assert factor(mscale=0.5) == pytest.approx(plain)


@pytest.mark.parametrize(
  'said, named',
  [
    ({'rope_type': 'dynamic', 'factor': 2.0}, "rope_type='dynamic'"),
    ({'type': 'longrope'}, "rope_type='longrope'"),
    ({'rope_type': 'default', 'mrope_section': [1]}, 'mrope_section='),
    ({'rope_type': 'linear'}, 'factor=None'),
    ({'rope_type': 'linear', 'factor': 0.5}, 'factor must be'),
    ({**_YARN, 'truncate': False}, 'truncate=False'),
    ({'rope_theta': 'much'}, 'rope_theta='),
    ({'partial_rotary_factor': 0.3}, 'rotary must be'),
    ({'full_attention': {'rope_theta': 9.0}}, 'full_attention='),
    ([1], 'rope_parameters='),
  ],
  ids=str,
)
def test_rotary_embeddings_that_are_refused(said, named):
  with pytest.raises(ModelError, match=named):
    read('LlamaForCausalLM', rope_parameters=said)


def test_rotary_embeddings_of_gemma3():
  kinds = {
    'full_attention': {'rope_type': 'linear', 'factor': 8.0, 'rope_theta': 90},
    'sliding_attention': {'rope_theta': 30.0},
  }
  config = read('Gemma3ForCausalLM', rope_parameters=kinds)
  assert config.rotary == Rotary(90.0, scaling='linear', factor=8.0)
  assert config.local_rotary == Rotary(30.0)
  older = {
    'rope_theta': 90.0,
    'rope_local_base_freq': 30.0,
    'rope_scaling': {'rope_type': 'linear', 'factor': 8.0},
  }
  assert read('Gemma3ForCausalLM', **older) == config
  with pytest.raises(ModelError, match="rope_parameters='rope_theta'"):
    read('Gemma3ForCausalLM', rope_parameters={'rope_theta': 90.0})

"""Llama, Mistral, Qwen2 and Qwen3: RMSNorm, gated MLP, rotary embeddings."""

from __future__ import annotations

from typing import Any

from alignment.models.config import TransformerConfig
from alignment.models.huggingface import pieces
from alignment.models.huggingface.config_json import (
  MOST_LAYERS,
  Fields,
  activation_name,
  layer_types,
  make_family,
)
from alignment.models.huggingface.family import Family, Weight
from alignment.models.huggingface.rope import (
  described,
  read_rotary,
  write_both,
)

IGNORED = (r'model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq',)
RENAMES = ((r'^(?=(embed_tokens|layers|norm)\.)', 'model.'),)
"""A folder saved without its head leaves out 'model.'."""

FIXED = {'partial_rotary_factor': (None, 1)}

_COMMON = {
  'vocab_size': 151936,
  'hidden_size': 4096,
  'intermediate_size': 22016,
  'num_hidden_layers': 32,
  'num_attention_heads': 32,
  'num_key_value_heads': 32,
  'hidden_act': 'silu',
  'max_position_embeddings': 32768,
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': False,
  'rope_parameters': None,
}
_LLAMA = _COMMON | {
  'vocab_size': 32000,
  'intermediate_size': 11008,
  'num_key_value_heads': None,
  'max_position_embeddings': 2048,
  'attention_bias': False,
  'mlp_bias': False,
  'head_dim': None,
}
_MISTRAL = _COMMON | {
  'vocab_size': 32000,
  'intermediate_size': 14336,
  'num_key_value_heads': 8,
  'max_position_embeddings': 131072,
  'head_dim': None,
  'sliding_window': 4096,
}
_QWEN2 = _COMMON | {
  'head_dim': None,
  'use_sliding_window': False,
  'sliding_window': 4096,
  'max_window_layers': 28,
  'layer_types': None,
}
_QWEN3 = _QWEN2 | {'head_dim': 128, 'attention_bias': False}


def read_common(fields: Fields, activation: str) -> dict[str, Any]:
  """What Llama and its kin, Gemma among them, call by the same names."""
  heads = fields.size('num_attention_heads')
  head_dim = fields.size_or('head_dim', None)
  if head_dim is None:
    head_dim = fields.shared('hidden_size', 'num_attention_heads')
  return {
    'vocab_size': fields.size('vocab_size'),
    'width': fields.size('hidden_size'),
    'depth': fields.size('num_hidden_layers', MOST_LAYERS),
    'num_heads': heads,
    'num_kv_heads': fields.size_or('num_key_value_heads', heads),
    'head_dim': head_dim,
    'mlp_width': fields.size('intermediate_size'),
    'context': fields.size('max_position_embeddings'),
    'norm_eps': fields.positive('rms_norm_eps'),
    'activation': fields.activation(activation),
    'tied_head': fields.flag('tie_word_embeddings'),
  }


def write_common(config: TransformerConfig, activation: str) -> dict[str, Any]:
  """The fields of `read_common`."""
  return {
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.depth,
    'num_attention_heads': config.num_heads,
    'num_key_value_heads': config.num_kv_heads,
    'head_dim': config.head_dim,
    'intermediate_size': config.mlp_width,
    'max_position_embeddings': config.context,
    'rms_norm_eps': config.norm_eps,
    activation: activation_name(config),
    'tie_word_embeddings': config.tied_head,
  }


def weight_table(config: TransformerConfig) -> list[Weight]:
  """The tensors of Llama and its kin, Gemma among them."""
  table = [
    pieces.as_it_is(
      'embedding', 'model.embed_tokens.weight', config.vocab_size, config.width
    ),
    *pieces.norm('final_norm', 'model.norm', config),
  ]
  if not config.tied_head:
    table.append(
      pieces.as_it_is('head', 'lm_head.weight', config.vocab_size, config.width)
    )
  for i in range(config.depth):
    ours, theirs = f'layer_{i}', f'model.layers.{i}'
    table += _norms(config, ours, theirs)
    table += _attention(config, f'{ours}/attention', f'{theirs}.self_attn')
    table += _mlp(config, f'{ours}/mlp', f'{theirs}.mlp')
  return table


def _norms(config: TransformerConfig, ours: str, theirs: str) -> list[Weight]:
  names = {
    'attention_norm': 'input_layernorm',
    'mlp_norm': 'post_attention_layernorm',
  }
  if config.post_norms:
    names = {
      'attention_norm': 'input_layernorm',
      'attention_post_norm': 'post_attention_layernorm',
      'mlp_norm': 'pre_feedforward_layernorm',
      'mlp_post_norm': 'post_feedforward_layernorm',
    }
  return [
    weight
    for own, name in names.items()
    for weight in pieces.norm(f'{ours}/{own}', f'{theirs}.{name}', config)
  ]


def _attention(
  config: TransformerConfig, ours: str, theirs: str
) -> list[Weight]:
  projections = [f'{theirs}.{kind}_proj' for kind in 'qkv']
  output = (
    config.num_kv_heads,
    config.num_heads // config.num_kv_heads,
    config.head_dim,
    config.width,
  )

  def qkv(path: str, kind: str, bias: bool) -> Weight:
    names = tuple(f'{name}.{kind}' for name in projections)
    return pieces.query_key_value(f'{ours}/{path}', names, config, bias)

  table = [
    qkv('qkv', 'weight', False),
    pieces.transposed(f'{ours}/output', f'{theirs}.o_proj.weight', output),
  ]
  if config.qkv_bias:
    table.append(qkv('qkv_bias', 'bias', True))
  if config.output_bias:
    table.append(
      pieces.as_it_is(
        f'{ours}/output_bias', f'{theirs}.o_proj.bias', config.width
      )
    )
  if config.qk_norm:
    table += [
      pieces.as_it_is(
        f'{ours}/{own}_norm', f'{theirs}.{own[0]}_norm.weight', config.head_dim
      )
      for own in ('query', 'key')
    ]
  return table


def _mlp(config: TransformerConfig, ours: str, theirs: str) -> list[Weight]:
  width, hidden = config.width, config.mlp_width
  gate_up = tuple(f'{theirs}.{kind}_proj' for kind in ('gate', 'up'))
  table = [
    pieces.stacked_maps(
      f'{ours}/gate_up',
      tuple(f'{name}.weight' for name in gate_up),
      width,
      hidden,
    ),
    pieces.transposed(
      f'{ours}/down', f'{theirs}.down_proj.weight', (hidden, width)
    ),
  ]
  if config.mlp_bias:
    table += [
      pieces.stacked_biases(
        f'{ours}/gate_up_bias',
        tuple(f'{name}.bias' for name in gate_up),
        hidden,
      ),
      pieces.as_it_is(f'{ours}/down_bias', f'{theirs}.down_proj.bias', width),
    ]
  return table


def _read(fields: Fields) -> dict[str, Any]:
  common = read_common(fields, 'hidden_act')
  given = fields.given
  common['rotary'] = read_rotary(
    described(given),
    given,
    theta=given.get('rope_theta', 10_000.0),
    context=common['context'],
  )
  return common


def _write(config: TransformerConfig) -> dict[str, Any]:
  return write_common(config, 'hidden_act') | write_both(config.rotary)


def _read_llama(fields: Fields) -> dict[str, Any]:
  fields.shared('hidden_size', 'num_attention_heads')  # as `transformers` asks
  bias = fields.flag('attention_bias')
  return _read(fields) | {
    'qkv_bias': bias,
    'output_bias': bias,
    'mlp_bias': fields.flag('mlp_bias'),
  }


def _write_llama(config: TransformerConfig) -> dict[str, Any]:
  biases = {'attention_bias': config.qkv_bias, 'mlp_bias': config.mlp_bias}
  return _write(config) | biases


def _read_mistral(fields: Fields) -> dict[str, Any]:
  return _read(fields) | {'window': fields.size_or('sliding_window', None)}


def _write_mistral(config: TransformerConfig) -> dict[str, Any]:
  return _write(config) | {'sliding_window': config.window}


def _read_qwen(fields: Fields) -> dict[str, Any]:
  common = _read(fields)
  window = fields.size_or('sliding_window', None)
  if not fields.flag('use_sliding_window'):
    window = None
  first = fields.size('max_window_layers', least=0)
  usual = [window is not None and i >= first for i in range(common['depth'])]
  return common | fields.windows(window, usual)


def _write_qwen(config: TransformerConfig) -> dict[str, Any]:
  return _write(config) | {
    'use_sliding_window': config.window is not None,
    'sliding_window': config.window,
    'layer_types': layer_types(config),
  }


def _read_qwen2(fields: Fields) -> dict[str, Any]:
  return _read_qwen(fields) | {'qkv_bias': True}


def _read_qwen3(fields: Fields) -> dict[str, Any]:
  bias = fields.flag('attention_bias')
  return _read_qwen(fields) | {
    'qk_norm': True,
    'qkv_bias': bias,
    'output_bias': bias,
  }


def _write_qwen3(config: TransformerConfig) -> dict[str, Any]:
  return _write_qwen(config) | {'attention_bias': config.qkv_bias}


def kin_of_llama(
  architecture: str, model_type: str, defaults, read, write, fixed
) -> Family:
  """`make_family` for names and weights as Llama has them."""
  return make_family(
    architecture,
    model_type,
    defaults=defaults,
    fixed=FIXED | fixed,
    read=read,
    write=write,
    weights=weight_table,
    ignored=IGNORED,
    renames=RENAMES,
  )


LLAMA = kin_of_llama(
  'LlamaForCausalLM', 'llama', _LLAMA, _read_llama, _write_llama, {}
)
MISTRAL = kin_of_llama(
  'MistralForCausalLM',
  'mistral',
  _MISTRAL,
  _read_mistral,
  _write_mistral,
  {'layer_types': (None,)},
)
QWEN2 = kin_of_llama(
  'Qwen2ForCausalLM', 'qwen2', _QWEN2, _read_qwen2, _write_qwen, {}
)
QWEN3 = kin_of_llama(
  'Qwen3ForCausalLM', 'qwen3', _QWEN3, _read_qwen3, _write_qwen3, {}
)

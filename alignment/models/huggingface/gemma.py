"""Gemma 2 and 3 (text): norms of 1 + scale around every block, soft-caps.

Layers alternate between a window and the whole context; in Gemma 3 windowed
layers have rotary embeddings of their own.
"""

from __future__ import annotations

from typing import Any

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.config_json import (
  Fields,
  layer_types,
  refused,
)
from alignment.models.huggingface.llama_like import (
  kin_of_llama,
  read_common,
  write_common,
)
from alignment.models.huggingface.rope import (
  described,
  read_rotary,
  write_both,
  write_rotary,
)

_COMMON = {
  'hidden_size': 2304,
  'intermediate_size': 9216,
  'num_hidden_layers': 26,
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'hidden_activation': 'gelu_pytorch_tanh',
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': True,
  'rope_parameters': None,
  'attention_bias': False,
  'query_pre_attn_scalar': 256,
  'sliding_window': 4096,
  'layer_types': None,
}
_GEMMA2 = _COMMON | {
  'vocab_size': 256000,
  'max_position_embeddings': 8192,
  'final_logit_softcapping': 30.0,
  'attn_logit_softcapping': 50.0,
}
_GEMMA3 = _COMMON | {
  'vocab_size': 262208,
  'max_position_embeddings': 131072,
  'final_logit_softcapping': None,
}
_PATTERN = 'sliding_window_pattern'
"""Of older folders of Gemma 3: every how many layers one sees all."""


def _read(fields: Fields, pattern: int) -> dict[str, Any]:
  fields.shared('hidden_size', 'num_attention_heads')  # as `transformers` asks
  common = read_common(fields, 'hidden_activation')
  scalar = fields.size('query_pre_attn_scalar')
  plain = scalar == common['head_dim']
  bias = fields.flag('attention_bias')
  usual = [(i + 1) % pattern != 0 for i in range(common['depth'])]
  return common | {
    'norm_offset': 1.0,
    'post_norms': True,
    'qkv_bias': bias,
    'output_bias': bias,
    'query_scale': None if plain else scalar**-0.5,
    'logit_softcap': fields.positive_or_none('final_logit_softcapping'),
    'embedding_scale': common['width'] ** 0.5,
    **fields.windows(fields.size_or('sliding_window', None), usual),
  }


def _write(config: TransformerConfig) -> dict[str, Any]:
  scalar = config.head_dim
  if config.query_scale is not None:
    scalar = round(config.query_scale**-2)
  return write_common(config, 'hidden_activation') | {
    'attention_bias': config.qkv_bias,
    'query_pre_attn_scalar': scalar,
    'final_logit_softcapping': config.logit_softcap,
    # `transformers` wants a number even where no layer is windowed.
    'sliding_window': config.window or config.context,
    'layer_types': layer_types(config),
  }


def _read_gemma2(fields: Fields) -> dict[str, Any]:
  common = _read(fields, pattern=2)
  cap = fields.positive_or_none('attn_logit_softcapping')
  common['attention_softcap'] = cap
  given = fields.given
  common['rotary'] = read_rotary(
    described(given),
    given,
    theta=given.get('rope_theta', 10_000.0),
    context=common['context'],
  )
  return common


def _write_gemma2(config: TransformerConfig) -> dict[str, Any]:
  return _write(config) | {
    'attn_logit_softcapping': config.attention_softcap,
    **write_both(config.rotary),
  }


def _read_gemma3(fields: Fields) -> dict[str, Any]:
  given = fields.given
  pattern = given.get(_PATTERN, 6)
  if type(pattern) is not int or pattern < 1:
    raise refused(_PATTERN, pattern, 'an integer ≥ 1')
  common = _read(fields, pattern) | {'qk_norm': True}
  full, sliding = _by_kind(given)
  common['rotary'] = read_rotary(
    full,
    given,
    theta=given.get('rope_theta', 1_000_000.0),
    context=common['context'],
  )
  local = read_rotary(
    sliding,
    given,
    theta=given.get('rope_local_base_freq', 10_000.0),
    context=common['context'],
  )
  if common['window'] is not None and local != common['rotary']:
    common['local_rotary'] = local
  return common


def _by_kind(given) -> tuple[dict[str, Any], dict[str, Any]]:
  """Rotary embeddings of full and of sliding layers, as they are described.

  `rope_scaling` is about full layers alone.
  """
  kinds = described({'rope_parameters': given.get('rope_parameters')})
  names = ('full_attention', 'sliding_attention')
  for name, value in kinds.items():
    if name not in names:
      raise refused(
        'rope_parameters',
        name,
        f'one dictionary each for {" and ".join(names)}',
      )
    if value is not None and not isinstance(value, dict):
      raise refused(f'rope_parameters.{name}', value, 'an object or null')
  full, sliding = (dict(kinds.get(name) or {}) for name in names)
  scaling = described({'rope_scaling': given.get('rope_scaling')})
  return full | scaling, sliding


def _write_gemma3(config: TransformerConfig) -> dict[str, Any]:
  local = config.local_rotary or config.rotary
  return _write(config) | {
    **write_both(config.rotary),
    'rope_parameters': {
      'full_attention': write_rotary(config.rotary),
      'sliding_attention': write_rotary(local),
    },
    'rope_local_base_freq': local.theta,
  }


_FIXED = {'use_bidirectional_attention': (None, False)}

GEMMA2 = kin_of_llama(
  'Gemma2ForCausalLM', 'gemma2', _GEMMA2, _read_gemma2, _write_gemma2, _FIXED
)
GEMMA3 = kin_of_llama(
  'Gemma3ForCausalLM',
  'gemma3_text',
  _GEMMA3,
  _read_gemma3,
  _write_gemma3,
  # `transformers` has the field for Gemma 3 and does nothing with it.
  _FIXED | {'attn_logit_softcapping': (None,)},
)

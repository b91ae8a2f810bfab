"""GPT-2: LayerNorm, learned positions, biases everywhere, plain MLP.

Its linear maps are kept as `[in, out]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.models.config import TransformerConfig
from alignment.models.huggingface import pieces
from alignment.models.huggingface.config_json import (
  MOST_LAYERS,
  Fields,
  activation_name,
  make_family,
  refused,
)
from alignment.models.huggingface.family import Weight

_DEFAULTS = {
  'vocab_size': 50257,
  'n_positions': 1024,
  'n_embd': 768,
  'n_layer': 12,
  'n_head': 12,
  'n_inner': None,
  'activation_function': 'gelu_new',
  'layer_norm_epsilon': 1e-5,
  'scale_attn_weights': True,
  'tie_word_embeddings': True,
}
_ALIASES = {
  'hidden_size': 'n_embd',
  'max_position_embeddings': 'n_positions',
  'num_attention_heads': 'n_head',
  'num_hidden_layers': 'n_layer',
}


def _read(fields: Fields) -> dict[str, Any]:
  fields = Fields(_own_names(fields.given), fields.defaults)
  heads, width = fields.size('n_head'), fields.size('n_embd')
  return {
    'vocab_size': fields.size('vocab_size'),
    'width': width,
    'depth': fields.size('n_layer', MOST_LAYERS),
    'num_heads': heads,
    'num_kv_heads': heads,
    'head_dim': fields.shared('n_embd', 'n_head'),
    'mlp_width': fields.size_or('n_inner', 4 * width),
    'context': fields.size('n_positions'),
    'norm_eps': fields.positive('layer_norm_epsilon'),
    'activation': fields.activation('activation_function'),
    'tied_head': fields.flag('tie_word_embeddings'),
    'query_scale': None if fields.flag('scale_attn_weights') else 1.0,
    'rotary': None,
    'norm': 'layer',
    'gated': False,
    'qkv_bias': True,
    'output_bias': True,
    'mlp_bias': True,
  }


def _own_names(given: Mapping[str, Any]) -> dict[str, Any]:
  """The fields under the names that GPT-2 has for them."""
  own = dict(given)
  for alias, name in _ALIASES.items():
    if alias not in given:
      continue
    if given.get(name, given[alias]) != given[alias]:
      raise refused(alias, given[alias], f'{name} = {given[name]!r:.80}')
    own[name] = given[alias]
  return own


def _write(config: TransformerConfig) -> dict[str, Any]:
  return {
    'vocab_size': config.vocab_size,
    'n_embd': config.width,
    'n_layer': config.depth,
    'n_head': config.num_heads,
    'n_inner': config.mlp_width,
    'n_positions': config.context,
    'layer_norm_epsilon': config.norm_eps,
    'activation_function': activation_name(config, 'gelu_new'),
    'scale_attn_weights': config.query_scale is None,
    'tie_word_embeddings': config.tied_head,
  }


def weight_table(config: TransformerConfig) -> list[Weight]:
  """The tensors of GPT-2."""
  width, base = config.width, 'transformer'
  vocabulary = (config.vocab_size, width)
  table = [
    pieces.as_it_is('embedding', f'{base}.wte.weight', *vocabulary),
    pieces.as_it_is('positions', f'{base}.wpe.weight', config.context, width),
    *pieces.norm('final_norm', f'{base}.ln_f', config),
  ]
  if not config.tied_head:
    table.append(pieces.as_it_is('head', 'lm_head.weight', *vocabulary))
  for i in range(config.depth):
    table += _layer(config, f'layer_{i}', f'{base}.h.{i}')
  return table


def _layer(config: TransformerConfig, ours: str, theirs: str) -> list[Weight]:
  width, hidden = config.width, config.mlp_width
  output = (config.num_heads, 1, config.head_dim, width)
  table = [
    *pieces.norm(f'{ours}/attention_norm', f'{theirs}.ln_1', config),
    *pieces.norm(f'{ours}/mlp_norm', f'{theirs}.ln_2', config),
  ]
  maps = {
    'attention/output': ('attn.c_proj', output),
    'mlp/gate_up': ('mlp.c_fc', (width, 1, hidden)),
    'mlp/down': ('mlp.c_proj', (hidden, width)),
  }
  biases = {
    'attention/output_bias': ('attn.c_proj', (width,)),
    'mlp/gate_up_bias': ('mlp.c_fc', (1, hidden)),
    'mlp/down_bias': ('mlp.c_proj', (width,)),
  }
  for path, (name, shape) in maps.items():
    flat = (hidden if path == 'mlp/down' else width, shape[-1])
    table.append(
      pieces.reshaped(f'{ours}/{path}', f'{theirs}.{name}.weight', flat, shape)
    )
  for path, (name, shape) in biases.items():
    table.append(
      pieces.reshaped(
        f'{ours}/{path}', f'{theirs}.{name}.bias', shape[-1:], shape
      )
    )
  for path, kind in (('qkv', 'weight'), ('qkv_bias', 'bias')):
    table.append(
      pieces.fused_query_key_value(
        f'{ours}/attention/{path}',
        f'{theirs}.attn.c_attn.{kind}',
        config,
        order='kind',
        bias=kind == 'bias',
      )
    )
  return table


GPT2 = make_family(
  'GPT2LMHeadModel',
  'gpt2',
  defaults=_DEFAULTS,
  fixed={
    'add_cross_attention': (False,),
    'scale_attn_by_inverse_layer_idx': (False,),
  },
  read=_read,
  write=_write,
  weights=weight_table,
  ignored=(r'transformer\.h\.\d+\.attn\.(masked_)?bias',),
  # Folders from before the head was part of the model.
  renames=((r'^(?=(wte|wpe|h|ln_f)\.)', 'transformer.'),),
)

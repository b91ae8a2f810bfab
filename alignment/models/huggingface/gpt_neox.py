"""GPT-NeoX (Pythia): LayerNorm, parallel blocks, part of a head turns."""

from __future__ import annotations

from typing import Any

from alignment.models.config import TransformerConfig
from alignment.models.huggingface import pieces
from alignment.models.huggingface.config_json import (
  MOST_LAYERS,
  Fields,
  activation_name,
  make_family,
)
from alignment.models.huggingface.family import Weight
from alignment.models.huggingface.rope import (
  described,
  read_rotary,
  write_both,
)

_DEFAULTS = {
  'vocab_size': 50432,
  'hidden_size': 6144,
  'num_hidden_layers': 44,
  'num_attention_heads': 64,
  'intermediate_size': 24576,
  'hidden_act': 'gelu',
  'max_position_embeddings': 2048,
  'layer_norm_eps': 1e-5,
  'tie_word_embeddings': False,
  'use_parallel_residual': True,
  'rope_parameters': None,
  'attention_bias': True,
}


def _read(fields: Fields) -> dict[str, Any]:
  given = fields.given
  heads = fields.size('num_attention_heads')
  head_dim = fields.shared('hidden_size', 'num_attention_heads')
  context = fields.size('max_position_embeddings')
  rotary = read_rotary(
    described(given),
    given,
    theta=given.get('rotary_emb_base', 10_000.0),
    context=context,
    fraction=given.get('rotary_pct', 0.25),
  )
  bias = fields.flag('attention_bias')
  return {
    'vocab_size': fields.size('vocab_size'),
    'width': fields.size('hidden_size'),
    'depth': fields.size('num_hidden_layers', MOST_LAYERS),
    'num_heads': heads,
    'num_kv_heads': heads,
    'head_dim': head_dim,
    'mlp_width': fields.size('intermediate_size'),
    'context': context,
    'rotary': rotary,
    'norm': 'layer',
    'norm_eps': fields.positive('layer_norm_eps'),
    'parallel': fields.flag('use_parallel_residual'),
    'activation': fields.activation('hidden_act'),
    'gated': False,
    'qkv_bias': bias,
    'output_bias': bias,
    'mlp_bias': True,
    'tied_head': fields.flag('tie_word_embeddings'),
  }


def _write(config: TransformerConfig) -> dict[str, Any]:
  written = {
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.depth,
    'num_attention_heads': config.num_heads,
    'intermediate_size': config.mlp_width,
    'max_position_embeddings': config.context,
    'layer_norm_eps': config.norm_eps,
    'use_parallel_residual': config.parallel,
    'hidden_act': activation_name(config),
    'attention_bias': config.qkv_bias,
    'tie_word_embeddings': config.tied_head,
    **write_both(config.rotary),
  }
  theta, fraction = written.pop('rope_theta'), config.rotary.fraction
  written['rope_parameters']['partial_rotary_factor'] = fraction
  return written | {'rotary_emb_base': theta, 'rotary_pct': fraction}


def weight_table(config: TransformerConfig) -> list[Weight]:
  """The tensors of GPT-NeoX."""
  vocabulary = (config.vocab_size, config.width)
  base = 'gpt_neox'
  table = [
    pieces.as_it_is('embedding', f'{base}.embed_in.weight', *vocabulary),
    *pieces.norm('final_norm', f'{base}.final_layer_norm', config),
  ]
  if not config.tied_head:
    table.append(pieces.as_it_is('head', 'embed_out.weight', *vocabulary))
  for i in range(config.depth):
    table += _layer(config, f'layer_{i}', f'{base}.layers.{i}')
  return table


def _layer(config: TransformerConfig, ours: str, theirs: str) -> list[Weight]:
  width, hidden = config.width, config.mlp_width
  attention, dense = f'{ours}/attention', f'{theirs}.attention.dense'
  up, down = f'{theirs}.mlp.dense_h_to_4h', f'{theirs}.mlp.dense_4h_to_h'
  output = (config.num_heads, 1, config.head_dim, width)

  def qkv(path: str, kind: str) -> Weight:
    return pieces.fused_query_key_value(
      f'{attention}/{path}',
      f'{theirs}.attention.query_key_value.{kind}',
      config,
      order='head',
      bias=kind == 'bias',
    )

  table = [
    *pieces.norm(f'{ours}/attention_norm', f'{theirs}.input_layernorm', config),
    *pieces.norm(
      f'{ours}/mlp_norm', f'{theirs}.post_attention_layernorm', config
    ),
    qkv('qkv', 'weight'),
    pieces.transposed(f'{attention}/output', f'{dense}.weight', output),
    pieces.stacked_maps(
      f'{ours}/mlp/gate_up', (f'{up}.weight',), width, hidden
    ),
    pieces.transposed(f'{ours}/mlp/down', f'{down}.weight', (hidden, width)),
    pieces.stacked_biases(f'{ours}/mlp/gate_up_bias', (f'{up}.bias',), hidden),
    pieces.as_it_is(f'{ours}/mlp/down_bias', f'{down}.bias', width),
  ]
  if config.qkv_bias:
    table += [
      qkv('qkv_bias', 'bias'),
      pieces.as_it_is(f'{attention}/output_bias', f'{dense}.bias', width),
    ]
  return table


GPT_NEOX = make_family(
  'GPTNeoXForCausalLM',
  'gpt_neox',
  defaults=_DEFAULTS,
  fixed={},
  read=_read,
  write=_write,
  weights=weight_table,
  ignored=(
    r'gpt_neox\.layers\.\d+\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)',
  ),
  renames=(
    (r'^(?=(embed_in|layers|final_layer_norm)\.)', 'gpt_neox.'),
    (r'^lm_head\.', 'embed_out.'),
  ),
)

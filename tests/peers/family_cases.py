"""Small random models of `transformers`, of every family that is read."""

import functools

from tests.peers.installed import peer

CONTEXT = 64
_SIZES = {
  'vocab_size': 37,
  'hidden_size': 24,
  'intermediate_size': 20,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'max_position_embeddings': CONTEXT,
}
_ALL = {'num_key_value_heads': 4}
"""As many heads for keys as for queries."""
_GPT2 = {
  'vocab_size': 37,
  'n_embd': 24,
  'n_layer': 2,
  'n_head': 4,
  'n_positions': CONTEXT,
}
_NEOX = {k: v for k, v in _SIZES.items() if k != 'num_key_value_heads'}


def _rope(kind, theta=150.0, **more):
  # A base so small that every feature turns visibly within the texts.
  return {
    'rope_parameters': {'rope_type': kind, 'rope_theta': theta, **more},
  }


_LLAMA3 = _rope(
  'llama3',
  factor=8.0,
  low_freq_factor=1.0,
  high_freq_factor=4.0,
  original_max_position_embeddings=24,
)
_YARN = _rope(
  'yarn',
  factor=4.0,
  original_max_position_embeddings=16,
  beta_fast=8.0,
  beta_slow=0.5,
)
_GEMMA = {
  'head_dim': 8,
  'sliding_window': 5,
  'query_pre_attn_scalar': 11,
}
_CAPS = {'attn_logit_softcapping': 3.0, 'final_logit_softcapping': 4.0}

CASES: dict[str, tuple[str, dict]] = {
  'llama': ('LlamaForCausalLM', _rope('default')),
  'llama, tied, linear': (
    'LlamaForCausalLM',
    {**_ALL, **_rope('linear', factor=3.0), 'tie_word_embeddings': True},
  ),
  'llama, llama3, biases': (
    'LlamaForCausalLM',
    {**_LLAMA3, 'attention_bias': True, 'mlp_bias': True, 'head_dim': 10},
  ),
  'llama, yarn, gelu': ('LlamaForCausalLM', {**_YARN, 'hidden_act': 'gelu'}),
  'mistral, window': (
    'MistralForCausalLM',
    {'sliding_window': 5, 'head_dim': 10, **_rope('default')},
  ),
  'mistral, tied': (
    'MistralForCausalLM',
    {**_ALL, 'sliding_window': None, 'tie_word_embeddings': True},
  ),
  'qwen2, tied': (
    'Qwen2ForCausalLM',
    {'tie_word_embeddings': True, **_rope('default')},
  ),
  'qwen2, last layers windowed': (
    'Qwen2ForCausalLM',
    {
      **_ALL,
      'use_sliding_window': True,
      'sliding_window': 6,
      'max_window_layers': 1,
    },
  ),
  'qwen2, some layers windowed, yarn': (
    'Qwen2ForCausalLM',
    {
      **_YARN,
      'num_hidden_layers': 3,
      'use_sliding_window': True,
      'sliding_window': 4,
      'layer_types': [
        'sliding_attention',
        'full_attention',
        'sliding_attention',
      ],
      'head_dim': 10,
    },
  ),
  'qwen3': ('Qwen3ForCausalLM', {'head_dim': 10, **_rope('default')}),
  'qwen3, tied, biases, window': (
    'Qwen3ForCausalLM',
    {
      **_ALL,
      'head_dim': 6,
      'attention_bias': True,
      'use_sliding_window': True,
      'sliding_window': 6,
      'max_window_layers': 0,
      'tie_word_embeddings': True,
    },
  ),
  'gemma2, soft-caps': (
    'Gemma2ForCausalLM',
    {**_GEMMA, **_CAPS, **_rope('default')},
  ),
  'gemma2, untied, biases': (
    'Gemma2ForCausalLM',
    {
      **_ALL,
      **_GEMMA,
      'query_pre_attn_scalar': 8,
      'attention_bias': True,
      'attn_logit_softcapping': None,
      'final_logit_softcapping': None,
      'layer_types': ['full_attention'] * 2,
      'tie_word_embeddings': False,
    },
  ),
  'gemma3': (
    'Gemma3ForCausalLM',
    {
      **_GEMMA,
      'sliding_window_pattern': 2,
      'rope_parameters': {
        'full_attention': {'rope_type': 'default', 'rope_theta': 500.0},
        'sliding_attention': {'rope_type': 'default', 'rope_theta': 50.0},
      },
    },
  ),
  'gemma3, untied, linear, soft-cap': (
    'Gemma3ForCausalLM',
    {
      **_ALL,
      **_GEMMA,
      'final_logit_softcapping': 4.0,
      'attention_bias': True,
      'num_hidden_layers': 3,
      'layer_types': ['sliding_attention'] * 2 + ['full_attention'],
      'rope_parameters': {
        'full_attention': {
          'rope_type': 'linear',
          'rope_theta': 150.0,
          'factor': 4.0,
        },
        'sliding_attention': {'rope_type': 'default', 'rope_theta': 50.0},
      },
      'tie_word_embeddings': False,
    },
  ),
  'gpt2': ('GPT2LMHeadModel', {}),
  'gpt2, untied, unscaled': (
    'GPT2LMHeadModel',
    {
      'n_inner': 20,
      'activation_function': 'gelu',
      'scale_attn_weights': False,
      'tie_word_embeddings': False,
    },
  ),
  'gpt_neox': (
    'GPTNeoXForCausalLM',
    {'hidden_size': 32, **_rope('default', partial_rotary_factor=0.25)},
  ),
  'gpt_neox, sequential, tied': (
    'GPTNeoXForCausalLM',
    {
      'use_parallel_residual': False,
      'attention_bias': False,
      'tie_word_embeddings': True,
      **_rope('linear', factor=2.0, partial_rotary_factor=1.0),
    },
  ),
}
"""Name -> architecture and what differs from the small sizes."""


@functools.cache
def random_model(case: str):
  """The model of a case, float32, nothing in it nearly linear."""
  torch, transformers = peer('torch'), peer('transformers')
  architecture, changes = CASES[case]
  sizes = {'GPT2LMHeadModel': _GPT2, 'GPTNeoXForCausalLM': _NEOX}
  cls = getattr(transformers, architecture)
  config = cls.config_class(
    **{
      **sizes.get(architecture, _SIZES),
      'bos_token_id': None,
      'eos_token_id': None,
      'pad_token_id': None,
      'attn_implementation': 'eager',  # the only one with soft-caps
      **changes,
    }
  )
  model = cls(config).eval()
  generator = torch.Generator().manual_seed(len(case))
  with torch.no_grad():
    for name, weight in model.named_parameters():
      # Scales of norms spread around what they start from, 0 or 1.
      is_scale = weight.dim() == 1 and name.endswith('weight')
      centre = weight.mean().round() if is_scale else 0.0
      weight.normal_(0.0, 0.3, generator=generator).add_(centre)
  return model

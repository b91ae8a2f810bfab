"""A small random Llama of `transformers`, and its weights as our parameters."""

import jax.numpy as jnp
import numpy as np

from alignment.models.config import TransformerConfig
from tests.peers.installed import peer


def small_config(**changes):
  """Grouped heads, every size different, heads wider than the model."""
  sizes = dict(
    vocab_size=23,
    width=20,
    depth=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_width=14,
  )
  return TransformerConfig(**(sizes | changes))


def random_llama(config: TransformerConfig, seed: int):
  """LlamaForCausalLM of these sizes, float32, nothing in it nearly linear."""
  torch, transformers = peer('torch'), peer('transformers')
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=config.vocab_size,
      hidden_size=config.width,
      num_hidden_layers=config.depth,
      num_attention_heads=config.num_heads,
      num_key_value_heads=config.num_kv_heads,
      head_dim=config.head_dim,
      intermediate_size=config.mlp_width,
      rms_norm_eps=config.norm_eps,
      rope_parameters={
        'rope_type': 'default',
        'rope_theta': config.rotary.theta,
      },
      tie_word_embeddings=config.tied_head,
      attn_implementation='eager',
    )
  )
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for weight in model.parameters():
      is_norm = weight.dim() == 1
      weight.normal_(float(is_norm), 0.3, generator=generator)
  return model


def as_parameters(model, config: TransformerConfig, read=lambda weight: weight):
  """`read` of every weight of a Llama, arranged as our parameter tree.

  Args:
    model: LlamaForCausalLM.
    config: the sizes it was made with.
    read: weight -> tensor of its shape; `weight.grad` gives a gradient tree,
      as the arrangement only moves numbers.
  """
  heads, features = config.num_kv_heads, config.head_dim
  per_head = config.num_heads // heads

  def array(weight):
    return read(weight).detach().numpy()

  def layer(block):
    attention, mlp = block.self_attn, block.mlp

    def projected(linear, count):
      flat = array(linear.weight).T
      return flat.reshape(config.width, heads, count, features)

    qkv = np.concatenate(
      [
        projected(attention.q_proj, per_head),
        projected(attention.k_proj, 1),
        projected(attention.v_proj, 1),
      ],
      axis=2,
    )
    output = array(attention.o_proj.weight).T
    gate_up = [array(mlp.gate_proj.weight).T, array(mlp.up_proj.weight).T]
    return {
      'attention_norm': {'scale': array(block.input_layernorm.weight)},
      'attention': {
        'qkv': qkv,
        'output': output.reshape(heads, per_head, features, config.width),
      },
      'mlp_norm': {'scale': array(block.post_attention_layernorm.weight)},
      'mlp': {
        'gate_up': np.stack(gate_up, axis=1),
        'down': array(mlp.down_proj.weight).T,
      },
    }

  tree = {
    'embedding': array(model.model.embed_tokens.weight),
    'final_norm': {'scale': array(model.model.norm.weight)},
    **{f'layer_{i}': layer(x) for i, x in enumerate(model.model.layers)},
  }
  if not config.tied_head:
    tree['head'] = array(model.lm_head.weight)
  return _on_device(tree)


def _on_device(tree):
  # Copies: the torch weights are trained in place.
  if isinstance(tree, dict):
    return {name: _on_device(leaf) for name, leaf in tree.items()}
  return jnp.array(tree, jnp.float32, copy=True)

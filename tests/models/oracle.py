"""A second transformer in float64 numpy: one plain sequence at a time.

It knows nothing of trees, chunks or fused products; weights are cut into the
usual separate matrices first. Options are read one by one, where the usual
description of the family mentions them.
"""

import math

import numpy as np


def _norm(x, weights, config):
  if config.norm == 'rms':
    return _rms(x, weights['scale'], config)
  centred = x - x.mean(-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + config.norm_eps)
  scale = weights['scale'] + config.norm_offset
  return centred / deviation * scale + weights['bias']


def _rms(x, scale, config):
  size = np.sqrt(np.mean(x**2, -1, keepdims=True) + config.norm_eps)
  return x / size * (scale + config.norm_offset)


def _turn(x, rotary):
  """Rotary embedding of `[T, F]` by complex numbers; slow if scaled."""
  if rotary is None:
    return x
  assert rotary.scaling in ('none', 'linear')
  half = round(x.shape[-1] * rotary.fraction) // 2
  speed = rotary.theta ** (-np.arange(half) / half)
  if rotary.scaling == 'linear':
    speed = speed / rotary.factor
  turn = np.exp(1j * np.arange(len(x))[:, None] * speed)
  turned = (x[:, :half] + 1j * x[:, half : 2 * half]) * turn
  return np.concatenate([turned.real, turned.imag, x[:, 2 * half :]], -1)


def _cap(x, cap):
  return x if cap is None else cap * np.tanh(x / cap)


def _visible(length, window):
  if window is None:
    window = length
  return np.array(
    [[0 <= i - j < window for j in range(length)] for i in range(length)]
  )


def _attention(x, weights, config, is_windowed):
  per_head = config.num_heads // config.num_kv_heads
  rotary = config.rotary
  if is_windowed and config.local_rotary is not None:
    rotary = config.local_rotary
  visible = _visible(len(x), config.window if is_windowed else None)
  scale = config.query_scale
  if scale is None:
    scale = 1 / np.sqrt(config.head_dim)

  def projected(shared, part):
    out = x @ weights['qkv'][:, shared, part]
    return out + weights['qkv_bias'][shared, part] if config.qkv_bias else out

  out = np.zeros_like(x)
  for head in range(config.num_heads):
    shared, own = divmod(head, per_head)
    query, key = projected(shared, own), projected(shared, per_head)
    if config.qk_norm:
      query = _rms(query, weights['query_norm'], config)
      key = _rms(key, weights['key_norm'], config)
    value = projected(shared, per_head + 1)
    scores = _turn(query, rotary) @ _turn(key, rotary).T * scale
    scores = _cap(scores, config.attention_softcap)
    scores = np.exp(np.where(visible, scores, -np.inf))
    mixed = scores / scores.sum(-1, keepdims=True) @ value
    out += mixed @ weights['output'][shared, own]
  return out + weights['output_bias'] if config.output_bias else out


def _activation(x, config):
  if config.activation == 'silu':
    return x / (1 + np.exp(-x))
  if config.activation == 'gelu':
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
  inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return x * (1 + np.tanh(inner)) / 2


def _mlp(x, weights, config):
  def projected(part):
    out = x @ weights['gate_up'][:, part]
    return out + weights['gate_up_bias'][part] if config.mlp_bias else out

  hidden = _activation(projected(0), config)
  if config.gated:
    hidden = hidden * projected(1)
  out = hidden @ weights['down']
  return out + weights['down_bias'] if config.mlp_bias else out


def hidden_states(params, tokens, config):
  """`[T, D]` after the final norm, for one sequence of tokens."""
  x = params['embedding'][tokens] * config.embedding_scale
  if config.rotary is None:
    x = x + params['positions'][: len(tokens)]
  windowed = config.windowed
  if windowed is None:
    windowed = [config.window is not None] * config.depth
  for index in range(config.depth):
    layer = params[f'layer_{index}']
    normed = _norm(x, layer['attention_norm'], config)
    added = _attention(normed, layer['attention'], config, windowed[index])
    if config.post_norms:
      added = _norm(added, layer['attention_post_norm'], config)
    before, x = x, x + added
    read = before if config.parallel else x
    added = _mlp(_norm(read, layer['mlp_norm'], config), layer['mlp'], config)
    if config.post_norms:
      added = _norm(added, layer['mlp_post_norm'], config)
    x = x + added
  return _norm(x, params['final_norm'], config)


def logits(params, tokens, config):
  """`[T, V]` after each of the tokens."""
  table = params['embedding' if config.tied_head else 'head']
  hidden = hidden_states(params, tokens, config)
  return _cap(hidden @ table.T, config.logit_softcap)


def completion_statistics(params, prompt, completion, config):
  """name -> `[length]` for the tokens of one completion."""
  tokens = np.concatenate([prompt, completion])
  own = logits(params, tokens, config)[len(prompt) - 1 : -1]
  probabilities = np.exp(own) / np.exp(own).sum(-1, keepdims=True)
  chosen = probabilities[np.arange(len(completion)), completion]
  return {
    'token_logps': np.log(chosen),
    'token_entropy': -(probabilities * np.log(probabilities)).sum(-1),
    'token_log_sum_squares': np.log((probabilities**2).sum(-1)),
  }


def completion_reward(params, prompt, completion, config):
  tokens = np.concatenate([prompt, completion])
  return hidden_states(params, tokens, config)[-1] @ params['reward_head']

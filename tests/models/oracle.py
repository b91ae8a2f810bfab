"""A second transformer in float64 numpy: one plain sequence at a time.

It knows nothing of trees, chunks or fused products; weights are cut into the
usual separate matrices first.
"""

import numpy as np


def _norm(x, scale, eps):
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps) * scale


def _turn(x, theta):
  """Rotary embedding of `[T, F]` by complex numbers."""
  half = x.shape[-1] // 2
  speed = theta ** (-np.arange(half) / half)
  turn = np.exp(1j * np.arange(len(x))[:, None] * speed)
  turned = (x[:, :half] + 1j * x[:, half:]) * turn
  return np.concatenate([turned.real, turned.imag], -1)


def _attention(x, weights, config):
  qkv = weights['qkv']
  per_head = config.num_heads // config.num_kv_heads
  causal = np.tril(np.ones((len(x), len(x)), bool))
  out = np.zeros_like(x)
  for head in range(config.num_heads):
    shared, own = divmod(head, per_head)
    query = _turn(x @ qkv[:, shared, own], config.rotary.theta)
    key = _turn(x @ qkv[:, shared, per_head], config.rotary.theta)
    value = x @ qkv[:, shared, per_head + 1]
    scores = query @ key.T / np.sqrt(config.head_dim)
    scores = np.exp(np.where(causal, scores, -np.inf))
    mixed = scores / scores.sum(-1, keepdims=True) @ value
    out += mixed @ weights['output'][shared, own]
  return out


def _mlp(x, weights):
  gate, up = x @ weights['gate_up'][:, 0], x @ weights['gate_up'][:, 1]
  return (gate / (1 + np.exp(-gate)) * up) @ weights['down']


def hidden_states(params, tokens, config):
  """`[T, D]` after the final norm, for one sequence of tokens."""
  x = params['embedding'][tokens]
  for index in range(config.depth):
    layer = params[f'layer_{index}']
    normed = _norm(x, layer['attention_norm']['scale'], config.norm_eps)
    x = x + _attention(normed, layer['attention'], config)
    normed = _norm(x, layer['mlp_norm']['scale'], config.norm_eps)
    x = x + _mlp(normed, layer['mlp'])
  return _norm(x, params['final_norm']['scale'], config.norm_eps)


def completion_statistics(params, prompt, completion, config):
  """name -> `[length]` for the tokens of one completion."""
  tokens = np.concatenate([prompt, completion])
  hidden = hidden_states(params, tokens, config)[len(prompt) - 1 : -1]
  table = params['embedding' if config.tied_head else 'head']
  logits = hidden @ table.T
  probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  chosen = probabilities[np.arange(len(completion)), completion]
  return {
    'token_logps': np.log(chosen),
    'token_entropy': -(probabilities * np.log(probabilities)).sum(-1),
    'token_log_sum_squares': np.log((probabilities**2).sum(-1)),
  }


def completion_reward(params, prompt, completion, config):
  tokens = np.concatenate([prompt, completion])
  return hidden_states(params, tokens, config)[-1] @ params['reward_head']

"""Folders of arrays for tests, and what their Llama computes by definition."""

import json
import pathlib

import numpy as np

SIZES = {
  'dim': 24,
  'hidden': 20,
  'layers': 2,
  'heads': 4,
  'kv_heads': 2,
  'vocab': 300,
  'seq': 16,
  'tied': True,
  'norm_eps': 1e-5,
  'rope_theta': 100.0,
  'rope_pairs': 'interleaved (even,odd)',
  'activation': 'silu-gated',
  'bos': 1,
  'eos': 2,
  'unk': 0,
}
"""Heads of 6 features: three pairs turn."""


def pieces(vocab: int) -> list[str]:
  """Three special ones, all bytes, then '▁' and letters."""
  characters = ['▁', *'etaoinshrdlucmfwypvbgkqjxzETAOINSHRDLUCM.,!?']
  special = ['<unk>', '<s>', '</s>', *(f'<0x{b:02X}>' for b in range(256))]
  return (special + characters)[:vocab]


def random_arrays(seed: int, sizes: dict = SIZES) -> dict[str, np.ndarray]:
  """Float32 arrays, none of them symmetric."""
  rng = np.random.default_rng(seed)
  depth, dim, hidden = sizes['layers'], sizes['dim'], sizes['hidden']
  keys = sizes['kv_heads'] * dim // sizes['heads']
  shapes = {
    'tok_emb': (sizes['vocab'], dim),
    'wq': (depth, dim, dim),
    'wk': (depth, keys, dim),
    'wv': (depth, keys, dim),
    'wo': (depth, dim, dim),
    'w1': (depth, hidden, dim),
    'w2': (depth, dim, hidden),
    'w3': (depth, hidden, dim),
  }
  arrays = {k: rng.normal(0, 0.4, shape) for k, shape in shapes.items()}
  for name, shape in {
    'att_norm': (depth, dim),
    'ffn_norm': (depth, dim),
    'final_norm': (dim,),
  }.items():
    arrays[name] = rng.uniform(0.5, 1.5, shape)
  return {name: array.astype(np.float32) for name, array in arrays.items()}


def write(
  folder: pathlib.Path, arrays: dict[str, np.ndarray], sizes: dict = SIZES
) -> pathlib.Path:
  """The folder, with both files in it."""
  folder.mkdir(parents=True, exist_ok=True)
  np.savez(folder / 'params_fp32.npz', **arrays)
  said = {**sizes, 'pieces': sizes.get('pieces') or pieces(sizes['vocab'])}
  (folder / 'config_and_vocab.json').write_text(json.dumps(said))
  return folder


def logits(
  arrays: dict[str, np.ndarray], sizes: dict, tokens: np.ndarray
) -> np.ndarray:
  """`[T, V]` in float64: pairs of neighbours turn, heads one by one."""
  a = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
  heads = sizes['heads']
  per_key, features = heads // sizes['kv_heads'], sizes['dim'] // heads
  x = a['tok_emb'][tokens]
  blind = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
  for i in range(sizes['layers']):
    y = _norm(x, a['att_norm'][i], sizes)
    mixed = []
    for head in range(heads):
      own = slice(head * features, (head + 1) * features)
      at = head // per_key
      shared = slice(at * features, (at + 1) * features)
      query = _turn(y @ a['wq'][i][own].T, sizes)
      key = _turn(y @ a['wk'][i][shared].T, sizes)
      scores = query @ key.T / np.sqrt(features) + blind
      weights = np.exp(scores - scores.max(axis=1, keepdims=True))
      weights /= weights.sum(axis=1, keepdims=True)
      mixed.append(weights @ (y @ a['wv'][i][shared].T))
    x = x + np.concatenate(mixed, axis=1) @ a['wo'][i].T
    y = _norm(x, a['ffn_norm'][i], sizes)
    gate = y @ a['w1'][i].T
    x = x + (gate / (1 + np.exp(-gate)) * (y @ a['w3'][i].T)) @ a['w2'][i].T
  return _norm(x, a['final_norm'], sizes) @ a['tok_emb'].T


def _norm(x, scale, sizes):
  return (
    x / np.sqrt((x * x).mean(-1, keepdims=True) + sizes['norm_eps']) * scale
  )


def _turn(x, sizes):
  """Every pair of neighbours as one complex number, turned by its angle."""
  features = x.shape[1]
  speed = sizes['rope_theta'] ** (-np.arange(0, features, 2) / features)
  turned = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(
    1j * np.arange(len(x))[:, None] * speed
  )
  return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)

"""Small Hugging Face folders for tests of experiments."""

import pathlib

import jax
import numpy as np

from alignment.data.tokenizer_files import byte_files
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.huggingface.card import Provenance
from alignment.protocols.policies import Origin, write_folder

CONFIG = TransformerConfig(
  vocab_size=260,
  width=16,
  depth=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_width=24,
  context=64,
  norm_eps=1e-5,
  tied_head=True,
)
IDS = {'bos_token_id': 256, 'eos_token_id': 257, 'pad_token_id': 258}
ORIGIN = Origin(CONFIG, byte_files(), IDS)


def params_of(seed: int):
  """Random parameters, none of them at a neutral value."""
  params = build(CONFIG).init(jax.random.key(seed))
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: np.asarray(x + rng.normal(0, 0.05, x.shape), np.float32), params
  )


def write(folder: pathlib.Path, seed: int = 7) -> str:
  """A random Llama that reads bytes."""
  said = Provenance(data='', noise='', loss='', seeds=())
  write_folder(folder, ORIGIN, params_of(seed), said)
  return str(folder)

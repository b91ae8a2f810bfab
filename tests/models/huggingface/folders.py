"""Small random models in folders, and ways to spoil them."""

import json
import pathlib

import jax
import numpy as np
import safetensors.numpy

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.card import Provenance
from alignment.models.huggingface.families import FAMILIES
from alignment.models.huggingface.save import save_model
from alignment.models.huggingface.table import abstract_params

LLAMA = FAMILIES['LlamaForCausalLM']
PROVENANCE = Provenance('40 pairs', 'none added', 'dpo, beta=0.1', (3, 5))


def small_config(**changes) -> TransformerConfig:
  """Grouped heads, every size different."""
  sizes = dict(
    vocab_size=31,
    width=24,
    depth=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_width=10,
    context=64,
  )
  return TransformerConfig(**(sizes | changes))


def random_params(config: TransformerConfig, seed: int = 0):
  """float32 numbers of every size in the tree of `config`."""
  generator = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: generator.normal(size=leaf.shape).astype(np.float32),
    abstract_params(config),
  )


def write_folder(
  folder: pathlib.Path, config: TransformerConfig | None = None, **options
):
  """A Llama in a folder, and its parameters."""
  config = config or small_config()
  params = random_params(config)
  save_model(
    folder, config, params, LLAMA, **({'provenance': PROVENANCE} | options)
  )
  return params


def edit_json(folder: pathlib.Path, changes, name='config.json') -> None:
  """Changes fields of a JSON file; None removes one."""
  path = folder / name
  fields = json.loads(path.read_text()) | changes
  kept = {key: value for key, value in fields.items() if value is not None}
  path.write_text(json.dumps(kept))


def edit_tensors(folder: pathlib.Path, change) -> None:
  """Rewrites `model.safetensors` after `change(name -> array)`."""
  path = folder / 'model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def same(one, other) -> bool:
  """Whether two trees hold the same to the bit."""
  assert jax.tree.structure(one) == jax.tree.structure(other)
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)

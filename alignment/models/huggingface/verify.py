"""Whether an exported folder says what the model said."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.config_json import RUNTIME
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.load import load_model
from alignment.models.logits import next_token_logits
from alignment.models.transformer import transformer
from alignment.types import Array, Batch, Completions, PyTree

BOUND = 1e-4
"""Of |Δ logit|: the numbers of the folder are those that were written, to the
bit, so that any difference is one of the program."""

_SEED, _ROWS, _TOKENS = 20, 2, 32


class Verification(NamedTuple):
  """What a folder changed on a batch of random tokens.

  Attributes:
    difference: max |Δ| between the outputs of the folder read back and of the
      parameters rounded to its dtype; at most `BOUND`.
    rounding: max |Δ| between the outputs of the parameters before and after
      they are rounded; 0 for float32.
    agreement: share of positions whose likeliest next token rounding leaves
      as it was, in [0, 1]; 1 for a model that only has a reward head.
  """

  difference: float
  rounding: float
  agreement: float


def verify_export(
  folder: os.PathLike | str,
  config: TransformerConfig,
  params: PyTree,
  *,
  dtype: Literal['float32', 'bfloat16'] = 'float32',
  shardings: Callable[[PyTree], PyTree] | None = None,
) -> Verification:
  """Loads a folder that `save_model` wrote and compares what it says.

  Outputs are the next-token logits and the rewards, as the model has heads, of
  2 rows of at most 32 random tokens. The parameters exist three times while
  this runs where they are rounded, else twice.

  Args:
    folder: that was written.
    config: as given to `save_model`.
    params: as given to `save_model`.
    dtype: as given to `save_model`.
    shardings: as for `load_model`.

  Raises:
    ModelError: a folder that cannot be read, that describes another model, or
      whose outputs differ by more than `BOUND`.
  """
  overrides = {name: getattr(config, name) for name in RUNTIME}
  loaded = load_model(folder, shardings=shardings, **overrides)
  if loaded.config != config:
    changed = [
      field.name
      for field in dataclasses.fields(config)
      if getattr(config, field.name) != getattr(loaded.config, field.name)
    ]
    raise ModelError(
      os.fspath(folder),
      f'describes another model: {", ".join(changed)} read back differently',
      'This is an error of the export; do not use the folder',
    )
  outputs = jax.jit(_outputs(config))
  rounded = params
  if dtype == 'bfloat16':
    rounded = jax.tree.map(_round, params)
  wanted = outputs(rounded)
  difference = _largest(outputs(loaded.params), wanted)
  if not difference <= BOUND:
    raise ModelError(
      os.fspath(folder),
      f'outputs differ by {difference:.2g} from those of the parameters',
      'This is an error of the export; do not use the folder',
    )
  if rounded is params:
    return Verification(difference, 0.0, 1.0)
  before = outputs(params)
  agreement = 1.0
  if 'logits' in wanted:
    likeliest = [np.argmax(each['logits'], -1) for each in (before, wanted)]
    agreement = float(np.mean(likeliest[0] == likeliest[1]))
  return Verification(difference, _largest(before, wanted), agreement)


def _outputs(
  config: TransformerConfig,
) -> Callable[[PyTree], dict[str, Array]]:
  """params -> what each head says of random tokens."""
  length = min(_TOKENS, config.context or _TOKENS)
  tokens = np.random.default_rng(_SEED).integers(
    config.vocab_size, size=(_ROWS, length), dtype=np.int32
  )
  heads = {}
  if config.head != 'scalar':
    logits = next_token_logits(config)
    heads['logits'] = lambda params: logits(params, tokens)
  if config.head != 'vocabulary':
    batch, rewards = _completions_of(tokens), transformer(config).rewards
    heads['rewards'] = lambda params: rewards(params, batch)
  return lambda params: {name: head(params) for name, head in heads.items()}


def _completions_of(tokens: np.ndarray) -> Batch:
  """Rows of one prompt token and one completion, as rewards read them."""
  rows, length = tokens.shape
  at = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
  unread = np.zeros((rows, 1), np.int32)
  return Batch(
    tokens=tokens,
    positions=at,
    group=np.ones_like(tokens),
    branch=(at > 0).astype(np.int32),
    source=unread,
    target=unread,
    slot=unread,
    examples=None,
    completions=Completions(
      length=np.full((rows, 1), length - 1, np.int32),
      reference_logps=None,
      reward=None,
      advantage=None,
    ),
  )


def _round(leaf: Array) -> Array:
  return jnp.asarray(leaf).astype(jnp.bfloat16).astype(jnp.float32)


def _largest(one: dict[str, Array], other: dict[str, Array]) -> float:
  return max(
    float(np.abs(np.asarray(one[name]) - np.asarray(other[name])).max())
    for name in one
  )

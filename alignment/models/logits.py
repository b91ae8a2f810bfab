"""Next-token logits of plain text: for probes, tests and decoding."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from alignment.models.attention import sight
from alignment.models.config import TransformerConfig
from alignment.models.decoder import Decoder
from alignment.models.head import capped
from alignment.models.matmul import matmul
from alignment.models.norms import normalise
from alignment.models.transformer import tree_look, vocabulary_table
from alignment.types import Array, PyTree


def next_token_logits(
  config: TransformerConfig,
) -> Callable[[PyTree, Array], Array]:
  """The logits after every token of rows of plain text.

  Returns:
    (params, tokens `[B, T]` int32) -> `[B, T, V]` float32, all of them at once;
    entry [b, t] predicts tokens[b, t + 1] from tokens[b, : t + 1].

  Raises:
    ValueError: a model without a vocabulary head. When called: rows longer
      than the context.
  """
  check_vocabulary(config)
  decoder = Decoder(config)

  def logits(params: PyTree, tokens: Array) -> Array:
    rows, length = tokens.shape
    check_context(config, length)
    positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
    ones = jnp.ones((rows, length), jnp.int32)
    look = tree_look(sight(positions, ones, ones))
    hidden, _ = decoder.apply(
      {'params': params}, tokens, positions, ones > 0, look
    )
    return vocabulary_logits(params, hidden, config)

  return logits


def vocabulary_logits(
  params: PyTree, hidden: Array, config: TransformerConfig
) -> Array:
  """Final norm, vocabulary head and soft-cap.

  Args:
    params: of the model.
    hidden: `[..., D]` as the decoder leaves them.
    config: of the model.

  Returns:
    `[..., V]` float32.
  """
  logits = matmul(
    normalise(hidden, params['final_norm'], config),
    vocabulary_table(params, config),
    config.matmul_dtype,
    transposed=True,
  )
  return capped(logits, config.logit_softcap)


def check_vocabulary(config: TransformerConfig) -> None:
  """Raises ValueError for a model that has no vocabulary head."""
  if config.head == 'scalar':
    raise ValueError(
      "head must be 'vocabulary' or 'both' for logits, got 'scalar'"
    )


def check_context(config: TransformerConfig, length: int) -> None:
  """Raises ValueError for texts of more tokens than there are positions."""
  if config.context is not None and length > config.context:
    raise ValueError(
      f'tokens={length}: must be at most context = {config.context}'
    )

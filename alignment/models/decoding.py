"""Texts continued token by token, with what was seen before remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alignment.models.config import TransformerConfig
from alignment.models.decoder import Decoder
from alignment.models.head import token_logps
from alignment.models.logits import (
  check_context,
  check_vocabulary,
  vocabulary_logits,
)
from alignment.models.memory import Memory, next_look, prompt_look
from alignment.models.stacking import unstack_layers
from alignment.models.transformer import vocabulary_table
from alignment.types import Array, PyTree

Choose = Callable[[Array, Array | None], Array]
"""(logits `[B, V]`, keys `[B]` of this token or None) -> tokens `[B]` int32."""

MATRICES = ('qkv', 'output', 'gate_up', 'down')
"""Parameters of a layer that are read by matrix products alone."""


class Decoded(NamedTuple):
  """Continuations of prompts.

  Attributes:
    tokens: `[B, N]` int32, 0 after the end.
    lengths: `[B]` int32 in [0, N], tokens decoded, the end-of-text token
      counted; 0 for rows without a prompt.
    logps: `[B, N]` float32, log π(token), nats, 0 after the end.
  """

  tokens: Array
  lengths: Array
  logps: Array


def greedy(logits: Array, keys: Array | None) -> Array:
  """The likeliest token, the first of several; draws nothing."""
  return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def generate(
  config: TransformerConfig, choose: Choose = greedy
) -> Callable[..., Decoded]:
  """A compiled function that continues prompts until every row has ended.

  The function: (params, prompts, lengths, keys=None, *, max_new_tokens,
  eos_ids) -> Decoded, with

  - prompts: `[B, P]` int32, padded on the right;
  - lengths: `[B]` int32 in [0, P]; rows of length 0 are skipped;
  - keys: `[B]`, one of each row, for a `choose` that draws; folded with the
    number of the token, so that neither the batch nor padding changes a draw;
  - max_new_tokens: N ≥ 1; eos_ids: a tuple of tokens that end a text.

  It is compiled for every (B, P, N): `pad_prompts` keeps them few.
  Parameters may be stacked or by layer, and weights may be bfloat16.

  Args:
    config: of a model with a vocabulary head.
    choose: the next token of its logits.

  Raises:
    ValueError: a model without a vocabulary head. When called: N < 1, or P + N
      more than the context.
  """
  check_vocabulary(config)

  def run(
    params: PyTree,
    prompts: Array,
    lengths: Array,
    keys: Array | None = None,
    *,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
  ) -> Decoded:
    if max_new_tokens < 1:
      raise ValueError(f'max_new_tokens={max_new_tokens} must be ≥ 1')
    check_context(config, prompts.shape[1] + max_new_tokens)
    steps = _Steps(config, params)
    ends = jnp.array(eos_ids, jnp.int32)

    def extended(state: _State, logits: Array) -> _State:
      now = None if keys is None else _folded(keys, state.count)
      token = choose(logits, now)
      logps = token_logps(logits, None, token)
      running = state.running

      def written(column: Array, all_columns: Array) -> Array:
        column = jnp.where(running, column, 0)[:, None]
        return lax.dynamic_update_slice_in_dim(
          all_columns, column, state.count, axis=1
        )

      return _State(
        count=state.count + 1,
        running=running & ~jnp.isin(token, ends),
        last=token,
        tokens=written(token, state.tokens),
        lengths=state.lengths + running,
        logps=written(logps, state.logps),
        memories=state.memories,
      )

    def step(state: _State) -> _State:
      logits, memories = steps.next(lengths, state)
      return extended(state._replace(memories=memories), logits)

    def goes_on(state: _State) -> Array:
      return (state.count < max_new_tokens) & jnp.any(state.running)

    logits, memories = steps.first(prompts, lengths, max_new_tokens)
    state = extended(_start(lengths, max_new_tokens, memories), logits)
    state = lax.while_loop(goes_on, step, state)
    return Decoded(state.tokens, state.lengths, state.logps)

  return jax.jit(run, static_argnames='max_new_tokens')


def pad_prompts(
  prompts: Sequence[np.ndarray], *, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts as one array in one of few shapes.

  Rows and tokens are powers of two, at least 16 tokens, at most `limit`.

  Args:
    prompts: int arrays of ≥ 1 token.
    limit: ≥ 1, the most tokens of a prompt: context − max_new_tokens.

  Returns:
    `[B, P]` int32, B at least the number of prompts, and lengths `[B]` int32, 0
    in rows beyond it.

  Raises:
    ValueError: no prompts, an empty prompt, or one longer than `limit`.
  """
  lengths = [len(prompt) for prompt in prompts]
  if not lengths or min(lengths) < 1:
    raise ValueError(f'prompts must each have a token, got lengths {lengths}')
  if limit is not None and max(lengths) > limit:
    raise ValueError(f'limit={limit} must be ≥ {max(lengths)} tokens')
  width = _power_of_two(max(16, *lengths))
  shape = (_power_of_two(len(prompts)), min(width, limit or width))
  padded = np.zeros(shape, np.int32)
  for row, prompt in zip(padded, prompts, strict=False):
    row[: len(prompt)] = prompt
  counts = np.zeros(shape[0], np.int32)
  counts[: len(lengths)] = lengths
  return padded, counts


class _State(NamedTuple):
  """Between two tokens; `[B]` and `[B, N]` arrays of `Decoded`."""

  count: Array  # scalar, columns written
  running: Array  # [B] bool
  last: Array  # [B], the token in the last column
  tokens: Array
  lengths: Array
  logps: Array
  memories: Sequence[Memory]  # of all but the last token


def _start(lengths: Array, room: int, memories: Sequence[Memory]) -> _State:
  rows = len(lengths)
  return _State(
    count=jnp.int32(0),
    running=lengths > 0,
    last=jnp.zeros(rows, jnp.int32),
    tokens=jnp.zeros((rows, room), jnp.int32),
    lengths=jnp.zeros(rows, jnp.int32),
    logps=jnp.zeros((rows, room), jnp.float32),
    memories=memories,
  )


class _Steps:
  """The model, one call at a time: all prompts, then a token of each row."""

  def __init__(self, config: TransformerConfig, params: PyTree):
    # By layer: a scan would copy the memories of all layers at every token.
    self.config = dataclasses.replace(config, scan_layers=False, remat=False)
    self.params = unstack_layers(params)
    if config.matmul_dtype == 'bfloat16':
      self._round_matrices()
    self.decoder = Decoder(self.config)

  def _round_matrices(self):
    """What every product would round anyway, once instead of every token."""
    table = vocabulary_table(self.params, self.config)
    self.config = dataclasses.replace(self.config, tied_head=False)

    def rounded(path, leaf):
      is_matrix = path[-1].key in MATRICES
      return leaf.astype(jnp.bfloat16) if is_matrix else leaf

    self.params = jax.tree_util.tree_map_with_path(rounded, self.params)
    self.params = self.params | {'head': table.astype(jnp.bfloat16)}

  def first(self, prompts: Array, lengths: Array, room: int):
    """`[B, V]` logits after each prompt, and what to remember of it."""
    positions = jnp.broadcast_to(jnp.arange(prompts.shape[1]), prompts.shape)
    real = positions < lengths[:, None]
    look = prompt_look(positions, real, room)
    hidden, memories = self._read(prompts, positions, real, look, None)
    last = jnp.maximum(lengths - 1, 0)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)
    return self._logits(hidden), memories

  def next(self, lengths: Array, state: _State):
    """`[B, V]` logits after the last token, and the memory with it."""
    count = state.count - 1
    positions = (lengths + count)[:, None]
    real = jnp.ones_like(positions, bool)
    look = next_look(lengths, count)
    hidden, memories = self._read(
      state.last[:, None], positions, real, look, state.memories
    )
    return self._logits(hidden), memories

  def _read(self, tokens, positions, real, look, memories):
    return self.decoder.apply(
      {'params': self.params}, tokens, positions, real, look, memories
    )

  def _logits(self, hidden: Array) -> Array:
    return vocabulary_logits(self.params, hidden[:, 0], self.config)


def _folded(keys: Array, count: Array) -> Array:
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, count)


def _power_of_two(number: int) -> int:
  return 1 << (number - 1).bit_length()

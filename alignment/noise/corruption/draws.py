"""Uniform draws that belong to an example, not to its place in an array."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

FLIPS, ASSIGNMENT, RELIABILITIES, ROLES, RATES = range(5)
TIES, TARGETS, START, ORDER, TRIGGERS = range(5, 10)
"""The named streams of a noise key."""


@jax.jit
def _words(stream: jax.Array, index: jax.Array) -> jax.Array:
  keys = jax.vmap(lambda i: jax.random.fold_in(stream, i))(index)
  return jax.vmap(lambda k: jax.random.bits(k, (2,), jnp.uint32))(keys)


def uniforms(key: jax.Array, stream: int, index: np.ndarray) -> np.ndarray:
  """One uniform number per example, a pure function of (key, stream, index).

  The draw is made from `fold_in(fold_in(key, stream), index)`, so neither the
  order of the examples, nor the batch, the device count or the other examples
  present can change it. Every noise model reads the same draw: noise of two
  rates or two kinds under one key has common random numbers.

  Args:
    key: a JAX key; one per seed.
    stream: which of the named streams.
    index: `[B]` integers in [0, 2³²), stable ids. Examples with equal ids
      share their draw.

  Returns:
    `[B]` float64 in [0, 1), 53 random bits: of 10⁶ examples, no two tie in
    all but one run of 18,000.

  Raises:
    ValueError: `index` is not a vector of integers in [0, 2³²).
  """
  index = np.asarray(index)
  if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
    raise ValueError(
      f'index has shape {index.shape} and type {index.dtype}; it must be a '
      'vector [B] of integers'
    )
  if index.size and (index.min() < 0 or index.max() >= 2**32):
    raise ValueError(
      f'index={index.min()}..{index.max()} must lie in [0, 2**32)'
    )
  if not index.size:
    return np.zeros(0)
  words = _words(jax.random.fold_in(key, stream), index.astype(np.uint32))
  high, low = np.asarray(words, np.uint64).T
  # 27 bits of one word and 26 of the other fill a float64 mantissa.
  return ((high >> 5) * 2.0**26 + (low >> 6)) * 2.0**-53


def flip_draws(
  key: jax.Array, clean_label: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The checked labels, and the draw that decides whether each flips.

  Raises:
    ValueError: `clean_label` is not `[B]` bool or `index` not `[B]`.
  """
  clean_label = np.asarray(clean_label)
  if clean_label.ndim != 1 or clean_label.dtype != bool:
    raise ValueError(
      f'clean_label has shape {clean_label.shape} and type '
      f'{clean_label.dtype}; it must be a vector [B] of bool'
    )
  if np.shape(index) != clean_label.shape:
    raise ValueError(
      f'index has shape {np.shape(index)}; it must be {clean_label.shape}'
    )
  return clean_label, uniforms(key, FLIPS, index)


def exact_flips(
  key: jax.Array, rate: np.ndarray, index: np.ndarray
) -> np.ndarray:
  """As many flips as the rates sum to, each example at its own rate.

  Systematic sampling in a random order: one number per key, and integers from
  it on, are laid along the cumulated rates; an example flips where one falls
  into its stretch. P(flip) of every example is its rate; the count is the sum
  where that is whole, else one of the two integers about it. Unlike
  independent draws, which examples flip depends on the others, and flips are
  not nested across rates.

  Args:
    key: a JAX key; one per seed.
    rate: `[B]` in [0, 1].
    index: `[B]` stable ids, all different.

  Returns:
    `[B]` bool.

  Raises:
    ValueError: `index` repeats, or is none.

  Source: Madow, On the theory of systematic sampling, II, 1949.
  """
  refuse_repeats(index)
  order = np.lexsort((index, uniforms(key, FLIPS, index)))
  reached = np.cumsum(np.concatenate([[0.0], rate[order]]))
  # A sum that is whole but for the rounding of float32 rates is meant to be.
  total = round(reached[-1])
  if total and abs(reached[-1] - total) < 1e-7 * len(rate):
    reached *= total / reached[-1]
    reached[-1] = total
  passed = np.floor(reached + uniforms(key, START, np.zeros(1, int)))
  flips = np.zeros(len(rate), bool)
  flips[order] = np.diff(passed) > 0
  return flips


def refuse_repeats(index: np.ndarray) -> None:
  """Raises `ValueError` where two examples share an id."""
  if np.unique(index).size != len(index):
    raise ValueError('index must not repeat: an exact count flips single pairs')

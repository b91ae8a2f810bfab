"""Transition matrices: what a loss costs when one class is written as another.

`transition[i, j] = P(noisy = j | clean = i)`: rows are clean classes and sum to
1; `[C, C]`, or `[B, C, C]` with one matrix per example. `costs[b, c]` is what
example b would cost if its label were c.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from alignment.losses.numerics import as_float
from alignment.types import Array

_SUM_TOLERANCE = 1e-4
_MIN_SINGULAR_SHARE = 1e-6


def forward(log_probs: Array, transition: Array) -> Array:
  """−log Σ_i p[i]·transition[i, j]: the likelihood of the label as written.

  Args:
    log_probs: `[B, C]` log p of the clean class, nats.
    transition: `[C, C]` or `[B, C, C]`; may be traced. Differentiable in its
      positive entries.

  Returns:
    `[B, C]` costs, one per noisy label j.

  Raises:
    ValueError: transition, known at trace time, is not row-stochastic, or no
      class is ever written as some j.

  Source: Patrini et al., Making Deep Neural Networks Robust to Label Noise,
  2017, arXiv 1609.03683.
  """
  check_transition(transition, log_probs.shape)
  if _is_known(transition):
    unused = ~(np.asarray(transition) > 0).any(axis=-2)
    if unused.any():
      column = int(np.argwhere(unused)[0][-1])
      raise ValueError(
        f'transition[..., :, {column}] = 0: no class is ever written as '
        f'{column}, so that label has no likelihood'
      )
  transition = as_float(transition)
  is_positive = transition > 0
  log_transition = jnp.where(
    is_positive, jnp.log(jnp.where(is_positive, transition, 1.0)), -jnp.inf
  )
  joint = log_probs[:, :, None] + log_transition
  return -jax.nn.logsumexp(joint, axis=1)


def backward(costs: Array, transition: Array) -> Array:
  """transition⁻¹ · costs: unbiased for the costs of the clean label.

    Σ_j transition[i, j] · result[j] = costs[i]

  whatever loss the costs are. Entries may be negative, and unbounded below for
  an unbounded loss; the variance grows with the inverse.

  Args:
    costs: `[B, C]`.
    transition: `[C, C]` or `[B, C, C]`; may be traced.

  Returns:
    `[B, C]` costs, one per noisy label.

  Raises:
    ValueError: transition, known at trace time, is not row-stochastic, or its
      smallest singular value is below 1e-6 of its largest.

  Source: Patrini et al., 2017, arXiv 1609.03683; for two classes Natarajan et
  al., Learning with Noisy Labels, 2013.
  """
  check_transition(transition, costs.shape)
  if _is_known(transition):
    values = np.linalg.svd(np.asarray(transition), compute_uv=False)
    share = float((values[..., -1] / values[..., 0]).min())
    if share < _MIN_SINGULAR_SHARE:
      raise ValueError(
        f'transition has rank below {costs.shape[-1]} (smallest singular value '
        f'{share:.1g} of the largest): what its labels tell cannot be undone'
      )
  return jnp.linalg.solve(as_float(transition), costs[:, :, None])[:, :, 0]


def check_transition(transition: Array, shape: tuple[int, int]) -> None:
  """Refuses a matrix that is not row-stochastic, if it is known.

  Args:
    transition: `[C, C]` or `[B, C, C]`.
    shape: (B, C) of what it is applied to.

  Raises:
    ValueError: the shape; or, known at trace time, an entry outside [0, 1] or a
      row that does not sum to 1 within 1e-4.
  """
  size, classes = shape
  wanted = (classes, classes), (size, classes, classes)
  if np.shape(transition) not in wanted:
    raise ValueError(
      f'transition has shape {np.shape(transition)}, must be {wanted[0]} or '
      f'{wanted[1]}'
    )
  if _is_known(transition):
    rows = np.asarray(transition, np.float64).reshape(-1, classes)
    bad = ~(np.all((rows >= 0) & (rows <= 1), axis=1))
    bad |= ~(np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    if bad.any():
      row = int(np.argmax(bad))
      raise ValueError(
        f'transition[..., {row % classes}, :] = {rows[row]} must be '
        'probabilities that sum to 1'
      )


def _is_known(value: Array) -> bool:
  return not isinstance(value, jax.core.Tracer)

"""Linear models fitted to convergence, fast enough to be refitted by the
hundred: the yardstick beside every larger model, and what an audit reads with.

Features stay a SciPy sparse (or plain) matrix, the loss is any JAX function of
the scores, and L-BFGS from SciPy does the rest.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl
from scipy import optimize, sparse

Features = np.ndarray | sparse.sparray


class LinearFit(NamedTuple):
  """A fitted linear model.

  Attributes:
    weights: `[D]`, or `[D, C]` for C outputs, float64.
    scores: `[B]` or `[B, C]`, features @ weights of the rows fitted on.
    value: the objective reached.
    iterations: of L-BFGS.
    converged: False where the iterations ran out.
  """

  weights: np.ndarray
  scores: np.ndarray
  value: float
  iterations: int
  converged: bool


def fit_linear(
  features: Features,
  loss: Callable[..., jax.Array],
  arguments: Sequence[np.ndarray] = (),
  *,
  l2: float,
  weights: np.ndarray | None = None,
  num_outputs: int | None = None,
  start: np.ndarray | None = None,
  max_iterations: int = 300,
) -> LinearFit:
  """Minimises a loss of linear scores plus a ridge penalty.

    Σ weights · loss(features @ W, *arguments) / Σ weights + ½·l2·‖W‖²

  Args:
    features: `[B, D]`, sparse or dense; a column of ones where an intercept is
      wanted. Pairs: features of the first completion minus the second.
    loss: (scores `[B]` or `[B, C]`, *arguments) -> `[B]`, unreduced, pure JAX.
      Compiled once per function object and shape: pass what varies as
      `arguments`, not as a closure.
    arguments: arrays of any shape, traced.
    l2: > 0, strength of the penalty; per mean loss, so it means the same for
      every B.
    weights: `[B]` ≥ 0, multiplicity; all alike unless given.
    num_outputs: C for a matrix of weights, None for a vector.
    start: where to begin, zeros unless given.
    max_iterations: of L-BFGS.

  Returns:
    The fit; float64 throughout.

  Raises:
    ValueError: l2 or the weights out of range, or a loss that is not finite at
      the start.
  """
  if not 0 < l2 < np.inf:
    raise ValueError(f'l2={l2} must be > 0 and finite')
  rows, columns = features.shape
  shares = _shares(weights, rows)
  shape = (columns,) if num_outputs is None else (columns, num_outputs)
  with jax.enable_x64(True):
    arguments = tuple(jnp.asarray(a) for a in arguments)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
      matrix = flat.reshape(shape)
      value, pull = _value_and_pull(loss, features @ matrix, shares, *arguments)
      gradient = features.T @ np.asarray(pull) + l2 * matrix
      penalty = 0.5 * l2 * float(flat @ flat)
      return float(value) + penalty, np.asarray(gradient).reshape(-1)

    first = np.zeros(shape) if start is None else np.asarray(start, np.float64)
    if not np.isfinite(objective(first.reshape(-1))[0]):
      raise ValueError('loss is not finite at the start of the fit')
    with one_blas_thread():
      found = optimize.minimize(
        objective,
        first.reshape(-1),
        jac=True,
        method='L-BFGS-B',
        options={'maxiter': max_iterations, 'ftol': 1e-10, 'gtol': 1e-6},
      )
  matrix = found.x.reshape(shape)
  return LinearFit(
    matrix, features @ matrix, float(found.fun), int(found.nit), found.success
  )


@functools.partial(jax.jit, static_argnums=0)
def _value_and_pull(loss, scores, shares, *arguments):
  """The weighted mean loss and its gradient in the scores."""

  def total(scores):
    return jnp.sum(shares * loss(scores, *arguments))

  return jax.value_and_grad(total)(scores)


@functools.cache
def _blas_threads() -> threadpoolctl.ThreadpoolController:
  return threadpoolctl.ThreadpoolController()


def one_blas_thread() -> contextlib.AbstractContextManager:
  """Keeps BLAS to one thread: on vectors this short its threads wait for each
  other, and where another program wants the cores a fit takes 40 times as long.
  """
  return _blas_threads().limit(limits=1, user_api='blas')


def _shares(weights: np.ndarray | None, rows: int) -> np.ndarray:
  if weights is None:
    return np.full(rows, 1 / rows)
  weights = np.asarray(weights, np.float64)
  if weights.shape != (rows,) or not np.all(weights >= 0) or not weights.any():
    raise ValueError(
      f'weights of shape {weights.shape} must be ({rows},), >= 0, not all 0'
    )
  return weights / weights.sum()

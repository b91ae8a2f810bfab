"""The one train step: prepare, numbers, loss, gradient, update."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from alignment.types import (
  Array,
  Batch,
  Frozen,
  Metrics,
  Numbers,
  Objective,
  PyTree,
  Step,
  Term,
  TrainState,
  Weighted,
)

Assemble = Callable[[PyTree, Frozen], PyTree]
"""(what is trained, frozen) -> the params that the objective's model takes."""

STREAMS = {'prepare': 0, 'numbers': 1}
"""Random streams of a step: name -> what is folded into the step's key."""


def init_state(
  params: PyTree, optimizer: optax.GradientTransformation, extra: PyTree = ()
) -> TrainState:
  """A state before its first update.

  Every array is copied: steps donate their state, and the same `params` may
  start other runs or serve as the reference.
  """
  params, extra = jax.tree.map(jnp.copy, (params, extra))
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=jax.tree.map(jnp.copy, optimizer.init(params)),
    extra=extra,
  )


def make_step(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  *,
  microbatches: int = 1,
  assemble: Assemble | None = None,
) -> Step:
  """The update of `objective` as a pure function, to be jitted.

  The gradient is that of the loss on the whole batch, whatever `microbatches`:

    cotangent = ∂loss(numbers, batch, hyper) / ∂numbers, on the global batch
    gradient = Σ over microbatches, vjp(numbers of the microbatch)(cotangent)

  With microbatches, a loss that couples rows costs one more forward pass for
  `numbers`; a separable one does not, as its cotangent in one microbatch does
  not depend on the numbers of the others. Microbatch m holds the rows
  m, m + microbatches, …, so that rows sharded over devices stay where they are.

  A non-finite loss or gradient norm leaves params, opt_state and extra as they
  were; the step counter advances.

  Args:
    objective: what to minimise.
    optimizer: its state lives in `TrainState.opt_state`.
    microbatches: ≥ 1, divides the rows of every batch.
    assemble: makes the model's params from `state.params` and `frozen`, such as
      a base with adapters; gradients and optimiser are of `state.params` alone.
      None: they are the model's params.

  Returns:
    (state, frozen, batch, key) -> (state, metrics). `key` is the run's key, the
    same at every step. Metrics, all replicated scalars but the last:
      loss: Weighted over steps, the sum of all terms.
      loss/<term>: Weighted, coefficient · total over the term's normaliser.
      what the objective reports: Weighted.
      grad_norm: global L2 norm before any clipping.
      nonfinite: bool, the update was refused.
      nonfinite_index: `[R, E]` int32, `examples.index` in the rows whose
        numbers are not finite (or, if all are, whose cotangent is not), −1
        elsewhere.

  Raises:
    ValueError: `microbatches` < 1, or not a divisor of the rows.
  """
  if microbatches < 1:
    raise ValueError(f'microbatches must be ≥ 1, got {microbatches!r}')

  def step(
    state: TrainState, frozen: Frozen, batch: Batch, key: Array
  ) -> tuple[TrainState, Mapping[str, Any]]:
    keys = stream_keys(key, state.step)
    own = over_trained(objective, assemble, frozen)
    batch, extra = prepare(own, state, frozen, batch, keys['prepare'])
    numbers = functools.partial(own.numbers, key=keys['numbers'])
    loss = functools.partial(total_loss, objective, batch, frozen.hyper)
    if microbatches == 1:
      gradient = _whole(numbers, loss, state.params, batch)
    else:
      check_rows(batch, microbatches, 'microbatches')
      way = _separable if objective.separable else _coupled
      gradient = way(numbers, loss, state.params, batch, microbatches)
    grads, cotangent, values = gradient
    metrics = report(loss, values, cotangent, batch)
    return update(state, optimizer, grads, extra, metrics)

  return step


def stream_keys(key: Array, step: Array) -> dict[str, Array]:
  """The key of every random stream at one step."""
  key = jax.random.fold_in(key, step)
  return {name: jax.random.fold_in(key, i) for name, i in STREAMS.items()}


def over_trained(
  objective: Objective, assemble: Assemble | None, frozen: Frozen
) -> Objective:
  """The objective as a function of what is trained."""
  if assemble is None:
    return objective

  def prepare(trained: PyTree, frozen: Frozen, *rest: Any):
    return objective.prepare(assemble(trained, frozen), frozen, *rest)

  def numbers(trained: PyTree, batch: Batch, key: Array) -> Numbers:
    return objective.numbers(assemble(trained, frozen), batch, key)

  return objective._replace(prepare=prepare, numbers=numbers)


def prepare(
  objective: Objective,
  state: TrainState,
  frozen: Frozen,
  batch: Batch,
  key: Array,
) -> tuple[Batch, PyTree]:
  """The objective's `prepare`, with no gradient through what it returns."""
  prepared = objective.prepare(
    state.params, frozen, state.extra, batch, key, state.step
  )
  return lax.stop_gradient(prepared)


def total_loss(
  objective: Objective,
  batch: Batch,
  hyper: Mapping[str, Array],
  numbers: Numbers,
) -> tuple[Array, tuple[Mapping[str, Term], Metrics]]:
  """Σ of the terms, with the terms and metrics beside it."""
  terms, metrics = objective.loss(numbers, batch, hyper)
  value = sum((t.value() for t in terms.values()), jnp.float32(0.0))
  return value, (terms, metrics)


def check_rows(batch: Batch, parts: int, what: str) -> None:
  """Raises ValueError unless the rows divide into `parts`."""
  rows = batch.tokens.shape[0]
  if rows % parts:
    raise ValueError(
      f'{what} = {parts} must divide the rows of a batch, got {rows} rows; '
      f'lay batches out with row_multiple={parts}'
    )


def report(
  loss: Callable, numbers: Numbers, cotangent: Numbers, batch: Batch
) -> dict[str, Any]:
  """Metrics of the global batch, all but those of the gradient.

  To blame for a loss that is not finite are the rows whose numbers are not. A
  loss that couples rows spreads one NaN to every cotangent, so cotangents are
  only asked when all numbers are finite. Empty rows are never to blame.
  """
  value, (terms, metrics) = loss(numbers)
  real = jnp.any(batch.examples.weight > 0, axis=1)
  broken = _broken_rows(numbers) & real
  pulled = _broken_rows(cotangent) & real
  broken = jnp.where(jnp.any(broken), broken, pulled)
  return {
    **metrics,
    **{f'loss/{name}': _weighted(term) for name, term in terms.items()},
    'loss': Weighted(value, jnp.float32(1.0)),
    'nonfinite_index': jnp.where(broken[:, None], batch.examples.index, -1),
  }


def update(
  state: TrainState,
  optimizer: optax.GradientTransformation,
  grads: PyTree,
  extra: PyTree,
  metrics: Mapping[str, Any],
) -> tuple[TrainState, dict[str, Any]]:
  """Applies `grads` unless the loss or their norm is not finite."""
  grad_norm = optax.tree.norm(grads)
  finite = jnp.isfinite(metrics['loss'].total) & jnp.isfinite(grad_norm)

  def taken():
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return optax.apply_updates(state.params, updates), opt_state, extra

  def refused():
    return state.params, state.opt_state, state.extra

  # A branch, as selecting between old and new keeps both: nothing would be
  # updated in place, and the optimiser take four times as long on CPU.
  kept = lax.cond(finite, taken, refused)
  metrics = {**metrics, 'grad_norm': grad_norm, 'nonfinite': ~finite}
  return TrainState(state.step + 1, *kept), metrics


def _whole(numbers: Callable, loss: Callable, params: PyTree, batch: Batch):
  values, pull = jax.vjp(lambda p: numbers(p, batch), params)
  cotangent = jax.grad(loss, has_aux=True)(values)[0]
  return pull(cotangent)[0], cotangent, values


def _coupled(numbers, loss, params, batch, count):
  parts = _split(batch, count)
  values = _merge(lax.map(lambda part: numbers(params, part), parts))
  cotangent = jax.grad(loss, has_aux=True)(values)[0]

  def body(grads, part_and_cotangent):
    part, part_cotangent = part_and_cotangent
    pull = jax.vjp(lambda p: numbers(p, part), params)[1]
    return _add(grads, pull(part_cotangent)[0]), None

  zeros = jax.tree.map(jnp.zeros_like, params)
  grads, _ = lax.scan(body, zeros, (parts, _split(cotangent, count)))
  return grads, cotangent, values


def _separable(numbers, loss, params, batch, count):
  def body(grads, index_and_part):
    index, part = index_and_part
    values, pull = jax.vjp(lambda p: numbers(p, part), params)

    def loss_of_part(values):
      return loss(_among_placeholders(values, index, count))

    cotangent = jax.grad(loss_of_part, has_aux=True)(values)[0]
    return _add(grads, pull(cotangent)[0]), (values, cotangent)

  zeros = jax.tree.map(jnp.zeros_like, params)
  indexed = (jnp.arange(count), _split(batch, count))
  grads, (values, cotangent) = lax.scan(body, zeros, indexed)
  return grads, _merge(cotangent), _merge(values)


def _among_placeholders(values: Numbers, index: Array, count: int) -> Numbers:
  """Numbers of the whole batch that are right in one microbatch only.

  The other rows repeat this microbatch's numbers without gradient: finite
  where these are, and without effect on the gradient of a separable loss.
  """

  def spread(x: Array) -> Array:
    x = x[:, None]
    own = jnp.arange(count).reshape((1, count) + (1,) * (x.ndim - 2)) == index
    whole = jnp.where(own, x, lax.stop_gradient(x))
    return whole.reshape((-1,) + whole.shape[2:])

  return jax.tree.map(spread, values)


def _split(tree: PyTree, count: int) -> PyTree:
  """`[R, …]` to `[count, R // count, …]`, part m holding rows m, m + count …"""
  return jax.tree.map(
    lambda x: jnp.swapaxes(x.reshape((-1, count) + x.shape[1:]), 0, 1), tree
  )


def _merge(tree: PyTree) -> PyTree:
  """The inverse of `_split`."""
  return jax.tree.map(
    lambda x: jnp.swapaxes(x, 0, 1).reshape((-1,) + x.shape[2:]), tree
  )


def _add(a: PyTree, b: PyTree) -> PyTree:
  return jax.tree.map(jnp.add, a, b)


def _broken_rows(numbers: Numbers) -> Array:
  broken = [
    jnp.any(~jnp.isfinite(x), axis=tuple(range(1, x.ndim)))
    for x in jax.tree.leaves(numbers)
  ]
  return functools.reduce(jnp.logical_or, broken)


def _weighted(term: Term) -> Weighted:
  return Weighted(
    jnp.asarray(term.coefficient * term.total, jnp.float32),
    jnp.asarray(term.normaliser, jnp.float32),
  )

"""Notices when a train step that should be compiled once compiles again."""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

import jax

_COMPILED = '/jax/core/compile/backend_compile_duration'
_per_thread = threading.local()


def compilations() -> int:
  """How many programs this thread has had compiled (or read from the cache).

  Counted per thread, as XLA compiles in the thread that calls: another loop's
  first step is not mistaken for a recompilation of this one's.
  """
  _listen()
  return getattr(_per_thread, 'count', 0)


@functools.cache
def _listen() -> None:
  def count(event: str, duration: float, **_: Any) -> None:
    if event == _COMPILED:
      _per_thread.count = getattr(_per_thread, 'count', 0) + 1

  jax.monitoring.register_event_duration_secs_listener(count)


class CompilationGuard:
  """Warns when a step compiles again for a batch shape it has seen.

  A new batch shape is a new program and allowed; anything else that compiles
  inside a loop is a state or key whose type changed on its way through the
  step, and costs a compilation on every step in the worst case.
  """

  def __init__(self, step: int, *first: Any):
    """Takes the loop's first step and its (state, frozen, batch, key)."""
    self._first_step = step
    self._first = [_type(leaf) for leaf in jax.tree.leaves(first)]
    self._shapes = {_shapes(first[2])}

  def compiled(self, step: int, *arguments: Any) -> None:
    """Tells the guard that `step` compiled when called with `arguments`."""
    shapes = _shapes(arguments[2])
    if step == self._first_step or shapes not in self._shapes:
      self._shapes.add(shapes)
      return
    warnings.warn(
      f'step {step} compiled again for a batch shape seen before'
      f'{self._changes(arguments)}; keep shapes, dtypes, weak types and '
      'shardings of state, frozen and key the same from step to step',
      RuntimeWarning,
      stacklevel=3,
    )

  def _changes(self, arguments: tuple) -> str:
    """The leaves whose type is not that of the first step."""
    names = ('state', 'frozen', 'batch', 'key')
    leaves = jax.tree_util.tree_leaves_with_path(
      dict(zip(names, arguments, strict=True))
    )
    now = {
      jax.tree_util.keystr(path, simple=True, separator='/'): _type(leaf)
      for path, leaf in sorted(leaves, key=lambda p: names.index(p[0][0].key))
    }
    if len(now) != len(self._first):
      return f' ({len(now)} arrays as arguments, {len(self._first)} at first)'
    changed = [
      f'{name}: {_words(then)} at first, {_words(type_)} now'
      for (name, type_), then in zip(now.items(), self._first, strict=True)
      if type_ != then and not name.startswith('batch/')
    ]
    return f' ({"; ".join(changed[:4])})' if changed else ''


def _shapes(batch: Any) -> tuple:
  return tuple((x.shape, x.dtype) for x in jax.tree.leaves(batch))


def _type(leaf: Any) -> tuple:
  """Dtype, shape, weakness and placement: what the cache of `jit` looks at."""
  is_placed = isinstance(leaf, jax.Array) and leaf.committed
  return (
    leaf.dtype,
    leaf.shape,
    getattr(leaf, 'weak_type', False),
    leaf.sharding if is_placed else None,
  )


def _words(type_: tuple) -> str:
  dtype, shape, is_weak, sharding = type_
  weak = ' weak' if is_weak else ''
  where = f' on {sharding}' if sharding is not None else ''
  return f'{dtype}{list(shape)}{weak}{where}'

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
    self._first = _types(first)
    self._shapes = {_shapes(first[2])}

  def compiled(self, step: int, *arguments: Any) -> None:
    """Tells the guard that `step` compiled when called with `arguments`."""
    shapes = _shapes(arguments[2])
    if step == self._first_step or shapes not in self._shapes:
      self._shapes.add(shapes)
      return
    now = _types(arguments)
    changed = [
      f'{name}: {self._first.get(name)} at first, {now[name]} now'
      for name in now
      if now[name] != self._first.get(name) and not name.startswith('batch')
    ]
    warnings.warn(
      f'step {step} compiled again for a batch shape seen before'
      + (f' ({"; ".join(changed[:4])})' if changed else '')
      + '; keep shapes, dtypes, weak types and shardings of state, frozen and '
      'key the same from step to step',
      RuntimeWarning,
      stacklevel=3,
    )


def _shapes(batch: Any) -> tuple:
  return tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(batch))


def _types(arguments: tuple) -> dict[str, str]:
  names = ('state', 'frozen', 'batch', 'key')
  tree = dict(zip(names, arguments, strict=True))
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): _type(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _type(leaf: Any) -> str:
  if not isinstance(leaf, jax.Array):
    return f'{type(leaf).__name__} {getattr(leaf, "dtype", "")}'
  weak = ' weak' if leaf.weak_type else ''
  where = f' on {leaf.sharding}' if leaf.committed else ''
  return f'{leaf.dtype}{list(leaf.shape)}{weak}{where}'

"""SIGTERM asks every loop to save and stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
  """A loop saved and stopped because it was asked to; the program exits 0.

  A `SystemExit`: it passes through a pool of threads to the main thread
  (`Future.result` raises it there) and, uncaught, ends the program with
  status 0.
  """

  def __init__(self, step: int):
    super().__init__(0)
    self.step = step


@contextlib.contextmanager
def preemption(
  signals: tuple[signal.Signals, ...] = (signal.SIGTERM,),
) -> Iterator[Callable[[int], bool]]:
  """Listens for preemption; yields `should_stop(step) -> bool`.

  Loops of any thread ask `should_stop` after every step; it costs no device
  work. Under `jax.distributed` the notice goes through JAX's own handler and
  `should_stop` becomes True at the same step on every process, so all of them
  take part in the save; there only one loop per process may ask, every step.

  Raises:
    ValueError: entered outside the main thread, where Python delivers signals.
  """
  if jax.distributed.is_initialized():
    yield _distributed()
    return
  if threading.current_thread() is not threading.main_thread():
    raise ValueError(
      'preemption() was entered in '
      f'{threading.current_thread().name}; enter it in the main thread and '
      'pass should_stop to the loops of other threads'
    )
  notice = threading.Event()
  previous = {
    number: signal.signal(number, lambda *_: notice.set()) for number in signals
  }
  try:
    yield lambda step: notice.is_set()
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def _distributed() -> Callable[[int], bool]:
  reached = False

  def should_stop(step: int) -> bool:
    nonlocal reached
    # The sync point is True at one step only.
    reached = reached or multihost_utils.reached_preemption_sync_point(step)
    return reached

  return should_stop

"""The training loop: ordinary Python that never waits for a single step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from alignment.training.checkpoints import Checkpoints
from alignment.training.compilation import CompilationGuard, compilations
from alignment.training.meter import Meter
from alignment.training.preemption import Preempted
from alignment.training.refusals import Refusals
from alignment.training.writers import Writer
from alignment.types import Array, Batch, Frozen, Step, TrainState

Batches = Iterable[Batch] | Callable[[int], Iterable[Batch]]
"""Batches from the state's step on, or what gives them from any step on."""


def train(
  step: Step,
  state: TrainState,
  frozen: Frozen,
  batches: Batches,
  *,
  num_steps: int,
  key: Array,
  writer: Writer | None = None,
  log_interval: int = 10,
  stops: Mapping[int, Callable[[int, TrainState], None]] | None = None,
  checkpoints: Checkpoints | None = None,
  save_interval: int = 0,
  should_stop: Callable[[int], bool] = lambda step: False,
  max_nonfinite: int = 10,
) -> TrainState:
  """Runs `step` until `state.step` is `num_steps`.

  Everything a step draws or reads is a function of `key` and the global step,
  so a run that was stopped and resumed ends as if it had not been, bit by bit.
  Steps are dispatched without waiting for them: metrics stay on the device
  until their interval is over and are read after the next step was dispatched.

  Args:
    step: compiled, of `jit_step` or `pmap_step`; may donate its state.
    state: where to start, or the target that a checkpoint is restored into.
    frozen: passed to every step.
    batches: see `Batches`; with `checkpoints` it must be a function of the
      step.
    num_steps: the value of `state.step` at the end.
    key: of the run, the same at every step.
    writer: gets one row per interval, of weighted means over its steps, and
      one of the very first step.
    log_interval: in steps; 0 writes nothing.
    stops: step -> called with (step, state) once that many updates were made,
      0 before the first. The next step donates this state: copy what stays.
      Not called again for steps before the one that was restored.
    checkpoints: restored from if it holds any; saved to every `save_interval`
      steps, at the end, and when asked to stop.
    save_interval: in steps; 0 saves only at the end and when asked to stop.
    should_stop: `should_stop(step)` is asked before the first and after every
      step (see `preemption`).
    max_nonfinite: refused updates at which the run gives up.

  Returns:
    The final state, on disk as well if there are checkpoints.

  Raises:
    Preempted: `should_stop` said so; the state was saved. Exits with status 0.
    NonFiniteError: `max_nonfinite` updates were refused.
    ValueError: the batches ended too early, or bad arguments.
    storage.StorageError: a checkpoint or a row could not be written.
  """
  state = _restored(state, batches, checkpoints)
  start = _step_of(state)
  if start > num_steps:
    raise ValueError(f'num_steps is {num_steps}, the state is at step {start}')
  if writer is not None and checkpoints is not None:
    writer.rewind(start, {})
  stops = stops or {}
  if start == 0 and 0 in stops:
    stops[0](0, state)
  if start < num_steps and should_stop(start):
    raise Preempted(start)
  meter = Meter(writer if log_interval > 0 else None, num_steps)
  refusals = Refusals(max_nonfinite)
  dispatch = _dispatcher(step, frozen, key, meter, refusals)
  source = iter(batches(start) if callable(batches) else batches)
  is_due = False
  for done in range(start + 1, num_steps + 1):
    batch = _next(source, done, num_steps)
    state, metrics = dispatch(done, state, batch)
    if is_due:
      meter.write()
    meter.add(done, batch, metrics)
    is_stopping = done < num_steps and should_stop(done)
    is_last = is_stopping or done == num_steps
    is_saving = checkpoints is not None and (
      is_last or _at(done, save_interval)
    )
    is_due = _at(done, log_interval) or done == 1 or is_last
    if is_saving or is_last or done in stops:
      # Only here does the loop wait for the device.
      refusals.check(wait=True)
      if is_due:
        meter.write()
        is_due = False
      with meter.paused(state):
        if done in stops:
          stops[done](done, state)
        if is_saving:
          checkpoints.save(done, state)
    if is_stopping:
      break
  if checkpoints is not None:
    checkpoints.wait()
  if _step_of(state) < num_steps:
    raise Preempted(_step_of(state))
  return state


def _step_of(state: TrainState) -> int:
  """`state.step`, of a state stacked for `pmap_step` too; waits for it."""
  return int(np.asarray(state.step).flat[0])


def _restored(
  state: TrainState, batches: Batches, checkpoints: Checkpoints | None
) -> TrainState:
  if checkpoints is None:
    return state
  if not callable(batches):
    raise ValueError(
      'batches must be a function of the step where there are checkpoints: '
      'the step to start from is known after restoring'
    )
  found = checkpoints.restore(state)
  return state if found is None else found[1]


def _dispatcher(
  step: Step, frozen: Frozen, key: Array, meter: Meter, refusals: Refusals
) -> Callable:
  """(done, state, batch) -> (state, metrics), watched but not waited for."""
  guard = None

  def dispatch(done: int, state: TrainState, batch: Batch):
    nonlocal guard
    guard = guard or CompilationGuard(done, state, frozen, batch, key)
    count, clock = compilations(), time.monotonic()
    new, metrics = step(state, frozen, batch, key)
    if compilations() != count:
      meter.compiled(time.monotonic() - clock)
      guard.compiled(done, state, frozen, batch, key)
    refusals.dispatched(done, metrics)
    refusals.check()
    return new, metrics

  return dispatch


def _next(source: Iterator[Batch], done: int, num_steps: int) -> Batch:
  try:
    return next(source)
  except StopIteration:
    raise ValueError(
      f'the batches ended before step {done} of {num_steps}; give more epochs '
      'or fewer steps'
    ) from None


def _at(done: int, interval: int) -> bool:
  return interval > 0 and done % interval == 0

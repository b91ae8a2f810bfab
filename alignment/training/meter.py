"""One row of metrics per interval: weighted means, throughput, time left."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from alignment.training.writers import Writer
from alignment.types import Batch, PyTree, Weighted


class Meter:
  """Collects the metrics of an interval on the device and reads them at once.

  Throughput counts the time in which steps run: not the first step, which
  waits for the compiler, nor callbacks, saves and later compilations.
  """

  def __init__(self, writer: Writer | None, num_steps: int):
    """Without a writer nothing is collected."""
    self._writer = writer
    self._num_steps = num_steps
    self._metrics: list[Mapping[str, Any]] = []
    self._step = 0
    self._tokens = 0
    self._timed_steps = 0
    self._paused = 0.0
    self._since: float | None = None
    self._opening: tuple[int, float] | None = None
    self._compile_seconds = 0.0

  def add(self, step: int, batch: Batch, metrics: Mapping[str, Any]) -> None:
    """Takes one dispatched step; waits for the first, to start the clock."""
    if self._writer is None:
      return
    self._step = step
    self._metrics.append(metrics)
    if self._since is None:
      jax.block_until_ready(metrics)
      self._since = time.monotonic()
      self._opening = step, self._since
    else:
      self._tokens += _num_tokens(batch)
      self._timed_steps += 1

  @contextlib.contextmanager
  def paused(self, state: PyTree) -> Iterator[None]:
    """Leaves what happens inside out of the throughput."""
    jax.block_until_ready(state)
    start = time.monotonic()
    yield
    self._paused += time.monotonic() - start

  def compiled(self, seconds: float) -> None:
    """Leaves a step's compilation out of the throughput, and reports it."""
    self._compile_seconds += seconds
    if self._since is not None:
      self._paused += seconds

  def write(self) -> None:
    """Writes the row that ends at the last step added, and begins a new one.

    Waits for that step. Refused steps are counted in `nonfinite` and left out
    of the means.
    """
    if self._writer is None:
      return
    row = _means(jax.device_get(self._metrics))
    row.update(self._performance(time.monotonic()))
    self._metrics = []
    self._writer.write(self._step, row)

  def _performance(self, now: float) -> dict[str, float]:
    row = {}
    if self._compile_seconds:
      row['perf/compile_seconds'] = self._compile_seconds
    if self._timed_steps:
      seconds = max(now - self._since - self._paused, 1e-9)
      row['perf/step_seconds'] = seconds / self._timed_steps
      if self._tokens:
        row['perf/tokens_per_second'] = self._tokens / seconds
      step, opened = self._opening
      pace = (now - opened) / (self._step - step)
      row['perf/eta_seconds'] = pace * (self._num_steps - self._step)
    self._since, self._paused, self._compile_seconds = now, 0.0, 0.0
    self._tokens = self._timed_steps = 0
    return row


def _means(steps: list[Mapping[str, Any]]) -> dict[str, float]:
  refused = sum(bool(m.get('nonfinite', False)) for m in steps)
  counted = [m for m in steps if not m.get('nonfinite', False)]
  row = {}
  for name, value in steps[-1].items():
    if name == 'nonfinite':
      row[name] = float(refused)
    elif not counted and (isinstance(value, Weighted) or not np.ndim(value)):
      row[name] = math.nan
    elif isinstance(value, Weighted):
      total = sum(float(m[name].total) for m in counted)
      weight = sum(float(m[name].weight) for m in counted)
      row[name] = total / weight if weight else 0.0
    elif not np.ndim(value):
      row[name] = sum(float(m[name]) for m in counted) / len(counted)
  return row


def _num_tokens(batch: Batch) -> int:
  """Tokens that are not padding; 0 where counting would need the device."""
  group = getattr(batch, 'group', None)
  return np.count_nonzero(group) if isinstance(group, np.ndarray) else 0

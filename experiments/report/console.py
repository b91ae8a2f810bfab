"""What a bake-off says while it runs: openings, finished cells, metrics."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from alignment.training import writers
from alignment.training.writers import Writer


def print_openings(openings: Mapping[str, tuple[float, float]]) -> None:
  """The loss before the first update, beside its exact value."""
  for loss, (measured, exact) in openings.items():
    known = 'no reference, nothing to check' if np.isnan(exact) else 'as exact'
    print(f'step 0  {loss:<16} loss {measured:.6f}  {known}')


def progress() -> Callable[[str, dict, int, int], None]:
  """One line per finished cell, with the time left."""
  begun, before = time.monotonic(), []

  def on_done(key: str, row: dict, done: int, total: int) -> None:
    before.append(done)
    elapsed = time.monotonic() - begun
    left = elapsed / len(before) * (total - done)
    stop, summary = row['selected']['stop'], row['selected']['summary']
    scores = '  '.join(
      f'{name} {summary[name]:.3f}'
      for name in ('accuracy', 'agreement', 'gold', 'kl')
      if name in summary
    )
    print(
      f'[{done:>{len(str(total))}}/{total}] {row["label"]:<44} '
      f'lr {stop["learning_rate"]:g} step {stop["step"]:<5} {scores}  '
      f'ETA {left:.0f}s',
      flush=True,
    )

  return on_done


def _patient(writer: Writer, seconds: float = 10.0) -> Writer:
  """Passes on the first row of every `cell`, then one per `seconds` in all.

  Hundreds of short cells would drown what a person wants to see; the files
  have every row.
  """
  seen, last = set(), [0.0]

  def write_row(step: int, row: Mapping[str, Any]) -> None:
    now = time.monotonic()
    is_stage = row.get('cell', '').startswith('sft') and row['cell'] not in seen
    if is_stage or now - last[0] >= seconds:
      seen.add(row.get('cell', ''))
      last[0] = now
      writer.write(step, row)

  return writer._replace(write=write_row)


def run_writer(directory: pathlib.Path, *, tensorboard: bool) -> Writer:
  """Training metrics go to `metrics.jsonl` and, now and then, to the screen."""
  sinks = [
    writers.jsonl_writer(directory / 'metrics.jsonl'),
    _patient(writers.console_writer()),
  ]
  if tensorboard:
    sinks.append(writers.tensorboard_writer(directory / 'tensorboard'))
  return writers.combined_writer(sinks)

"""What changes on a laid-out batch while its texts stay where they are.

Tables are indexed by the example's `index`; batches are numpy.
"""

from __future__ import annotations

import numpy as np

from alignment.types import Batch


def relabel(
  batch: Batch, *, is_flipped: np.ndarray | None = None, **tables: np.ndarray
) -> Batch:
  """The batch under other labels; its texts are shared, not copied.

  Args:
    batch: laid-out batch.
    is_flipped: `[n]` bool, True swaps `chosen` and `rejected` of that example.
    **tables: field of `Examples` (`weight`, `coefficient`, `label_prob`,
      `label_smoothing`, `annotator_id`) -> `[n]`, its new values.

  Raises:
    ValueError: a field that cannot be replaced, a table too short for the
      batch, or values out of range.
  """
  examples = batch.examples
  filled = examples.index >= 0
  changed = {}
  if is_flipped is not None:
    flipped = filled & _looked_up('is_flipped', is_flipped, examples.index)
    changed['chosen'] = np.where(flipped, examples.rejected, examples.chosen)
    changed['rejected'] = np.where(flipped, examples.chosen, examples.rejected)
  for name, table in tables.items():
    if name not in _RANGES:
      raise ValueError(f'{name!r} is not one of {sorted(_RANGES)}')
    low, high = _RANGES[name]
    old = getattr(examples, name)
    new = _looked_up(name, table, examples.index)
    wrong = filled & ~((new >= low) & (new <= high))
    if wrong.any():
      raise ValueError(f'{name} is {new[wrong][0]}, want in [{low}, {high}]')
    changed[name] = np.where(filled, new, old).astype(old.dtype)
  return batch.replace(examples=examples.replace(**changed))


_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))
_RANGES = {
  'weight': (0, np.inf),
  'coefficient': (-np.inf, np.inf),
  'label_prob': (0, 1),
  'label_smoothing': (0, _BELOW_HALF),
  'annotator_id': (-1, np.inf),
}


def owners(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
  """Which completion of which example a slot holds.

  Returns:
    index `[R, N]`, the example's stable index, −1 in empty slots; and
    completion `[R, N]`, its place among the completions of that example.
  """
  rows, slots = batch.completions.length.shape
  example_slots = batch.examples.index.shape[1]
  filled = batch.completions.length > 0
  # Groups of a row count its examples, unless the row holds one example whose
  # completions each have their own group.
  example = np.zeros((rows, slots + 1), np.int32)
  if example_slots > 1:
    row = np.arange(rows)[:, None]
    example[row, batch.slot] = batch.group[row, batch.source] - 1
  example = example[:, :slots]
  index = np.take_along_axis(batch.examples.index, example, axis=1)
  number = np.arange(slots)
  new = np.diff(example, axis=1, prepend=-1) > 0
  first = np.maximum.accumulate(np.where(new & filled, number, 0), axis=1)
  return np.where(filled, index, -1), np.where(filled, number - first, 0)


def fill_reference(batch: Batch, table: np.ndarray) -> Batch:
  """The batch with `reference_logps` read from a table.

  Args:
    batch: laid-out batch.
    table: `[n, K]`, Σ log π_ref in nats of completion k of the example whose
      index is the row of the table.

  Raises:
    ValueError: a table too short for the batch.
  """
  index, completion = owners(batch)
  logps = _looked_up('table', table, index)
  logps = np.take_along_axis(logps, completion[..., None], axis=-1)[..., 0]
  logps = np.where(index >= 0, logps, 0).astype(np.float32)
  return batch.replace(
    completions=batch.completions.replace(reference_logps=logps)
  )


def collect(batch: Batch, values: np.ndarray, table: np.ndarray) -> None:
  """Writes numbers of completions into a table: `fill_reference` backwards.

  Args:
    batch: laid-out batch.
    values: `[R, N]`.
    table: `[n, K]`, changed in place where the batch holds completions.
  """
  index, completion = owners(batch)
  filled = index >= 0
  table[index[filled], completion[filled]] = np.asarray(values)[filled]


def _looked_up(name: str, table: np.ndarray, index: np.ndarray) -> np.ndarray:
  table = np.asarray(table)
  if index.size and index.max() >= len(table):
    raise ValueError(
      f'{name} has {len(table)} rows and the batch holds example '
      f'{index.max()}: tables are indexed by the example index'
    )
  return table[index]

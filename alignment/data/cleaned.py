"""Records after a repair, in a file that any trainer of preferences loads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data.readers import json_lines, row_of, write_lines
from alignment.data.records import DataError, Preference, Report, Unpaired
from alignment.noise.detection.repair import Repair


def write_cleaned(
  path: str | os.PathLike,
  records: Sequence[Preference] | Sequence[Unpaired],
  repair: Repair,
  *,
  extras: Sequence[Mapping[str, Any]] | None = None,
) -> Report:
  """Writes what is left to train on, and beside it what was left out.

  `path` gets the rows that are not dropped, as they are to be trained on:
  chosen and rejected (or the label) exchanged where the action is `flip`,
  `label_prob` set where it is `soften`, `weight` scaled where it is `reweight`.
  `<path>.dropped.jsonl` gets the dropped rows as they were. Extra columns tell
  how to undo it: `flip_posterior` (absent where unknown), `action`,
  `is_swapped`, `ask_rank` (where asked), `original_label_prob` and
  `original_weight` where the repair changed them. `clean_label`, `is_flipped`
  and `votes` are turned with the pair.

  A trainer that reads only {prompt, chosen, rejected} sees flips and drops but
  neither soft labels nor weights; plan with `flip`, `drop` or `mixed` for it.

  Args:
    path: `.jsonl` or `.jsonl.gz`.
    records: B of them, in the order of the repair.
    repair: B actions.
    extras: B mappings, further columns; those of the record go before them.

  Returns:
    Counts and indices per action.

  Raises:
    DataError: every row is dropped, or unpaired labels are to be softened, for
      which their rows have no column.
    ValueError: another ending, or as many actions as there are no records.
  """
  path = os.fspath(path)
  if not path.endswith(('.jsonl', '.jsonl.gz')):
    raise ValueError(f'path: {path!r} must end in .jsonl or .jsonl.gz')
  if len(records) != len(repair):
    raise ValueError(
      f'records: {len(records)} must be as many as actions, {len(repair)}'
    )
  report = Report(path, read=len(records))
  kept, dropped = [], []
  for position, record in enumerate(records):
    action = str(repair.action[position])
    if action != 'keep':
      report.add(action, record.index)
    into = dropped if action == 'drop' else kept
    more = extras[position] if extras else {}
    into.append({**more, **_row(record, repair, position)})
  if not kept:
    raise DataError(
      'every row would be dropped', 'Raise the margin of the policy', path
    )
  report.kept = len(kept)
  write_lines(path, json_lines(kept))
  write_lines(dropped_path(path), json_lines(dropped))
  return report


def dropped_path(path: str) -> str:
  """Where the rows go that a cleaned file leaves out."""
  return f'{path.removesuffix(".gz").removesuffix(".jsonl")}.dropped.jsonl'


def _row(
  record: Preference | Unpaired, repair: Repair, position: int
) -> dict[str, Any]:
  action = str(repair.action[position])
  swapped = action == 'flip'
  row = row_of(_repaired(record, repair, position))
  for name in ('label_prob', 'weight'):
    before = getattr(record, name, None)
    if before is not None and row[name] != before:
      row[f'original_{name}'] = before
  row |= {'action': action, 'is_swapped': swapped}
  if not np.isnan(repair.flip_posterior[position]):
    row['flip_posterior'] = float(repair.flip_posterior[position])
  if repair.ask_rank[position] >= 0:
    row['ask_rank'] = int(repair.ask_rank[position])
  return row


def _repaired(
  record: Preference | Unpaired, repair: Repair, position: int
) -> Preference | Unpaired:
  """The record as it is to be trained on."""
  action = repair.action[position]
  if action == 'reweight':
    weight = record.weight * float(repair.weight[position])
    return dataclasses.replace(record, weight=weight)
  if action == 'soften':
    if isinstance(record, Unpaired):
      raise DataError(
        'unpaired labels cannot be softened',
        'Use the policy reweight or flip',
        record.path,
        record.line,
        'label',
      )
    label_prob = float(repair.label_prob[position])
    return dataclasses.replace(record, label_prob=label_prob)
  if action == 'flip':
    return _swapped(record)
  return record


def _swapped(record: Preference | Unpaired) -> Preference | Unpaired:
  """The same row with the opposite label, held to be certain."""
  turned = {
    name: None if value is None else not value
    for name, value in (
      ('clean_label', record.clean_label),
      ('is_flipped', record.is_flipped),
    )
  }
  if isinstance(record, Unpaired):
    turned.pop('clean_label')
    return dataclasses.replace(record, label=not record.label, **turned)
  return dataclasses.replace(
    record,
    chosen=record.rejected,
    rejected=record.chosen,
    label_prob=1.0,
    votes=tuple(-vote for vote in record.votes),
    **turned,
  )

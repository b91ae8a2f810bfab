"""Tables of labels as the subject of an audit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data import label_answers
from alignment.data.label_tables import LabelTable
from alignment.data.parsing import PAIR_COLUMNS
from alignment.data.records import Preference
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.from_records import preference
from alignment.protocols.audit.subject import (
  Subject,
  coins,
  majority_label,
  standard_slices,
  text_features,
)


def from_table(
  table: LabelTable,
  *,
  seed: int,
  group_name: str = '',
  label_field: str = '',
  slices: Mapping[str, Sequence[str]] | None = None,
) -> Subject:
  """Brings a table to labels in an order that carries no meaning.

  The label at hand is the table's; where it has none, the majority of votes.

  Args:
    table: as read.
    seed: of the order of pairs, and of labels where votes tie.
    group_name: what its groups are; '' where every task stands alone.
    label_field: its column of labels, '' where there is none.
    slices: further slices, name -> B names.
  """
  index = table.place.astype(np.int64)
  is_turned = coins(seed, index) & table.is_pairs
  votes = table.votes
  if votes is not None:
    votes = dataclasses.replace(
      votes, label=_turned(votes.label, is_turned[votes.task])
    )
  label, is_tie = _turned(table.label, is_turned), np.zeros(len(table), bool)
  missing = np.flatnonzero(label < 0)
  if len(missing):
    found, tied = majority_label(votes, index, seed)
    label[missing], is_tie[missing] = found[missing], tied[missing]
  texts = [
    (row[0], *row[:0:-1]) if turn else row
    for row, turn in zip(table.texts, is_turned, strict=True)
  ]
  group, groups = label_answers.ids_of(table.group)
  group_name = group_name if len(groups) < len(table) else 'rows'
  features, names = text_features(texts)
  has_texts = any(any(row) for row in texts)
  evidence = Evidence(
    label=label,
    num_classes=len(table.classes),
    group=group,
    group_name=group_name,
    features=features if has_texts and names else None,
    feature_names=names if has_texts else (),
    annotator_id=table.annotator if table.annotators else None,
    votes=votes,
    clean_label=_turned(table.gold, is_turned)
    if np.any(table.gold >= 0)
    else None,
  )
  standard = standard_slices(
    texts, group, groups, group_name, table.annotator, table.annotators
  )
  return Subject(
    source=table.columns.path,
    is_pairs=table.is_pairs,
    evidence=evidence,
    texts=texts,
    index=index,
    classes=('first', 'second') if table.is_pairs else table.classes,
    workers=table.workers,
    worker_group=table.worker_group,
    annotators=table.annotators,
    groups=groups,
    is_left=_left(table, is_turned),
    confidence=table.confidence,
    is_tie=is_tie,
    label_is=_label_is(table, missing, label_field),
    slices={**standard, **(slices or {})},
    records=_records(table, evidence, texts) if table.is_pairs else (),
    extras=[_extras(table, i) for i in range(len(table))],
    label_field=label_field or 'label',
    notes=tuple(table.report.lines()),
  )


def _turned(label: np.ndarray, is_turned: np.ndarray) -> np.ndarray:
  """Labels seen from the other side where a pair is turned; −1 stays."""
  return np.where(is_turned & (label >= 0), 1 - label, label).astype(np.int32)


def _left(table: LabelTable, is_turned: np.ndarray) -> np.ndarray:
  if table.votes is None:
    return table.is_left
  return np.where(is_turned[table.votes.task], -table.is_left, table.is_left)


def _label_is(table: LabelTable, missing: np.ndarray, field: str) -> str:
  majority = 'the majority of its votes, ties drawn'
  if len(missing) == len(table):
    return majority
  column = f'the column {field!r}'
  return f'{column}, else {majority}' if len(missing) else column


def _records(
  table: LabelTable, evidence: Evidence, texts: Sequence[tuple[str, ...]]
) -> list[Preference]:
  clean, confidence = evidence.clean_label, table.confidence
  return [
    preference(
      text,
      y,
      table.place[i],
      table.group[i],
      annotator_id=int(table.annotator[i]),
      clean_label=None
      if clean is None or clean[i] < 0
      else bool(clean[i] == y),
      label_prob=1.0 if np.isnan(confidence[i]) else float(confidence[i]),
    )
    for i, (text, y) in enumerate(zip(texts, evidence.label, strict=True))
  ]


def _extras(table: LabelTable, i: int) -> dict[str, Any]:
  """What the file says of a task; labels and texts of pairs apart."""
  row = table.columns.row(table.place[i])
  if table.is_long:
    # Several rows of the file make a task; one of them would not be it.
    row = {'task': table.tasks[i], 'text': table.texts[i][0]}
    if table.gold[i] >= 0:
      row['gold'] = table.classes[table.gold[i]]
  if table.is_pairs:
    return {k: v for k, v in row.items() if k not in (*PAIR_COLUMNS, 'text')}
  return {**row, 'group': table.group[i]}

"""Records of preference files and vote folders as the subject of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data import label_answers
from alignment.data.parsing import PAIR_COLUMNS, UNPAIRED_COLUMNS
from alignment.data.records import Preference, Report, Unpaired, VotedPair
from alignment.noise.crowd.table import VoteTable
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.subject import (
  Subject,
  coins,
  majority_label,
  standard_slices,
  text_features,
)


def from_records(
  records: Sequence[Preference | Unpaired | VotedPair],
  report: Report,
  *,
  seed: int,
  group_name: str = 'groups',
  columns: Mapping[int, Mapping[str, Any]] | None = None,
  slices: Mapping[str, Sequence[str]] | None = None,
) -> Subject:
  """Brings records to labels in an order that carries no meaning.

  Args:
    records: all of one kind.
    report: of their reading.
    seed: of the order of pairs, and of labels where votes tie.
    group_name: what their groups are.
    columns: line -> columns of the file that records do not hold; they are
      written back.
    slices: further slices, name -> B names.
  """
  if isinstance(records[0], VotedPair):
    made = _from_votes(records, seed)
  elif isinstance(records[0], Preference):
    made = _from_preferences(records, seed)
  else:
    made = _from_unpaired(records)
  group, groups = label_answers.ids_of(r.group for r in records)
  if len(groups) == len(records):
    group_name = 'rows'
  features, names = text_features(made['texts'])
  annotator, annotators = _annotators(records)
  evidence = Evidence(
    label=made.pop('label'),
    num_classes=2,
    group=group,
    group_name=group_name,
    features=features,
    feature_names=names,
    annotator_id=annotator if np.any(annotator >= 0) else None,
    votes=made.pop('votes'),
    clean_label=made.pop('clean'),
  )
  return Subject(
    source=report.source,
    evidence=evidence,
    index=np.array([r.index for r in records]),
    worker_group=(),
    annotators=annotators,
    groups=groups,
    slices={
      **standard_slices(
        made['texts'], group, groups, group_name, annotator, annotators
      ),
      **(slices or {}),
    },
    extras=[
      {**(columns or {}).get(r.line, {}), **row}
      for r, row in zip(records, made.pop('extras'), strict=True)
    ],
    notes=tuple(report.lines()),
    **made,
  )


def known_columns(record: Preference | Unpaired | VotedPair) -> set[str]:
  """Columns of a file that its records hold."""
  return set(UNPAIRED_COLUMNS if isinstance(record, Unpaired) else PAIR_COLUMNS)


def _from_preferences(records: Sequence[Preference], seed: int) -> dict:
  is_turned = coins(seed, np.array([r.index for r in records]))
  label = is_turned.astype(np.int32)
  clean = [
    _clean(r.clean_label, y) for r, y in zip(records, label, strict=True)
  ]
  votes = _anonymous(records, label)
  confidence = np.array([r.label_prob for r in records])
  return {
    'is_pairs': True,
    'texts': [
      (r.prompt, *((r.rejected, r.chosen) if turn else (r.chosen, r.rejected)))
      for r, turn in zip(records, is_turned, strict=True)
    ],
    'label': label,
    'classes': ('first', 'second'),
    'clean': np.array(clean, np.int32) if max(clean) >= 0 else None,
    'votes': votes,
    'workers': (),
    # 1 is the default: the giver said nothing.
    'confidence': np.where(confidence < 1, confidence, np.nan),
    'is_tie': np.zeros(len(records), bool),
    'is_left': np.zeros(0 if votes is None else len(votes)),
    'label_is': "the file's `chosen`",
    'records': records,
    'extras': [{}] * len(records),
    'label_field': 'chosen',
  }


def _anonymous(
  records: Sequence[Preference], label: np.ndarray
) -> VoteTable | None:
  """Votes nobody signed; the k-th of every row counts as worker k.

  The label at hand is one of them: `votes` are those of other labellers.
  """
  if not any(any(r.votes) for r in records):
    return None
  task, worker, said = [], [], []
  for i, (record, y) in enumerate(zip(records, label, strict=True)):
    named = [1, *filter(None, record.votes)]
    task += [i] * len(named)
    worker += range(len(named))
    said += [y if vote > 0 else 1 - y for vote in named]
  return VoteTable(
    np.array(task),
    np.array(worker),
    np.array(said),
    len(records),
    max(worker) + 1,
    2,
  )


def _from_unpaired(records: Sequence[Unpaired]) -> dict:
  label = np.array([r.label for r in records], np.int32)
  clean = [-1 if r.clean_label is None else r.clean_label for r in records]
  return {
    'is_pairs': False,
    'texts': [(f'{r.prompt}\n{r.completion}',) for r in records],
    'label': label,
    'classes': ('false', 'true'),
    'clean': np.array(clean, np.int32) if max(clean) >= 0 else None,
    'votes': None,
    'workers': (),
    'confidence': np.full(len(records), np.nan),
    'is_tie': np.zeros(len(records), bool),
    'is_left': np.zeros(0),
    'label_is': "the file's `label`",
    'records': records,
    'extras': [{}] * len(records),
    'label_field': 'label',
  }


def _from_votes(pairs: Sequence[VotedPair], seed: int) -> dict:
  index = np.array([pair.index for pair in pairs])
  turned = coins(seed, index)
  cells = [
    (i, vote.worker, int((vote.value < 0) != turned[i]), 1 - 2 * turned[i])
    for i, pair in enumerate(pairs)
    for vote in pair.votes
    if vote.value
  ]
  task, worker, said, is_left = np.array(cells).T
  worker, workers = label_answers.ids_of(worker.tolist())
  votes = VoteTable(task, worker, said, len(pairs), len(workers), 2)
  label, is_tie = majority_label(votes, index, seed)
  texts = [
    (p.prompt, *((p.second, p.first) if turn else (p.first, p.second)))
    for p, turn in zip(pairs, turned, strict=True)
  ]
  return {
    'is_pairs': True,
    'texts': texts,
    'label': label,
    'classes': ('first', 'second'),
    'clean': None,
    'votes': votes,
    'workers': tuple(f'worker {name}' for name in workers),
    'confidence': np.full(len(pairs), np.nan),
    'is_tie': is_tie,
    'is_left': is_left,
    'label_is': 'the majority of its votes, ties drawn',
    'records': [
      preference(text, y, p.index, p.group)
      for text, y, p in zip(texts, label, pairs, strict=True)
    ],
    'extras': [
      {'votes_for': int(row[y]), 'votes_against': int(row.sum() - row[y])}
      for row, y in zip(votes.counts, label, strict=True)
    ],
    'label_field': 'chosen',
  }


def preference(
  text: tuple[str, ...], label: int, index: int, group: str, **known: Any
) -> Preference:
  """A pair of texts and its label as a record."""
  return Preference(
    prompt=text[0],
    chosen=text[1 + label],
    rejected=text[2 - label],
    index=int(index),
    group=group,
    **known,
  )


def _annotators(
  records: Sequence[Preference | Unpaired | VotedPair],
) -> tuple[np.ndarray, tuple[str, ...]]:
  """`[B]` who gave the label at hand, −1 unknown, and their names."""
  given = np.array([getattr(r, 'annotator_id', -1) for r in records], np.int64)
  known, ids = np.unique(given[given >= 0], return_inverse=True)
  annotator = np.full(len(records), -1, np.int32)
  annotator[given >= 0] = ids
  return annotator, tuple(f'annotator {name}' for name in known)


def _clean(is_right: bool | None, label: int) -> int:
  if is_right is None:
    return -1
  return int(label) if is_right else 1 - int(label)

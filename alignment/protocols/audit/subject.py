"""What an audit is about: labels, texts, and the rows they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from alignment.data.records import Preference, Unpaired
from alignment.noise.corruption.draws import uniforms
from alignment.noise.crowd.table import VoteTable
from alignment.noise.evidence import Evidence

_ORDER, _TIES = 101, 102
"""Streams of the audit's key."""
MAX_SLICES = 12


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
  """B labels as an audit sees them, in an order that carries no meaning.

  Attributes:
    source: what was read.
    is_pairs: labels compare two texts; else they name a class of one text.
    evidence: without `probs`. Of pairs, label 0 says that the first of `texts`
      is better.
    texts: B tuples: (prompt, first, second), or (text,).
    index: `[B]` int64, stable ids of the rows.
    classes: C names.
    workers: names along `evidence.votes`; () where nobody knows who voted.
    worker_group: what each worker belongs to; () where nothing says so.
    annotators: names along `evidence.annotator_id`.
    groups: names along `evidence.group`.
    is_left: `[V]`, +1 where the first text was shown first to the voter, −1
      second, 0 unknown.
    confidence: `[B]` P(label at hand is right) as its giver says; NaN unknown.
    is_tie: `[B]` bool, the label at hand was drawn because the votes tie.
    label_is: in words: where the label at hand comes from.
    slices: name -> B names, parts that may differ in noise.
    records: B of them, as labelled; () where labels are classes of a table.
    extras: B mappings, what the file says beside its label; written back.
    label_field: the column that holds the label of a class.
    notes: what happened on reading, a line each.
  """

  source: str
  is_pairs: bool
  evidence: Evidence
  texts: Sequence[tuple[str, ...]]
  index: np.ndarray
  classes: tuple[str, ...]
  workers: tuple[str, ...]
  worker_group: tuple[str, ...]
  annotators: tuple[str, ...]
  groups: tuple[str, ...]
  is_left: np.ndarray
  confidence: np.ndarray
  is_tie: np.ndarray
  label_is: str
  slices: Mapping[str, Sequence[str]]
  records: Sequence[Preference | Unpaired]
  extras: Sequence[Mapping[str, Any]]
  label_field: str
  notes: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.evidence)


def coins(seed: int, index: np.ndarray) -> np.ndarray:
  """`[B]` bool: whether a pair is turned round, a function of its index."""
  return uniforms(jax.random.key(seed), _ORDER, index) < 0.5


def majority_label(
  votes: VoteTable, index: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """The class most votes name; ties are drawn, by the task's index.

  Args:
    votes: at least one per task.
    index: `[num_tasks]` stable ids.
    seed: of the draw.

  Returns:
    label `[num_tasks]` int32 and whether it was drawn, bool.
  """
  counts = votes.counts
  leads = counts == counts.max(axis=1, keepdims=True)
  num_leads = leads.sum(axis=1)
  drawn = np.floor(uniforms(jax.random.key(seed), _TIES, index) * num_leads)
  label = np.argmax(np.cumsum(leads, axis=1) > drawn[:, None], axis=1)
  return label.astype(np.int32), num_leads > 1


def text_features(
  texts: Sequence[tuple[str, ...]],
) -> tuple[np.ndarray, tuple[str, ...]]:
  """The lengths on which a label or its error may depend.

  Args:
    texts: B tuples as of a `Subject`.

  Returns:
    `[B, F]`, standardised, and F names; a number that does not vary is left
    out.
  """
  words = np.array([[len(t.split()) for t in row] for row in texts], np.float64)
  logs = np.log1p(words)
  if logs.shape[1] == 1:
    values, names = logs, ('length, log words',)
  else:
    ratio = logs[:, 1] - logs[:, 2]
    columns = {
      'length, first minus second, log words': ratio,
      '|log length ratio|': np.abs(ratio),
      'log words of both': logs[:, 1:].mean(axis=1),
      'log words of the prompt': logs[:, 0],
    }
    values, names = np.stack([*columns.values()], axis=1), tuple(columns)
  spread = values.std(axis=0)
  varies = spread > 1e-9
  values = (values - values.mean(axis=0))[:, varies] / spread[varies]
  return values, tuple(n for n, v in zip(names, varies, strict=True) if v)


def length_ratio(texts: Sequence[tuple[str, ...]]) -> np.ndarray:
  """`[B]` log of words of the first over the second; 0 for single texts."""
  if len(texts[0]) < 3:
    return np.zeros(len(texts))
  words = np.array([[len(t.split()) for t in row[1:]] for row in texts])
  return np.log1p(words[:, 0]) - np.log1p(words[:, 1])


def standard_slices(
  texts: Sequence[tuple[str, ...]],
  group: np.ndarray,
  groups: Sequence[str],
  group_name: str,
  annotator: np.ndarray,
  annotators: Sequence[str],
) -> dict[str, list[str]]:
  """Slices any set has: groups, lengths, annotators.

  None of them depends on the label at hand, so choosing a slice does not
  choose errors.
  """
  slices = {}
  if group_name != 'rows' and 2 <= len(groups) <= MAX_SLICES + 4:
    slices[group_name] = [groups[g] for g in group]
  if any(texts[0]):
    slices['length'] = _length_names(texts)
  given = np.bincount(annotator[annotator >= 0], minlength=len(annotators))
  frequent = np.argsort(-given, kind='stable')[:MAX_SLICES]
  named = {i: annotators[i] for i in frequent if given[i] >= 50}
  if len(named) > 1:
    slices['annotator'] = [named.get(a, '(others)') for a in annotator]
  return slices


def _length_names(texts: Sequence[tuple[str, ...]]) -> list[str]:
  """Thirds by length: of the text, or of how much longer one of two is."""
  if len(texts[0]) == 3:
    values = np.abs(length_ratio(texts))
    names = ('texts of like length', 'in between', 'one is much longer')
  else:
    values = np.array([len(row[0].split()) for row in texts])
    names = ('short', 'medium', 'long')
  edges = np.quantile(values, (1 / 3, 2 / 3))
  return [names[i] for i in np.searchsorted(edges, values, side='left')]

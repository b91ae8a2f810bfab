"""From suspicion to a file to train on, and never a flip that nothing backs."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from alignment.data.cleaned import dropped_path, write_cleaned
from alignment.data.readers import json_lines, write_lines
from alignment.data.records import DataError, Unpaired
from alignment.noise.detection.repair import Repair, plan_repair
from alignment.noise.evidence import Evidence
from alignment.protocols.audit.subject import Subject
from alignment.protocols.audit.suspicion import Suspicion

POLICIES = ('keep', 'reweight', 'soften', 'flip', 'drop', 'mixed', 'ask')
NEEDS_PROBABILITY = ('reweight', 'soften', 'flip', 'drop', 'mixed')
ASK_BUDGET = 100
_OURS = {
  *('action', 'is_swapped', 'ask_rank', 'suspicion_rank', 'flip_posterior'),
  *('original_label', 'original_label_prob', 'original_weight'),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
  """What is done to the labels.

  Attributes:
    repair: an action per row.
    policy: the policy, `auto` resolved.
    why: why this one, in a sentence.
  """

  repair: Repair
  policy: str
  why: str


def make_plan(
  subject: Subject,
  evidence: Evidence,
  suspicion: Suspicion,
  rng: np.random.Generator,
  *,
  action: str = 'auto',
  ask_budget: int | None = None,
) -> Plan:
  """Chooses an action per label.

  `auto` softens where it is known how likely each label is wrong (weights
  where a row has no room for a soft label). Where it is not, or annotators are
  known not to err independently, it changes nothing and asks about the most
  suspicious rows. It never flips and never drops.

  Args:
    subject: what is audited.
    evidence: the subject's, with probabilities where there is a model.
    suspicion: of its labels.
    rng: breaks ties among equally valuable questions.
    action: `auto` or one of `POLICIES`.
    ask_budget: rows to set aside for a human, whatever the action; 100 where
      the action is `ask`, else none, unless given.

  Raises:
    ValueError: an action that needs P(wrong) where nothing identifies it, or
      one that the rows have no column for.
  """
  unpaired = bool(subject.records) and isinstance(subject.records[0], Unpaired)
  policy, why = action, 'as asked for'
  if action == 'auto':
    policy, why = _safest(suspicion, unpaired)
  if policy in NEEDS_PROBABILITY and suspicion.posterior is None:
    raise ValueError(
      f'--action={policy}: {suspicion.reason}. Votes, known true labels or a '
      'rate you vouch for (--assumed_flip_rate) would identify it; '
      '--action=ask changes no label'
    )
  if policy == 'soften' and unpaired:
    raise ValueError(
      '--action=soften: rows of {prompt, completion, label} have no column for '
      'a soft label; use reweight'
    )
  posterior, value = suspicion.posterior, None
  if posterior is None:
    # Nothing is known, so only the order of the questions is the detector's.
    posterior = np.zeros(len(subject))
    value = suspicion.score - suspicion.score.min() + 1.0
  if ask_budget is None:
    ask_budget = ASK_BUDGET if policy == 'ask' else 0
  repair = plan_repair(
    evidence,
    posterior,
    rng,
    policy='keep' if policy == 'ask' else policy,
    ask_budget=ask_budget,
    ask_value=value,
  )
  if suspicion.posterior is None:
    unknown = np.full(len(subject), np.nan)
    repair = dataclasses.replace(repair, flip_posterior=unknown)
  return Plan(repair=repair, policy=policy, why=why)


def write(
  path: pathlib.Path, subject: Subject, plan: Plan, suspicion: Suspicion
) -> dict[str, str]:
  """Writes the cleaned file, what it leaves out, and the rows to ask about.

  Args:
    path: of the cleaned file, `.jsonl`.
    subject: what was audited.
    plan: what is done to its labels.
    suspicion: written into a column.

  Returns:
    `cleaned`, `dropped`, `ask` -> path.
  """
  rank = np.empty(len(subject), int)
  rank[suspicion.order] = np.arange(len(subject))
  extras = [
    {**_plain(_others(row)), 'suspicion_rank': int(r)}
    for row, r in zip(subject.extras, rank, strict=True)
  ]
  if subject.records:
    write_cleaned(path, subject.records, plan.repair, extras=extras)
  else:
    _write_classes(path, subject, plan.repair, extras)
  ask = path.with_name(f'{path.stem}.ask.jsonl')
  asked = np.flatnonzero(plan.repair.ask_rank >= 0)
  asked = asked[np.argsort(plan.repair.ask_rank[asked])]
  write_lines(ask, json_lines(question(subject, i) for i in asked))
  return {
    'cleaned': str(path),
    'dropped': dropped_path(str(path)),
    'ask': str(ask),
  }


def question(subject: Subject, i: int) -> dict[str, Any]:
  """A row as a human is asked about it: no hint of the label at hand."""
  names = ('prompt', 'first', 'second') if subject.is_pairs else ('text',)
  texts = dict(zip(names, subject.texts[i], strict=True))
  return {
    'index': int(subject.index[i]),
    'group': subject.groups[subject.evidence.group[i]],
    **texts,
    'answers': list(subject.classes),
  }


def _safest(suspicion: Suspicion, unpaired: bool) -> tuple[str, str]:
  if suspicion.posterior is None:
    return 'ask', (
      f'{suspicion.reason}; so no label is changed, and the most suspicious '
      'rows are listed for a human'
    )
  if suspicion.doubt:
    return 'ask', (
      f'{suspicion.doubt}; so no label is changed, and the rows whose answer '
      'is worth most are listed for a human'
    )
  if unpaired:
    return 'reweight', (
      f'P(wrong) comes from {suspicion.reason}, and rows of {{prompt, '
      'completion, label}} have no column for a soft label'
    )
  return 'soften', (
    f'P(wrong) comes from {suspicion.reason}; a soft label is right on average '
    'where a flip would be a bet on every row'
  )


def _write_classes(
  path: pathlib.Path, subject: Subject, repair: Repair, extras: list[dict]
) -> None:
  """Rows of a table with the label, its probability and weight beside it."""
  kept, dropped = [], []
  for i, extra in enumerate(extras):
    before = subject.classes[subject.evidence.label[i]]
    after = subject.classes[repair.label[i]]
    row = {
      **extra,
      'index': int(subject.index[i]),
      subject.label_field: after,
      'label_prob': float(repair.label_prob[i]),
      'weight': float(repair.weight[i]),
      'action': str(repair.action[i]),
    }
    if after != before:
      row['original_label'] = before
    if not np.isnan(repair.flip_posterior[i]):
      row['flip_posterior'] = float(repair.flip_posterior[i])
    (dropped if row['action'] == 'drop' else kept).append(row)
  if not kept:
    raise DataError('every row would be dropped', 'Choose another --action')
  write_lines(path, json_lines(kept))
  write_lines(dropped_path(str(path)), json_lines(dropped))


def _others(row: Mapping[str, Any]) -> dict[str, Any]:
  """Columns that are not of an earlier audit, which would be out of date."""
  return {name: value for name, value in row.items() if name not in _OURS}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
  """Values that JSON can say; others as text, NaN left out."""
  plain = {}
  for name, value in row.items():
    if isinstance(value, float) and not np.isfinite(value):
      continue
    try:
      json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
      value = str(value)
    plain[name] = value
  return plain

"""The report of an audit: verdict first, then what it rests on."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from alignment.data.readers import json_lines, write_lines
from alignment.metrics.intervals import Estimate
from alignment.protocols.audit.checks import as_estimate
from alignment.protocols.audit.findings import Findings
from experiments.report import audit_figures
from experiments.report import audit_numbers as numbers
from experiments.report.audit_figures import common_splits
from experiments.report.audit_text import (
  flips,
  plain_verdict,
  question_of_rate,
)
from experiments.report.tables import estimate, number, table
from experiments.report.tables import write as publish

NUM_ANNOTATORS = numbers.NUM_ANNOTATORS
NUM_PARTS = 20


def write(
  directory: pathlib.Path,
  findings: Findings,
  paths: Mapping[str, str],
  *,
  num_shown: int,
) -> dict[str, Any]:
  """Writes `report.md`, figures and `rows.jsonl`; prints the verdict.

  Args:
    directory: of the run.
    findings: of the audit.
    paths: what `cleaning.write` returned.
    num_shown: likeliest flips shown with their texts.

  Returns:
    The numbers, JSON values.
  """
  figures = audit_figures.draw(directory, findings)
  verdict = plain_verdict(findings)
  publish(
    directory / 'report.md',
    [
      f'# Audit: {findings.subject.source}',
      verdict,
      *figures,
      '## How many labels are wrong',
      _rates(findings),
      *_heterogeneity(findings),
      *_parts(findings),
      '## Who labels how well',
      *_annotators(findings),
      '## What needs no model',
      _baselines(findings),
      _repeats(findings),
      '## The likeliest flips',
      *flips(findings, num_shown),
      '## Predicted against observed',
      *_checks(findings),
      '## The cleaned file',
      *_cleaned(findings, paths),
      '## Recommendation',
      *_recommendation(findings),
      '## What was read',
      '\n'.join(f'    {line}' for line in findings.subject.notes),
      f'The label at hand is {findings.subject.label_is}.',
    ],
  )
  write_lines(directory / 'rows.jsonl', json_lines(numbers.rows(findings)))
  print(f'\n{verdict}\n')
  return numbers.summary(findings, paths, verdict)


def _rates(findings: Findings) -> str:
  relied = [
    e.estimator
    for e in (findings.rates.of_votes, findings.rates.of_labels)
    if e is not None
  ]
  rows, refusals = [], []
  for e in findings.rates.estimates:
    if e.is_refused:
      refusals.append(f'- {e.estimator}: {e.refusal}.')
      continue
    rows.append(
      [
        f'**{e.estimator}**' if e.estimator in relied else e.estimator,
        question_of_rate(e.estimator),
        estimate(as_estimate(e))
        if e.rate is not None
        else f'between {number(e.low)} and {number(e.high)}',
        f'{e.count} × {e.unit}',
        e.assumption,
        '; '.join(e.flags),
      ]
    )
  head = ['estimator', 'rate of', 'rate', 'units', 'assumes', 'remarks']
  parts = []
  if rows:
    parts.append(table(head, rows))
    parts.append(
      'In bold: relied upon below. Intervals are 95 %.'
      if relied
      else 'None of these is relied upon: they rest on what a model of the '
      'same labels is taken to know, which the labels cannot confirm.'
    )
  if findings.rates.limits:
    parts.append('What stands in the way of a rate:')
    parts.append(
      '\n'.join(
        f'- {limit.name}: {limit.detail}; {limit.remedy}.'
        for limit in findings.rates.limits
      )
    )
  if refusals:
    parts.append('Refused, with what would give a number:')
    parts.append('\n'.join(refusals))
  return '\n\n'.join(parts)


def _heterogeneity(findings: Findings) -> list[str]:
  test = findings.rates.heterogeneity
  if test is None:
    return []
  if test.refusal:
    return [f'Whether rates of rows differ cannot be tested: {test.refusal}.']
  rows = [
    [f'{votes - small}-{small}', str(seen), f'{expected:.0f}']
    for votes, small, seen, expected in common_splits(test)
  ]
  verdict = (
    'rates of rows differ, so that one rate for all is a lower bound'
    if test.p_value < 0.05
    else 'one rate for all rows explains the splits'
  )
  return [
    f'How votes split, against one rate for all rows (p = {test.p_value:.2g}: '
    f'{verdict}):',
    table(['split', 'rows', 'expected of one rate'], rows),
  ]


def _parts(findings: Findings) -> list[str]:
  blocks = []
  for name, parts in findings.rates.parts.items():
    rows = [
      [
        _cell(part.name),
        str(part.rows),
        '–'
        if part.rate is None or part.rate.is_refused
        else estimate(as_estimate(part.rate)),
        estimate(part.against_model),
      ]
      for part in parts[:NUM_PARTS]
    ]
    asked = findings.rates.of_votes or findings.rates.of_labels
    head = 'rate' if asked is None else f'rate ({asked.estimator})'
    blocks.append(f'By {name}:')
    blocks.append(
      table([name, 'rows', head, 'labels against the text model'], rows)
    )
    if len(parts) > NUM_PARTS:
      blocks.append(f'{len(parts) - NUM_PARTS} smaller parts are left out.')
  return blocks


def _annotators(findings: Findings) -> list[str]:
  found = findings.annotators
  blocks = [found.note] if found.note else []
  if found.ranked:
    rows = [
      [
        _cell(a.name),
        str(a.labels),
        estimate(a.skill),
        estimate(a.says_first),
        '; '.join(a.flags),
      ]
      for a in found.ranked[:NUM_ANNOTATORS]
    ]
    by = f', by {found.model}' if found.model else ''
    blocks.append(
      f'{len(found.ranked)} annotators, the worst first{by}; {found.skill_is}.'
    )
    blocks.append(
      table(['annotator', 'labels', 'skill', 'says first', 'remarks'], rows)
    )
  if found.fit is not None and found.fit.flags:
    blocks.append(f'The model remarks: {"; ".join(found.fit.flags)}.')
  return blocks + _dependence(findings)


def _dependence(findings: Findings) -> list[str]:
  found = findings.annotators.dependence
  if found is None:
    return []
  if found.remark:
    return [f'Independence of errors: {found.remark}.']
  pairs = np.flatnonzero(found.correlated)
  names = findings.subject.workers
  pooled = Estimate(found.pooled, found.pooled_low, found.pooled_high, 0)
  text = (
    f'Independence of errors: {len(pairs)} of {len(found.first)} pairs of '
    'annotators agree more often than their skills explain (5 % over all '
    f'pairs); over all pairs the excess is {estimate(pooled, signed=True)}.'
  )
  if not len(pairs):
    return [text]
  excess = found.observed - found.predicted
  worst = pairs[np.argsort(-excess[pairs])][:10]
  rows = [
    [
      _cell(names[found.first[p]]),
      _cell(names[found.second[p]]),
      str(found.num_shared[p]),
      number(found.observed[p]),
      number(found.predicted[p]),
    ]
    for p in worst
  ]
  return [
    f'{text} Rates and skills above take errors as independent, so they are '
    'too favourable.',
    table(['annotator', 'and', 'rows', 'agree', 'expected'], rows),
  ]


def _baselines(findings: Findings) -> str:
  rows = [
    [b.name, estimate(b.share), number(b.chance, 2), b.note]
    for b in findings.baselines
  ]
  return table(['what', 'share', 'chance', 'remark'], rows)


def _repeats(findings: Findings) -> str:
  found = findings.repeats
  text = (
    f'{found.rows} rows repeat the texts of another row ({found.pairs} '
    f'different ones); {found.contradicted} of these are labelled both ways.'
  )
  if found.examples:
    index = findings.subject.index
    shown = '; '.join(
      ', '.join(str(index[i]) for i in rows) for rows in found.examples
    )
    text += f' Indices of contradictions: {shown}.'
  if found.triangles:
    text += (
      f' Of {found.triangles} sets of three texts compared each with each, '
      f'{found.cycles} are cycles ({found.cycles / found.triangles:.1%}; 25 % '
      'if labels meant nothing).'
    )
  return text


def _checks(findings: Findings) -> list[str]:
  blocks = []
  if findings.checks:
    rows = [
      [
        c.what,
        c.by,
        f'between {number(c.predicted.low)} and {number(c.predicted.high)}'
        if np.isnan(c.predicted.value)
        else estimate(c.predicted),
        estimate(c.observed),
        f'{c.observed.count} × {c.unit}',
        {True: 'holds', False: '**fails**', None: '–'}[c.holds],
      ]
      for c in findings.checks
    ]
    head = ['what', 'predicted by', 'predicted', 'observed', 'units', 'verdict']
    blocks.append(table(head, rows))
  if findings.scores:
    first = findings.scores[0]
    rows = [
      [s.detector, estimate(s.auroc), estimate(s.precision)]
      for s in findings.scores
    ]
    blocks.append(
      f'Detectors against {first.truth}, {first.rows} rows of which '
      f'{first.share:.1%} are wrong; precision among as many rows as the rate '
      'says are wrong (a random detector has that share):'
    )
    blocks.append(table(['detector', 'AUROC', 'precision'], rows))
  return blocks or [
    'Nothing: there are no known truths, no rows with three votes, and no '
    'texts that were compared in a circle.'
  ]


def _cleaned(findings: Findings, paths: Mapping[str, str]) -> list[str]:
  plan, size = findings.plan, len(findings.subject)
  counts = ', '.join(
    f'{plan.repair.count(action)} {action}'
    for action in ('keep', 'soften', 'reweight', 'flip', 'drop', 'ask')
    if plan.repair.count(action)
  )
  name = pathlib.Path(paths['cleaned']).name
  blocks = [
    f'`{name}`: {size} rows, {counts}. Policy: {plan.policy}, because '
    f'{plan.why}.'
  ]
  known = findings.evidence.clean_label
  if known is not None and np.any(known >= 0):
    blocks.append(
      'Rows whose true class is known are left as they are labelled; take the '
      'truth from its column.'
    )
  if plan.repair.count('ask'):
    blocks.append(
      f'`{pathlib.Path(paths["ask"]).name}`: what to ask a human, most '
      'valuable first, without the label at hand.'
    )
  if findings.subject.is_pairs:
    blocks.append(
      'Any trainer of preferences reads {prompt, chosen, rejected} from it; '
      'soft labels and weights are the columns `label_prob` and `weight`, '
      'which a trainer that does not know them ignores (then use '
      '--action=flip or drop). To train on it:'
    )
    command = f'python -m experiments.noisy_dpo --data={paths["cleaned"]}'
    blocks.append(f'    {command}')
  return blocks


def _recommendation(findings: Findings) -> list[str]:
  found = findings.recommendation
  told = '' if found.loss is None else f'`{found.loss}`. '
  blocks = [
    f'{told}{found.reason} A loss is recommended only where choosing it on '
    'half of the scenarios, simulated on these texts with linear rewards, beat '
    'plain training on the other half.'
  ]
  if found.table:
    rows = [
      [
        row.loss,
        estimate(row.accuracy),
        estimate(row.regret),
        estimate(row.gain, signed=True),
      ]
      for row in found.table
    ]
    head = ['loss', 'clean accuracy', 'regret', 'gain over dpo']
    blocks.append(table(head, rows))
  return blocks


def _cell(text: str) -> str:
  return ' '.join(str(text).replace('|', '\\|').split())[:60]

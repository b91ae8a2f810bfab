"""An audit as data: a line per row, and one mapping of all numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from alignment.protocols.audit.findings import Findings

NUM_ANNOTATORS = 15


def rows(findings: Findings) -> list[dict[str, Any]]:
  """Every row with what is known of it, the likeliest wrong first."""
  subject, evidence = findings.subject, findings.evidence
  suspicion, repair = findings.suspicion, findings.plan.repair
  wrong = suspicion.wrong(evidence.label)
  counts = None if evidence.votes is None else evidence.votes.counts
  lines = []
  for rank, i in enumerate(suspicion.order):
    y = evidence.label[i]
    row = {
      'rank': rank,
      'index': int(subject.index[i]),
      'group': subject.groups[evidence.group[i]],
      'label': subject.classes[y],
      'score': float(suspicion.score[i]),
      'action': str(repair.action[i]),
    }
    if not np.isnan(wrong[i]):
      row['flip_posterior'] = float(wrong[i])
    if findings.reading is not None:
      row['text_prob'] = float(findings.reading.probs[i, y])
    if counts is not None:
      row['votes_for'] = int(counts[i, y])
      row['votes_against'] = int(counts[i].sum() - counts[i, y])
    names = ('prompt', 'first', 'second') if subject.is_pairs else ('text',)
    lines.append({**row, **dict(zip(names, subject.texts[i], strict=True))})
  return lines


def summary(
  findings: Findings, paths: Mapping[str, str], verdict: str
) -> dict[str, Any]:
  rates, subject = findings.rates, findings.subject
  test = rates.heterogeneity
  tested = findings.annotators.dependence
  found = {
    'verdict': verdict,
    'rows': len(subject),
    'groups': len(subject.groups),
    'is_identified': rates.is_identified,
    'rates': {
      e.estimator: {
        'rate': e.rate,
        'low': e.low,
        'high': e.high,
        'flags': list(e.flags),
        'refusal': e.refusal,
      }
      for e in rates.estimates
    },
    'of_votes': rates.of_votes and rates.of_votes.estimator,
    'of_labels': rates.of_labels and rates.of_labels.estimator,
    'heterogeneity_p': test and test.p_value,
    'worst_annotators': [
      [a.name, *a.skill[:3], list(a.flags)]
      for a in findings.annotators.ranked[:NUM_ANNOTATORS]
    ],
    'correlated_pairs': None
    if tested is None or tested.remark
    else [int(tested.correlated.sum()), len(tested.first)],
    'likeliest_flips': subject.index[findings.suspicion.order[:50]].tolist(),
    'is_informative': findings.suspicion.is_informative,
    'baselines': {
      b.name: b.share and list(b.share) for b in findings.baselines
    },
    'repeats': findings.repeats._asdict(),
    'checks': [
      [c.what, c.by, list(c.predicted[:3]), list(c.observed[:3]), c.holds]
      for c in findings.checks
    ],
    'scores': {
      s.detector: [list(s.auroc[:3]), list(s.precision[:3]), s.share]
      for s in findings.scores
    },
    'recommendation': [
      findings.recommendation.loss,
      findings.recommendation.reason,
    ],
    'limits': [limit.name for limit in rates.limits],
    'policy': findings.plan.policy,
    'actions': {
      action: findings.plan.repair.count(action)
      for action in ('keep', 'reweight', 'soften', 'flip', 'drop', 'ask')
    },
    **paths,
  }
  return json.loads(json.dumps(found), parse_constant=lambda _: None)

"""What an audit says in words: its verdict, and texts that cannot break it."""

from __future__ import annotations

import re

import numpy as np

from alignment.protocols.audit.checks import as_estimate
from alignment.protocols.audit.findings import Findings
from alignment.protocols.audit.rates import OF_VOTES
from experiments.report.tables import estimate, number

MAX_CHARACTERS = 300
_MARKDOWN = re.compile(r'([\\`*_\[\]<>|#~$])')


def plain_verdict(findings: Findings) -> str:
  """One paragraph: how noisy, how it is known, what was done."""
  subject, rates = findings.subject, findings.rates
  kind = 'pairs' if subject.is_pairs else 'labelled texts'
  sentences = [f'{len(subject):,} {kind}.']
  if rates.of_votes is not None:
    sentences += _verdict_on_votes(findings)
  elif rates.of_labels is not None:
    found = rates.of_labels
    sentences.append(
      f'About {estimate(as_estimate(found))} of the labels are wrong, if this '
      f'holds: {_lowered(found.assumption)}'
    )
  else:
    sentences += _verdict_on_nothing(findings)
  if findings.suspicion.doubt:
    sentences.append(f'Beware: {findings.suspicion.doubt}.')
  sentences += _verdict_on_annotators(findings)
  sentences += _verdict_on_text(findings)
  judged = [c for c in findings.checks if c.holds is not None]
  failed = [c for c in judged if not c.holds]
  if failed:
    by = ', '.join(dict.fromkeys(c.by for c in failed))
    sentences.append(
      f'Beware: {len(failed)} of {len(judged)} predictions that the data can '
      f'be held against fail ({by}).'
    )
  plan = findings.plan
  sentences.append(f'The cleaned file: {plan.policy}, because {plan.why}.')
  return ' '.join(sentences)


def question_of_rate(estimator: str) -> str:
  return 'one vote' if estimator in OF_VOTES else 'the label at hand'


def flips(findings: Findings, num_shown: int) -> list[str]:
  """The likeliest flips with their texts, as a list; and what the order is."""
  suspicion, subject = findings.suspicion, findings.subject
  evidence = findings.evidence
  wrong = suspicion.wrong(evidence.label)
  if suspicion.posterior is None:
    head = (
      f'Ordered by {suspicion.detector}; no label has a probability of being '
      'wrong, since nothing identifies how many are. '
    )
    head += (
      'The text model does beat chance on labels it has not seen, so the top '
      'of the list is where to look first; a surprising label may be right.'
      if suspicion.is_informative
      else 'The text model does not beat chance on labels it has not seen, so '
      'the order means nothing.'
    )
  else:
    head = f'Ordered by P(wrong), from {suspicion.reason}.'
  known = evidence.clean_label
  order = suspicion.order
  if known is not None:
    order = order[known[order] < 0]
    if not len(order):
      return ['The true class of every row is known.']
  tied = int(np.sum(subject.is_tie))
  if tied:
    head += f' {tied} rows whose votes tie are left out here.'
    order = order[~subject.is_tie[order]]
  items = []
  for place, i in enumerate(order[:num_shown]):
    y = int(evidence.label[i])
    facts = [
      f'index {subject.index[i]}',
      safe(subject.groups[evidence.group[i]], 60),
    ]
    if not np.isnan(wrong[i]):
      facts.insert(0, f'P(wrong) {wrong[i]:.2f}')
    if evidence.votes is not None:
      counts = evidence.votes.counts[i]
      facts.append(f'votes {counts[y]} for, {counts.sum() - counts[y]} against')
    if findings.reading is not None:
      facts.append(f'text model gives it {findings.reading.probs[i, y]:.2f}')
    texts = subject.texts[i]
    if subject.is_pairs:
      lines = {
        'prompt': texts[0],
        'chosen': texts[1 + y],
        'rejected': texts[2 - y],
      }
    else:
      lines = {'text': texts[0], 'label': subject.classes[y]}
    items.append(
      f'{place + 1}. {", ".join(facts)}\n'
      + '\n'.join(f'   - {name}: {safe(text)}' for name, text in lines.items())
    )
  return [head, '\n'.join(items), 'All rows: `rows.jsonl`, in this order.']


def safe(text: str, limit: int = MAX_CHARACTERS) -> str:
  """One line of text that Markdown shows as it is, cut in its middle."""
  text = ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())
  if len(text) > limit:
    half = limit // 2
    text = f'{text[:half]} … {text[-half:]}'
  return _MARKDOWN.sub(r'\\\1', text) or '(empty)'


def _verdict_on_votes(findings: Findings) -> list[str]:
  rates, evidence = findings.rates, findings.evidence
  found, test = rates.of_votes, rates.heterogeneity
  sentences = [
    f'One vote is wrong with a probability of about '
    f'{estimate(as_estimate(found))} ({found.estimator}), if this holds: '
    f'{_lowered(found.assumption)}'
  ]
  if rates.rows_differ:
    bounds = next(
      e for e in rates.estimates if e.estimator == 'agreement_bounds'
    )
    sentences.append(
      f'It does not: rates of rows differ (p = {test.p_value:.1g}), so one '
      'rate for all is a lower bound. Whatever the rates of rows, with none '
      f'above 1/2, the mean lies between {number(bounds.low)} and '
      f'{number(bounds.high)}.'
    )
  wrong = findings.suspicion.wrong(evidence.label)
  if not np.all(np.isnan(wrong)):
    sentences.append(
      f'The label at hand ({findings.subject.label_is}) is wrong with a mean '
      f'probability of {np.nanmean(wrong):.3f}.'
    )
  return sentences


def _verdict_on_nothing(findings: Findings) -> list[str]:
  found = {e.estimator: e for e in findings.rates.estimates}
  votes = findings.evidence.votes
  if votes is not None and votes.counts.sum(axis=1).max() > 1:
    e = found['agreement']
    why = e.refusal or (
      f'their agreement leaves every rate from {number(e.low, 2)} to '
      f'{number(e.high, 2)}'
    )
    sentences = [
      f'How many of these labels are wrong cannot be known from these votes: '
      f'{why}.'
    ]
  else:
    sentences = [
      'How many of these labels are wrong cannot be known from this file: no '
      'row has two votes, no true class is known, no labeller states a '
      'probability, and texts hardly repeat. Flips and preferences that are '
      'truly divided look the same in single labels.'
    ]
  upper = found.get('single_labels')
  if upper is not None and upper.high is not None:
    sentences.append(
      f'Any rate from {number(upper.low, 2)} to {number(upper.high, 2)} fits '
      'them, even if every row were flipped alike.'
    )
  sentences.append(
    'A second, independent label on 200 random rows would give a rate.'
  )
  return sentences


def _verdict_on_annotators(findings: Findings) -> list[str]:
  found = findings.annotators
  judged = [
    a
    for a in found.ranked
    if not any(flag.startswith('fewer than') for flag in a.flags)
  ]
  bad = [a for a in judged if 'at or below chance' in a.flags]
  sentences = []
  if bad:
    sentences.append(
      f'{len(bad)} of {len(judged)} annotators with votes enough are at or '
      'below chance.'
    )
  return sentences


def _verdict_on_text(findings: Findings) -> list[str]:
  sentences = []
  shares = {b.name: b.share for b in findings.baselines}
  longer = shares.get('the longer text is labelled better')
  if longer is not None:
    sentences.append(f'The longer text is chosen in {estimate(longer)}.')
  model = shares.get('a linear text model agrees with the labels')
  if model is not None:
    sentences.append(
      f'A linear text model agrees with {estimate(model)} of labels it has not '
      'seen.'
    )
  return sentences


def _lowered(sentence: str) -> str:
  return sentence[:1].lower() + sentence[1:]

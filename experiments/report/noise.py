"""What a report says of injected noise and of estimates of its rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.protocols.arena import Arena
from alignment.protocols.assumed_rate import Estimates, Plan
from alignment.protocols.labelling import Noise, noisy_labels
from experiments.report.tables import number, table


def silent(noise: Noise, arenas: Sequence[Arena], flip_rate: float) -> str:
  """How many training pairs got no label that says something; '' if all did."""
  labels = [noisy_labels(arena, noise, flip_rate) for arena in arenas]
  skipped = np.mean([(found.train_weight == 0).mean() for found in labels])
  tied = 0.0
  if noise.has_ties:
    tied = np.mean([(found.train_label_prob == 0.5).mean() for found in labels])
  if not skipped and not tied:
    return ''
  return (
    f'Of the training pairs {skipped:.1%} were skipped by the labeller and '
    f'{tied:.1%} called a tie (mean over seeds; a pair may be both). Flip '
    'rates are of the others. Skipped pairs weigh nothing; ties have a '
    'label_prob of ½ for losses that read one, all other losses leave them '
    'out, and neither takes part in selection.'
  )


def estimated(found: Estimates, plan: Plan, arenas: Sequence[Arena]) -> str:
  """What losses assume, beside what was injected.

  Args:
    found: (seed, flip rate) -> estimate.
    plan: how they were estimated.
    arenas: one per seed.
  """
  sources = []
  if arenas[0].train.pairs.votes:
    sources.append('the votes of the training split, noise on every one')
  elif plan.relabelled:
    again = 'again' if plan.relabels == 1 else f'{plan.relabels} times more'
    sources.append(
      f'{plan.relabelled:.0%} of the training pairs, labelled {again} at the '
      'rates of the pairs and by draws of their own'
    )
  if plan.anchors:
    sources.append(f'{plan.anchors:.0%} of the training pairs, checked')
  assumption = next(iter(found.values())).assumption
  rows = [
    [
      f'{flip_rate:g}',
      f'{seed}',
      number(one.rate),
      f'[{number(one.low)}, {number(one.high)}]',
      f'{one.count} {one.unit}',
      '; '.join(one.flags),
    ]
    for (seed, flip_rate), one in sorted(
      found.items(), key=lambda item: item[0][::-1]
    )
  ]
  header = ['injected', 'seed', 'ε̂', '95 % interval', 'rests on', 'remarks']
  return (
    f'**The flip rate that losses assume**, by `{plan.estimator}` in every '
    f'seed, from {" and ".join(sources) or "single labels"}; never from the '
    f'labels that results are measured by. What identifies it: {assumption} '
    f'`@{plan.estimator}` in a name is this estimate, and its assumed ε the '
    'mean over seeds.\n\n' + table(header, rows)
  )

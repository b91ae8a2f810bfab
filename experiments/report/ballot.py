"""What a report says of a run on the embedded task, before its tables."""

from __future__ import annotations


def facts(preference: str) -> str:
  """What the numbers are, given how clean labels were made."""
  target = (
    'π*(β) ∝ π_ref · exp(r / β)'
    if preference == 'bt'
    else 'the best completion (argmax labels have no finite optimum)'
  )
  return (
    "Accuracy: held-out pairs ordered as by gold reward, in each loss's own "
    'score. Gold: exact E[gold] over all completions of held-out prompts, 0 '
    f'the start, 1 {target}. KL: exact, to the start, nats. Both are '
    "conditioned on the task's completions; mass is the probability that the "
    'policy gives them.'
  )

"""Random groups for tests of the layout and of what reads it."""

import numpy as np

from alignment.data.layout import Group


def random_groups(
  rng,
  count,
  *,
  completions=(2, 2),
  prompt=(1, 6),
  completion=(1, 7),
  vocab_size=23,
  first_index=0,
):
  """Groups of random texts; the pairs are lowest and highest, inclusive."""

  def text(bounds):
    size = rng.integers(bounds[0], bounds[1] + 1)
    return rng.integers(1, vocab_size, size).astype(np.int32)

  groups = []
  for i in range(count):
    branches = int(rng.integers(completions[0], completions[1] + 1))
    two = rng.permutation(branches)[:2]
    groups.append(
      Group(
        prompt=text(prompt),
        completions=tuple(text(completion) for _ in range(branches)),
        index=first_index + i,
        chosen=int(two[0]),
        rejected=int(two[-1]),
        weight=float(rng.uniform(0.5, 2)),
        coefficient=float(rng.uniform(0.5, 2)),
        label_prob=float(rng.uniform(0.5, 1)),
        label_smoothing=float(rng.uniform(0, 0.4)),
        annotator_id=int(rng.integers(5)),
        reference_logps=tuple(rng.normal(-9, 2, branches).tolist()),
        rewards=tuple(rng.normal(size=branches).tolist()),
      )
    )
  return groups

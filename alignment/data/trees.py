"""Examples that share prompts and completions, as few prompt trees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.data.layout import Group


def distinct_trees(
  groups: Sequence[Group], *, per_tree: int
) -> tuple[list[Group], np.ndarray]:
  """Trees in which every distinct completion of a prompt stands once.

  Scores of completions do not depend on the example that they are part of, so
  a policy that scores these trees has scored the examples.

  Args:
    groups: examples; only their texts are read.
    per_tree: completions at most that branch from one copy of a prompt, ≥ 1.

  Returns:
    The trees, whose `index` is their position, and where the examples'
    completions stand in them: `[n, K, 2]`, tree and place in it, −1 where an
    example has fewer than K completions.
  """
  if per_tree < 1:
    raise ValueError(f'per_tree must be ≥ 1, got {per_tree!r}')
  width = max((len(group.completions) for group in groups), default=1)
  places = np.full((len(groups), width, 2), -1)
  trees: list[tuple[np.ndarray, list[np.ndarray]]] = []
  known: dict[tuple[bytes, bytes], tuple[int, int]] = {}
  open_tree: dict[bytes, int] = {}  # prompt -> its tree that has room
  for group, place in zip(groups, places, strict=True):
    prompt = np.asarray(group.prompt, np.int32).tobytes()
    for k, completion in enumerate(group.completions):
      text = prompt, np.asarray(completion, np.int32).tobytes()
      if text not in known:
        tree = open_tree.get(prompt)
        if tree is None or len(trees[tree][1]) == per_tree:
          tree = open_tree[prompt] = len(trees)
          trees.append((group.prompt, []))
        known[text] = tree, len(trees[tree][1])
        trees[tree][1].append(completion)
      place[k] = known[text]
  return [
    Group(prompt, tuple(completions), index, rejected=0)
    for index, (prompt, completions) in enumerate(trees)
  ], places

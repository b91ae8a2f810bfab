"""Prompt trees as arrays: groups of token ids become one `Batch`."""

from __future__ import annotations

import dataclasses

import numpy as np


class LayoutError(ValueError):
  """A group that does not fit the capacity it was given."""


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """One example: a prompt and the `K` completions that branch from it.

  Attributes:
    prompt: `[P]` int32 token ids, P ≥ 1; BOS where the text has no prompt.
    completions: K arrays of token ids, each of length ≥ 1; each ends with EOS
      unless it was truncated.
    index: ≥ 0, stable over epochs, layouts and runs.
    chosen: which completion is labelled better (a flip swaps it with
      `rejected`; the completions stay where they are).
    rejected: which is labelled worse; equals `chosen` where K = 1.
    weight: ≥ 0, multiplicity.
    coefficient: multiplies the loss, not its denominator.
    label_prob: in [0, 1], P(chosen ≻ rejected) given by the labeller.
    label_smoothing: in [0, ½), the flip rate the loss assumes.
    annotator_id: −1 where unknown.
    reference_logps: K sums of log π_ref in nats, or None where unknown.
    rewards: K rewards, or None where unknown.

  Raises:
    ValueError: a value outside its range.
  """

  prompt: np.ndarray
  completions: tuple[np.ndarray, ...]
  index: int
  chosen: int = 0
  rejected: int = 1
  weight: float = 1.0
  coefficient: float = 1.0
  label_prob: float = 1.0
  label_smoothing: float = 0.0
  annotator_id: int = -1
  reference_logps: tuple[float, ...] | None = None
  rewards: tuple[float, ...] | None = None

  def __post_init__(self):
    count = len(self.completions)
    wanted = {
      'prompt length ≥ 1': len(self.prompt) >= 1,
      'at least one completion': count >= 1,
      'completion lengths ≥ 1': all(len(c) >= 1 for c in self.completions),
      'index ≥ 0': self.index >= 0,
      f'chosen in [0, {count})': 0 <= self.chosen < count,
      f'rejected in [0, {count})': 0 <= self.rejected < count,
      'weight ≥ 0': self.weight >= 0,
      'label_prob in [0, 1]': 0 <= self.label_prob <= 1,
      'label_smoothing in [0, 0.5)': 0 <= self.label_smoothing < 0.5,
    }
    for name in ('reference_logps', 'rewards'):
      values = getattr(self, name)
      wanted[f'{count} {name}'] = values is None or len(values) == count
    for what, holds in wanted.items():
      if not holds:
        raise ValueError(f'group {self.index}: want {what}, got {self}')


@dataclasses.dataclass(frozen=True)
class Capacity:
  """Static sizes of a batch; a new one is a new compile.

  Attributes:
    rows: `R`.
    tokens: `T` of a row.
    targets: `L`, predicted tokens of a row.
    slots: `N`, completions of a row.
    examples: `E` of a row.
  """

  rows: int
  tokens: int
  targets: int
  slots: int
  examples: int

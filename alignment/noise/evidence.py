"""All that is known about a set of labels, whoever gave them."""

from __future__ import annotations

import dataclasses

import numpy as np

from alignment.noise.crowd.table import VoteTable


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
  """B labels and what may tell how many, and which, of them are wrong.

  A preference is a label of two classes: 0 the first completion is better, 1
  the second, in an order that carries no meaning.

  Attributes:
    label: `[B]` int32 in [0, num_classes), the label at hand of every row.
    num_classes: C ≥ 2.
    group: `[B]` int32, what intervals treat as one draw (a title, a prompt).
    group_name: what a group is, in words; `rows` where every row is its own.
    probs: `[B, C]` P(label at hand = c) by a model that saw no row of the
      row's group; None where there is no model.
    features: `[B, F]` float64, a few standardised numbers on which the flip
      rate of a row may depend (length difference, …); None where none.
    feature_names: F names.
    annotator_id: `[B]` int32, who gave the label at hand; −1 unknown.
    votes: all votes, `task` is the row; None where there is one label a row.
    clean_label: `[B]` int32, the true class where it is known, −1 elsewhere:
      anchors, or a whole gold standard.
    clean_margin: `[B]` float64, the log-odds that the true class is 1 and not
      0, by a law stated from outside (a gold reward and its link); never by a
      model trained on these labels, whose margins have the noise in them.

  Raises:
    ValueError: a shape or range above is violated.
  """

  label: np.ndarray
  num_classes: int
  group: np.ndarray
  group_name: str = 'rows'
  probs: np.ndarray | None = None
  features: np.ndarray | None = None
  feature_names: tuple[str, ...] = ()
  annotator_id: np.ndarray | None = None
  votes: VoteTable | None = None
  clean_label: np.ndarray | None = None
  clean_margin: np.ndarray | None = None

  def __post_init__(self):
    size, classes = len(self.label), self.num_classes
    if classes < 2:
      raise ValueError(f'num_classes={classes} must be >= 2')
    shapes = {
      'label': (size,),
      'group': (size,),
      'probs': (size, classes),
      'features': (size, len(self.feature_names)),
      'annotator_id': (size,),
      'clean_label': (size,),
      'clean_margin': (size,),
    }
    for name, shape in shapes.items():
      value = getattr(self, name)
      if value is not None and np.shape(value) != shape:
        raise ValueError(f'{name} has shape {np.shape(value)}, must be {shape}')
    ranges = {'label': (0, classes), 'clean_label': (-1, classes)}
    for name, (low, high) in ranges.items():
      value = getattr(self, name)
      if value is not None and size and not _inside(value, low, high):
        raise ValueError(
          f'{name}={np.min(value)}..{np.max(value)} must lie in [{low}, {high})'
        )
    if self.probs is not None and not (
      np.all(self.probs >= 0) and np.allclose(self.probs.sum(axis=1), 1)
    ):
      raise ValueError('probs must be >= 0 and sum to 1 over the classes')
    if self.votes is not None and (
      self.votes.num_tasks != size or self.votes.num_classes != classes
    ):
      raise ValueError(
        f'votes are of {self.votes.num_tasks} tasks and '
        f'{self.votes.num_classes} classes; must be {size} and {classes}'
      )

  def __len__(self) -> int:
    return len(self.label)

  def take(self, rows: np.ndarray) -> Evidence:
    """What is known of distinct rows, in the order of `rows`."""
    parts = {
      name: getattr(self, name)[rows]
      for name in _PER_ROW
      if getattr(self, name) is not None
    }
    votes = None if self.votes is None else self.votes.of_tasks(rows)
    return dataclasses.replace(self, votes=votes, **parts)


_PER_ROW = (
  'label',
  'group',
  'probs',
  'features',
  'annotator_id',
  'clean_label',
  'clean_margin',
)


def _inside(value: np.ndarray, low: int, high: int) -> bool:
  return low <= np.min(value) and np.max(value) < high

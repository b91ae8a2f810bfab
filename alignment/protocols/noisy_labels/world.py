"""What is learnt from noisy labels of C classes: features, labels, groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from alignment.data.features import bag_of_words
from alignment.data.readers import file_rows, read_file
from alignment.data.records import DataError, Preference
from alignment.data.tokenizers import HashedTokenizer
from alignment.tasks import ballot, ballot_features, ballot_grammar

MAX_CLASSES = 50
SHARES = (0.6, 0.2, 0.2)
"""Of the groups of a file: training, validation, test."""


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """Examples of one split.

  Attributes:
    features: `[B, F]` float32.
    label: `[B]` int32, the best label known, before noise is injected.
    group: `[B]` int32, what intervals over test rows treat as one draw.
    distance: `[B]` float64, how far the gold reward is from the nearest
      boundary of its grade; None where nothing of that kind is known.
    neighbour: `[B]` int32, the grade beyond that boundary; None likewise.
  """

  features: np.ndarray
  label: np.ndarray
  group: np.ndarray
  distance: np.ndarray | None = None
  neighbour: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.label)


@dataclasses.dataclass(frozen=True, eq=False)
class World:
  """Three splits that share no prompt or group.

  Attributes:
    train, validation, test: the splits.
    class_names: C names.
    source: one sentence on where the labels come from.
  """

  train: Part
  validation: Part
  test: Part
  class_names: tuple[str, ...]
  source: str

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How much is drawn of the embedded task; 0 of a file takes all.

  Attributes:
    num_train, num_validation, num_test: examples.
  """

  num_train: int
  num_validation: int
  num_test: int


def graded_ballots(seed: int, sizes: Sizes, num_classes: int) -> World:
  """Completions of BALLOT, graded by where their gold reward falls.

  A grade is a quantile class of the gold reward among the training examples; no
  grade is uncertain (the Bayes accuracy is 1). Features are the words of the
  prompt and the traits of the completion, side by side: what grades them is how
  they go together, which the learner has to find out.

  Args:
    seed: of prompts and completions.
    sizes: of the splits, all ≥ 1.
    num_classes: C ≥ 2.
  """
  rng = np.random.default_rng(seed)
  worlds = ballot.worlds(
    rng,
    ballot_grammar.DIFFICULTIES['default'],
    {'train': 400, 'validation': 120, 'test': 200},
  )
  counts = {
    'train': sizes.num_train,
    'validation': sizes.num_validation,
    'test': sizes.num_test,
  }
  drawn = {
    split: _draw(rng, worlds[split], count) for split, count in counts.items()
  }
  levels = np.arange(1, num_classes) / num_classes
  edges = np.quantile(drawn['train'][1], levels)
  parts = {
    split: _graded(features, reward, prompt, edges)
    for split, (features, reward, prompt) in drawn.items()
  }
  names = tuple(f'grade {c}' for c in range(num_classes))
  source = (
    f'BALLOT completions in {num_classes} grades of gold reward; grades are '
    'exact, so the best possible accuracy is 1'
  )
  return World(**parts, class_names=names, source=source)


def file_world(
  path: str, text: str, label: str, sizes: Sizes, num_buckets: int
) -> World:
  """The labelled texts of a file, as hashed words and word pairs.

  Without `text` and `label` the file holds {prompt, completion, label}. The
  division into splits is by group (the column `group`, else the prompt, else
  the text) and the same for every seed.

  Args:
    path: `.jsonl`, `.jsonl.gz` or `.parquet`.
    text: name of the column of texts, or ''.
    label: name of the column of classes, or ''.
    sizes: at most so many of each split; 0 takes all.
    num_buckets: F.

  Raises:
    DataError: what cannot be read, or fewer than two or more than 50 classes.
  """
  if text:
    texts, answers, groups = _columns(path, text, label)
  else:
    texts, answers, groups = _unpaired(path)
  names = sorted(set(answers))
  if not 2 <= len(names) <= MAX_CLASSES:
    raise DataError(
      f'has {len(names)} different labels ({", ".join(names[:3])}, …)',
      f'Give a column of 2 to {MAX_CLASSES} classes',
      path,
      field=label or 'label',
    )
  classes = np.searchsorted(names, answers).astype(np.int32)
  tokenizer = HashedTokenizer(num_buckets)
  _, group = np.unique(groups, return_inverse=True)
  parts = []
  for rows in _divide(group, sizes, path):
    features = bag_of_words([texts[row] for row in rows], tokenizer)
    parts.append(
      Part(
        features.astype(np.float32).toarray(),
        classes[rows],
        group[rows].astype(np.int32),
      )
    )
  source = (
    f'{len(texts)} rows of {path}, {len(names)} classes. Labels as given count '
    'as clean here: whatever is wrong with them caps every number below'
  )
  return World(*parts, class_names=tuple(names), source=source)


def _draw(rng, world: ballot.World, count: int):
  """Features, gold rewards and prompts of random completions."""
  prompt = rng.integers(0, len(world.prompts), count)
  completion = rng.integers(0, len(world.completions), count)
  words = ballot_features.words(world.requests)[prompt]
  traits = ballot_features.traits(world.completions, world.lengths)[completion]
  features = np.concatenate([words, traits], axis=1).astype(np.float32)
  return features, world.rewards[prompt, completion], prompt


def _graded(features, reward, prompt, edges) -> Part:
  label = np.searchsorted(edges, reward, side='right').astype(np.int32)
  gaps = np.abs(reward[:, None] - edges)
  nearest = gaps.argmin(axis=1)
  # Beyond edge k lie grade k below and k + 1 above.
  neighbour = np.where(label > nearest, nearest, nearest + 1)
  return Part(
    features,
    label,
    prompt.astype(np.int32),
    gaps.min(axis=1),
    neighbour.astype(np.int32),
  )


def _unpaired(path: str) -> tuple[list[str], list[str], list[str]]:
  records, _ = read_file(path)
  if isinstance(records[0], Preference):
    raise DataError(
      'holds pairs, not single completions with a label',
      'Give {prompt, completion, label}, or name the columns with --text and '
      '--label; for pairs there is experiments.noisy_dpo',
      path,
    )
  texts = [f'{record.prompt}\n{record.completion}' for record in records]
  answers = ['good' if record.label else 'bad' for record in records]
  return texts, answers, [record.group for record in records]


def _columns(
  path: str, text: str, label: str
) -> tuple[list[str], list[str], list[str]]:
  texts, answers, groups = [], [], []
  for line, row in file_rows(path):
    for name, kinds in ((text, (str,)), (label, (str, int, bool))):
      if not isinstance(row.get(name), kinds):
        raise DataError(
          f'is {row.get(name)!r}, no {" or ".join(k.__name__ for k in kinds)}',
          f'Name a column that every row has (here: {", ".join(sorted(row))})',
          path,
          line,
          name,
        )
    texts.append(row[text])
    answers.append(str(row[label]).strip())
    groups.append(str(row.get('group', row[text])))
  if not texts:
    raise DataError('has no rows', 'Give another file', path)
  return texts, answers, groups


def _divide(group: np.ndarray, sizes: Sizes, path: str) -> Sequence[np.ndarray]:
  """Rows of training, validation and test."""
  rng = np.random.default_rng(0)
  place = rng.permutation(group.max() + 1)[group] / (group.max() + 1)
  split = np.searchsorted(np.cumsum(SHARES)[:-1], place, side='right')
  limits = (sizes.num_train, sizes.num_validation, sizes.num_test)
  chosen = []
  for s, limit in enumerate(limits):
    rows = rng.permutation(np.flatnonzero(split == s))
    chosen.append(rows[: limit or None])
    if not len(rows):
      raise DataError(
        f'has {group.max() + 1} groups, too few for three splits',
        'Give a file with more groups',
        path,
        field='group',
      )
  return chosen

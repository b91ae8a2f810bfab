"""Train, validation and test sets that share no group and no text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from alignment.data.records import DataError, Record

FRACTIONS = {'train': 0.8, 'validation': 0.1, 'test': 0.1}


def split(
  records: Sequence[Record],
  *,
  seed: int,
  fractions: Mapping[str, float] = FRACTIONS,
) -> dict[str, list[Record]]:
  """Divides records by group, never by row.

  Rows of one `group`, and rows that hold the same prompt and completion, form
  a cluster. Clusters are ordered by a hash of (seed, their name), so the order
  of the file plays no part, and a cluster goes to the split in whose range of
  rows its middle falls.

  Args:
    records: at least one cluster per split.
    seed: another seed, another division.
    fractions: split -> share of rows > 0; they sum to 1.

  Returns:
    split -> its records, in the order given.

  Raises:
    ValueError: fractions out of range.
    DataError: too few or too large clusters for a split to get any.
  """
  if min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
    raise ValueError(f'fractions: {dict(fractions)} must be > 0 and sum to 1')
  clusters = _ordered_clusters(records, seed)
  parts: dict[str, list[int]] = {name: [] for name in fractions}
  before = 0
  for rows in clusters:
    middle = (before + len(rows) / 2) / len(records)
    parts[_range_of(middle, fractions)].extend(rows)
    before += len(rows)
  for name, rows in parts.items():
    if not rows:
      raise DataError(
        f'{len(clusters)} groups are too few or too uneven for the split '
        f'{name!r} ({fractions[name]:.0%} of {len(records)} rows)',
        'Change the fractions or the seed, or use group_folds',
        records[0].path if records else '',
        field='group',
      )
  return {
    name: [records[i] for i in sorted(rows)] for name, rows in parts.items()
  }


def group_folds(
  records: Sequence[Record], *, seed: int, num_folds: int
) -> list[tuple[list[Record], list[Record]]]:
  """Cross-validation by group: every row is tested once.

  Clusters are those of `split`; each goes to the fold that is smallest so far.

  Args:
    records: at least `num_folds` clusters.
    seed: another seed, another division.
    num_folds: ≥ 2.

  Returns:
    `num_folds` pairs (train, test).

  Raises:
    ValueError: fewer than two folds.
    DataError: fewer clusters than folds.
  """
  if num_folds < 2:
    raise ValueError(f'num_folds: {num_folds} must be ≥ 2')
  clusters = _ordered_clusters(records, seed)
  if len(clusters) < num_folds:
    raise DataError(
      f'{len(clusters)} groups cannot fill {num_folds} folds',
      'Lower num_folds',
      records[0].path if records else '',
      field='group',
    )
  folds: list[list[int]] = [[] for _ in range(num_folds)]
  for rows in clusters:
    min(folds, key=len).extend(rows)
  divided = []
  for fold in folds:
    test = set(fold)
    divided.append(
      (
        [r for i, r in enumerate(records) if i not in test],
        [r for i, r in enumerate(records) if i in test],
      )
    )
  return divided


def count_clusters(records: Sequence[Record]) -> int:
  """How many parts `split` and `group_folds` can divide the records into."""
  return len(_ordered_clusters(records, 0))


def check_leak(splits: Mapping[str, Sequence[Record]]) -> None:
  """Raises where two splits share a group or a text.

  A text is a prompt with one of its completions, compared without regard to
  case and white space.

  Args:
    splits: name -> records.

  Raises:
    DataError: names the record and the two splits.
  """
  seen: dict[tuple[str, ...], str] = {}
  for name, records in splits.items():
    for record in records:
      for key in _keys(record):
        if seen.setdefault(key, name) != name:
          raise DataError(
            f'{" ".join(key)[:60]!r} is in {seen[key]!r} and in {name!r}',
            'Divide by group with splits.split',
            record.path,
            record.line,
            'group' if key[0] == 'group' else 'prompt',
          )


def _keys(record: Record) -> list[tuple[str, ...]]:
  """What must not be in two splits."""
  texts = [
    ('text', ' '.join(f'{record.prompt}\n{text}'.lower().split()))
    for text in record.completions()
  ]
  return [('group', record.group), *texts]


def _ordered_clusters(records: Sequence[Record], seed: int) -> list[list[int]]:
  """Row numbers by cluster, in an order that depends on seed and names."""
  parent = list(range(len(records)))

  def root(row: int) -> int:
    while parent[row] != row:
      parent[row] = parent[parent[row]]
      row = parent[row]
    return row

  first: dict[tuple[str, ...], int] = {}
  for row, record in enumerate(records):
    for key in _keys(record):
      parent[root(row)] = root(first.setdefault(key, row))
  clusters: dict[int, list[int]] = {}
  for row in range(len(records)):
    clusters.setdefault(root(row), []).append(row)
  # Named by its smallest group, which the order of rows does not change.
  return sorted(
    clusters.values(),
    key=lambda rows: _draw(seed, min(records[row].group for row in rows)),
  )


def _draw(seed: int, name: str) -> bytes:
  return hashlib.blake2b(f'{seed}:{name}'.encode(), digest_size=8).digest()


def _range_of(position: float, fractions: Mapping[str, float]) -> str:
  """The split whose cumulative range holds a position in [0, 1)."""
  upper = 0.0
  for name, share in fractions.items():
    upper += share
    if position < upper:
      return name
  # Rounding may leave the sum a little below 1.
  return name

"""Clustered intervals on real votes: rows of a debate are not independent."""

import gzip
import json

import numpy as np
import pytest

from alignment.metrics.intervals import (
  cluster_bootstrap,
  clustered_mean,
  mean_interval,
)
from alignment.metrics.preference import accuracy, length_only_accuracy


@pytest.mark.shared
def test_length_only_on_crowd_votes_is_less_sure_by_title(shared_dir):
  folder = shared_dir / 'data' / 'ukp_convarg1'
  with gzip.open(folder / 'arguments.jsonl.gz', 'rt', encoding='utf-8') as file:
    length = {row['id']: len(row['text']) for row in map(json.loads, file)}
  with gzip.open(
    folder / 'pairs_votes.jsonl.gz', 'rt', encoding='utf-8'
  ) as file:
    rows = [row for row in map(json.loads, file) if row['in_strict']]
  sign = np.array([1 if row['gold'] == 'a1' else -1 for row in rows])
  gap = np.array([length[r['arg1']] - length[r['arg2']] for r in rows]) * sign
  right = (gap > 0) + 0.5 * (gap == 0)
  titles = np.array([row['title'] for row in rows])
  by_row = mean_interval(right)
  by_title = clustered_mean(right, titles)
  resampled = cluster_bootstrap(right, titles, np.random.default_rng(0))
  zeros = np.zeros_like(gap)
  assert by_row.value == accuracy(gap.astype(float))
  assert by_row.value == length_only_accuracy(
    np.maximum(gap, zeros), -np.minimum(gap, zeros)
  )
  half = [(e.high - e.low) / 2 for e in (by_row, by_title, resampled)]
  # Whole debates differ in how far length goes: rows overstate the precision.
  assert min(half[1:]) > 2.5 * half[0]
  assert half[2] == pytest.approx(half[1], rel=0.25)

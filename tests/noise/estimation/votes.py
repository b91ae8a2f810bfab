"""Votes drawn at known flip rates."""

import numpy as np

from alignment.noise.crowd.table import VoteTable
from alignment.noise.evidence import Evidence


def table(label: np.ndarray) -> VoteTable:
  """A `[R, V]` matrix of labels, one worker a column."""
  rows, votes = label.shape
  return VoteTable(
    np.repeat(np.arange(rows), votes),
    np.tile(np.arange(votes), rows),
    np.asarray(label, np.int32).reshape(-1),
    rows,
    votes,
    2,
  )


def evidence(label: np.ndarray, group=None, **more) -> Evidence:
  """Evidence of a `[R, V]` matrix of votes; the first is the label at hand."""
  group = np.arange(len(label)) if group is None else group
  return Evidence(
    label=np.asarray(label[:, 0], np.int32),
    num_classes=2,
    group=group,
    votes=table(label),
    **more,
  )


def draw(rng, size, flip_rate, votes, prior=0.3) -> np.ndarray:
  """`[size, votes]` labels; `flip_rate` broadcasts to that shape."""
  true = rng.random((size, 1)) < prior
  return true ^ (rng.random((size, votes)) < flip_rate)

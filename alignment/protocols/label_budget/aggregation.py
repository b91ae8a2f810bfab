"""Several votes on a pair become one label to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from alignment.noise.crowd.catalogue import ANNOTATOR_MODELS
from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Labels, round_up


def majority(pool: Pool, taken: np.ndarray) -> Labels:
  """One hard label per pair; a tie gives none."""
  first, second = pool.counts(taken)
  return Labels(
    (first > second).astype(float),
    (first != second).astype(float),
    np.zeros(len(pool)),
  )


def votes(pool: Pool, taken: np.ndarray) -> Labels:
  """Every vote as an example of its own, taken at its word."""
  first, second = pool.counts(taken)
  total = first + second
  return Labels(
    first / np.maximum(total, 1), total.astype(float), np.zeros(len(pool))
  )


def forward(pool: Pool, taken: np.ndarray) -> Labels:
  """Every vote as an example, flipped at the pool's rate on its way."""
  return votes(pool, taken)._replace(
    flip_rate=np.full(len(pool), pool.flip_rate)
  )


def dawid_skene(pool: Pool, taken: np.ndarray) -> Labels:
  """One soft label per pair: its posterior, every worker with a confusion.

  Source: Dawid and Skene, Maximum likelihood estimation of observer
  error-rates using the EM algorithm, 1979.
  """
  return _posterior('dawid_skene', pool, taken)


def one_coin(pool: Pool, taken: np.ndarray) -> Labels:
  """One soft label per pair: its posterior, every worker with one skill."""
  return _posterior('one_coin', pool, taken)


AGGREGATIONS: Mapping[str, Callable[[Pool, np.ndarray], Labels]] = {
  'majority': majority,
  'votes': votes,
  'forward': forward,
  'dawid_skene': dawid_skene,
  'one_coin': one_coin,
}
"""name -> (pool, votes taken of each pair) -> labels."""


def is_meant_for(aggregation: str, fewest: int, most: int) -> bool:
  """Whether an aggregation says more than the votes themselves.

  A majority of single votes is the vote; the skills of workers cannot be told
  apart where pairs have fewer than three.

  Args:
    aggregation: a key of AGGREGATIONS.
    fewest, most: votes of a pair that has any.
  """
  if aggregation in ('dawid_skene', 'one_coin'):
    return fewest >= 3
  return aggregation != 'majority' or most > 1


def _posterior(model: str, pool: Pool, taken: np.ndarray) -> Labels:
  """The posterior of pairs with votes, in a table of few different shapes."""
  rows = np.flatnonzero(taken)
  table = pool.vote_table(taken)
  place = np.zeros(len(pool), np.int32)
  place[rows] = np.arange(len(rows))
  # Who has no votes says nothing, and a model compiles once per shape.
  table = dataclasses.replace(
    table,
    task=place[table.task],
    num_tasks=round_up(len(rows)),
    num_workers=round_up(table.num_workers),
  )
  probs, weight = np.full(len(pool), 0.5), np.zeros(len(pool))
  probs[rows] = ANNOTATOR_MODELS[model](table).task_probs[: len(rows), 0]
  weight[rows] = table.counts.sum(axis=1)[: len(rows)] > 0
  return Labels(probs, weight, np.zeros(len(pool)))

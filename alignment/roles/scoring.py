"""Scores of what a policy finds likely, as rows keyed by example index."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from alignment.data.layout import collect, fill_reference, owners
from alignment.models.model import Model
from alignment.roles.binding import implicit_reward
from alignment.roles.policy import completion_numbers
from alignment.types import Batch, PyTree


def completion_logps(
  model: Model,
  params: PyTree,
  batches: Iterable[Batch],
  *,
  ld_alpha: float | None = None,
) -> np.ndarray:
  """Σ log π of every completion, whatever the layout of the batches.

  Compiled once per model and batch shape. Devices compute while the next
  batch is sent.

  Args:
    model: the policy's pure functions.
    params: its parameters.
    batches: laid-out batches that together hold every example.
    ld_alpha: as in `completion_numbers`, for a reference of LD-DPO.

  Returns:
    `[n, K]` float32 nats: row i is the example with index i, column k its k-th
    completion; NaN where no batch held it. n is the largest index + 1.
  """
  score = _compiled(model, ld_alpha)
  found = [(batch, score(params, batch)) for batch in batches]
  table = np.full(_table_shape([b for b, _ in found]), np.nan, np.float32)
  for batch, logps in found:
    collect(batch, jax.device_get(logps), table)
  return table


def with_reference(
  model: Model,
  params: PyTree,
  batches: Iterable[Batch],
  *,
  ld_alpha: float | None = None,
) -> list[Batch]:
  """The batches with `reference_logps` filled in from a reference model."""
  batches = list(batches)
  table = completion_logps(model, params, batches, ld_alpha=ld_alpha)
  return [fill_reference(batch, table) for batch in batches]


def preference_margin(
  method: str,
  policy_logps: np.ndarray,
  reference_logps: np.ndarray,
  lengths: np.ndarray,
  hyper: Mapping[str, Any],
) -> np.ndarray:
  """A method's own reward of completion 0 minus that of completion 1.

  Args:
    method: key of `METHODS`.
    policy_logps: `[n, 2]` nats.
    reference_logps: `[n, 2]` nats; not read where the method takes none.
    lengths: `[n, 2]` tokens.
    hyper: name -> value (`beta`, …).

  Returns:
    `[n]` numpy.
  """
  rewards = implicit_reward(
    method, policy_logps, reference_logps, lengths, hyper
  )
  return np.asarray(rewards[:, 0] - rewards[:, 1])


def evaluate(
  model: Model,
  params: PyTree,
  batches: Iterable[Batch],
  *,
  method: str,
  hyper: Mapping[str, Any],
) -> dict[str, np.ndarray]:
  """Rows of a policy on labelled pairs, one per example, sorted by index.

  Args:
    model: the policy's pure functions.
    params: its parameters.
    batches: laid-out pairs with their labels and `reference_logps`.
    method: key of `METHODS`, whose reward is scored.
    hyper: name -> value (`beta`, …).

  Returns:
    `[n]` arrays by name: `index`; `logps/chosen`, `logps/rejected` nats;
    `rewards/chosen`, `rewards/rejected`, `rewards/margins` as labelled.
  """
  score = _compiled(model, None)
  found = [(batch, score(params, batch)) for batch in batches]
  parts = [_rows(batch, np.asarray(l), method, hyper) for batch, l in found]
  rows = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
  order = np.argsort(rows['index'], kind='stable')
  return {name: values[order] for name, values in rows.items()}


def _rows(
  batch: Batch, logps: np.ndarray, method: str, hyper: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  examples, completions = batch.examples, batch.completions
  rewards = np.asarray(
    implicit_reward(
      method, logps, completions.reference_logps, completions.length, hyper
    )
  )
  row, column = np.nonzero(np.asarray(examples.index) >= 0)
  chosen = np.asarray(examples.chosen)[row, column]
  rejected = np.asarray(examples.rejected)[row, column]
  return {
    'index': np.asarray(examples.index)[row, column],
    'logps/chosen': logps[row, chosen],
    'logps/rejected': logps[row, rejected],
    'rewards/chosen': rewards[row, chosen],
    'rewards/rejected': rewards[row, rejected],
    'rewards/margins': rewards[row, chosen] - rewards[row, rejected],
  }


@functools.cache
def _compiled(model: Model, ld_alpha: float | None):
  numbers = completion_numbers(model, ld_alpha=ld_alpha)
  name = 'logps' if ld_alpha is None else 'ld_logps'
  return jax.jit(lambda params, batch: numbers(params, batch, None)[name])


def _table_shape(batches: list[Batch]) -> tuple[int, int]:
  found = [owners(batch) for batch in batches]
  rows = max((int(index.max()) for index, _ in found), default=-1) + 1
  columns = max((int(c.max()) for _, c in found), default=-1) + 1
  return rows, columns

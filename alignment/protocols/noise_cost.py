"""What options against noise cost in a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from alignment.data import pipeline
from alignment.data.layout import Group, fill_reference, relabel
from alignment.models.build import build
from alignment.models.config import plain_config
from alignment.models.model import Model
from alignment.protocols.bakeoff import compiled_step, fresh_state
from alignment.types import Batch, Frozen

VOCAB_SIZE = 256
PLAIN, SAME = 'dpo', 'dpo, once more'
"""What the others are measured against, and the very same work again: what is
told apart from it by less than these two are is not told apart."""


def step_variants(
  *,
  width: int,
  depth: int,
  batch_size: int,
  length: int,
  steps: int,
) -> dict[str, Callable[[], Any]]:
  """Name -> a call that takes `steps` updates and returns the last metrics.

  All start alike and see the same pairs. Those with options also pay for
  relabelling every batch on the host, as a run does.

  Args:
    width, depth: of the transformer; two heads.
    batch_size: pairs in an update.
    length: tokens of a prompt and of the longest completion.
    steps: updates in a call.
  """
  model = build(plain_config(VOCAB_SIZE, width=width, depth=depth, num_heads=2))
  batches = _batches(model, batch_size, length, steps)
  rng = np.random.default_rng(1)
  size = batch_size * steps
  flips = {'is_flipped': rng.random(size) < 0.3}
  rates = {'label_smoothing': rng.uniform(0.0, 0.4, size)}
  options = {
    PLAIN: ('dpo', {}),
    SAME: ('dpo', {}),
    'dpo, flips and weights': (
      'dpo',
      flips | {'weight': rng.integers(0, 3, size)},
    ),
    'rdpo, a rate per pair': ('rdpo', flips | rates),
    'forward, a rate per pair': ('forward', flips | rates),
    'soft_label, a probability per pair': (
      'soft_label',
      flips | {'label_prob': rng.uniform(0.5, 1.0, size)},
    ),
    'gce': ('gce', flips),
  }
  return {
    name: _caller(model, loss, batches, tables)
    for name, (loss, tables) in options.items()
  }


def _caller(
  model: Model,
  loss: str,
  batches: list[Batch],
  tables: Mapping[str, np.ndarray],
) -> Callable[[], Any]:
  step = compiled_step(model, loss, 'mean')
  state = fresh_state(model.init(jax.random.key(0)), 1e-3)
  key = jax.random.key(0)

  def call() -> Any:
    nonlocal state
    for batch in batches:
      labelled = relabel(batch, **tables) if tables else batch
      state, metrics = step(state, Frozen(), labelled, key)
    return metrics

  return call


def _batches(
  model: Model, batch_size: int, length: int, steps: int
) -> list[Batch]:
  groups = list(_groups(batch_size * steps, length))
  laid_out = pipeline.batches(
    groups, batch_size=batch_size, seed=0, num_epochs=1
  )
  reference = np.full((len(groups), 2), -float(length))
  filled = [fill_reference(batch, reference) for batch in laid_out]
  # As in a bake-off: texts on the device, labels on the host.
  return [
    jax.device_put(batch.replace(examples=None)).replace(
      examples=batch.examples
    )
    for batch in filled
  ]


def _groups(count: int, length: int) -> Iterator[Group]:
  rng = np.random.default_rng(0)
  for index in range(count):
    prompt, *both = (
      rng.integers(1, VOCAB_SIZE, size).astype(np.int32)
      for size in (length, *rng.integers(length // 2, length + 1, 2))
    )
    yield Group(prompt, tuple(both), index)

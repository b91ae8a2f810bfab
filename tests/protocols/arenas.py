"""An arena that is built in a moment: a bigram policy, rewards by token."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from alignment.data import pipeline
from alignment.data.layout import Group
from alignment.losses.preference import METHODS, reads
from alignment.models.lora import Lora
from alignment.models.model import Model
from alignment.protocols.arena import (
  Arena,
  Measured,
  Pairs,
  Split,
  agreement,
  training_order,
)
from alignment.roles.scoring import completion_logps
from tests.roles.worlds import MODEL, VOCAB

STEPS = 6
LOSSES = [name for name in METHODS if 'label_prob' not in reads(name)]


def toy_pairs(rng: np.random.Generator, count: int) -> Pairs:
  """Random pairs; the better completion has the better tokens on average."""
  worth = np.random.default_rng(7).normal(size=VOCAB)
  groups, margins = [], []
  for index in range(count):
    prompt, *both = (
      rng.integers(1, VOCAB, rng.integers(low, high)).astype(np.int32)
      for low, high in ((1, 4), (2, 7), (2, 7))
    )
    margin = worth[both[0]].mean() - worth[both[1]].mean()
    chosen = int(margin <= 0)
    groups.append(
      Group(prompt, tuple(both), index, chosen=chosen, rejected=1 - chosen)
    )
    margins.append(margin)
  margins = np.array(margins)
  return Pairs(
    groups=groups,
    observed_flip=np.zeros(count, bool),
    cluster=np.arange(count) // 2,
    gold_margin=margins,
    vote_share=(margins > 0).astype(float),
    vote_count=np.ones(count),
  )


def toy_arena(
  seed: int = 0,
  *,
  sizes: Sequence[int] = (40, 30, 24),
  steps: int = STEPS,
  batch_size: int = 8,
  row_multiple: int = 1,
  model: Model = MODEL,
  lora: Lora | None = None,
) -> Arena:
  """Training, validation and test pairs of one seed."""
  rng = np.random.default_rng([seed, 3])
  start = model.init(jax.random.key(seed))
  names = ('train', 'validation', 'test')
  splits = {}
  for name, count in zip(names, sizes, strict=True):
    pairs = toy_pairs(rng, count)
    batches = pipeline.evaluation_batches(pairs.groups, batch_size=32)
    splits[name] = Split(
      pairs, batches, completion_logps(model, start, batches)
    )

  def yardstick(params, margin):
    del params
    correct = agreement(splits['test'].pairs, margin)
    return Measured({'accuracy': float(correct.mean())}, correct, {})

  return Arena(
    seed=seed,
    model=model,
    start=start,
    **splits,
    order=training_order(
      splits['train'],
      seed=seed,
      steps=steps,
      batch_size=batch_size,
      packing='shared',
      row_multiple=row_multiple,
    ),
    floor={'accuracy': 0.5},
    yardstick=yardstick,
    lora=lora,
  )

"""The arena of one's own preferences: real text, labels that are all one has.

There is no gold reward. The yardstick is agreement with a held-out label,
which is itself noisy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from alignment.data import pipeline
from alignment.data.records import DataError, Record
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
from alignment.protocols.policies import Origin
from alignment.protocols.records_draw import Reading, draw_pairs, rules
from alignment.protocols.supervised import fine_tune
from alignment.roles.scoring import completion_logps
from alignment.training.writers import Writer
from alignment.types import PyTree


class Policy(NamedTuple):
  """What is aligned, and where it starts.

  Attributes:
    model: over the vocabulary of what it reads.
    reading: how it reads text; None for one that reads none.
    sft_steps: of the supervised start on chosen completions; 0 does without.
    sft_learning_rate: its peak rate.
    params: where the supervised start begins; None initialises from the seed.
    origin: what is saved with the policy; None for one that cannot be.
    lora: adapters are trained; None: all parameters.
  """

  model: Model
  reading: Reading | None = None
  sft_steps: int = 0
  sft_learning_rate: float = 3e-3
  params: PyTree | None = None
  origin: Origin | None = None
  lora: Lora | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSizes:
  """How many pairs are used, and how they are trained on.

  Attributes:
    num_pairs: training pairs at most; 0 takes all. Never more than the steps
      can see.
    num_validation, num_test: pairs of either at most; 0 takes all.
    steps, batch_size: preference steps, and pairs in each.
    packing: key of PACKINGS.
    row_multiple: divides the rows of a training batch (devices).
  """

  num_pairs: int = 0
  num_validation: int = 0
  num_test: int = 0
  steps: int
  batch_size: int
  packing: str = 'shared'
  row_multiple: int = 1


def records_arenas(
  seed: int,
  policies: Sequence[Policy],
  records: Sequence[Record],
  sizes: RecordSizes,
  *,
  mesh: Mesh | None = None,
  writer: Writer | None = None,
  should_stop: Callable[[int], bool] = lambda step: False,
) -> list[Arena]:
  """Redraws from `seed`: the split by cluster, the vote, start and order.

  Args:
    seed: one number, one draw.
    policies: each gets an arena of its own, on the very same pairs.
    records: preferences, or pairs with votes.
    sizes: see above.
    mesh: of the supervised starts; None is one device.
    writer: of the supervised starts' metrics.
    should_stop: asked by their loops.

  Returns:
    An arena per policy; each carries all reports of what was dropped or
    truncated.

  Raises:
    DataError: too few clusters or pairs, or pairs that cannot be read.
  """
  seen = sizes.steps * sizes.batch_size
  drawn = draw_pairs(
    records,
    [policy.reading for policy in policies],
    seed=seed,
    limits={
      'train': min(sizes.num_pairs or seen, seen),
      'validation': sizes.num_validation,
      'test': sizes.num_test,
    },
  )
  found = len(drawn.pairs['train'][0])
  if found < sizes.batch_size:
    raise DataError(
      f'leaves {found} training pairs, fewer than --batch_size='
      f'{sizes.batch_size}',
      'Lower --batch_size, or give more pairs',
      records[0].path,
    )
  return [
    dataclasses.replace(
      _arena(
        seed,
        policy,
        {name: read[place] for name, read in drawn.pairs.items()},
        sizes,
        functools.partial(
          fine_tune, mesh=mesh, writer=writer, should_stop=should_stop
        ),
      ),
      rules=rules(drawn),
      reports=tuple(drawn.reports),
    )
    for place, policy in enumerate(policies)
  ]


def _arena(seed, policy, pairs, sizes, fine_tune) -> Arena:
  params = _start(policy, pairs['train'], sizes, seed, fine_tune)
  scored = {
    name: _split(policy.model, params, part) for name, part in pairs.items()
  }
  yardstick = _yardstick(pairs['test'])
  origin = policy.origin
  if origin and policy.sft_steps:
    origin = origin._replace(is_start=False)
  return Arena(
    seed=seed,
    model=policy.model,
    start=params,
    **scored,
    order=training_order(
      scored['train'],
      seed=seed,
      steps=sizes.steps,
      batch_size=sizes.batch_size,
      packing=sizes.packing,
      row_multiple=sizes.row_multiple,
    ),
    floor=yardstick(params, -np.diff(scored['test'].reference)[:, 0]).summary,
    yardstick=yardstick,
    origin=origin,
    lora=policy.lora,
  )


def _start(policy, pairs, sizes, seed, fine_tune) -> PyTree:
  if not policy.sft_steps:
    if policy.params is not None:
      return policy.params
    return policy.model.init(jax.random.key(seed))
  # The labels at hand: the start must not see better ones.
  first = pairs.first_is_better ^ pairs.observed_flip
  chosen = [
    dataclasses.replace(
      group, completions=(group.completions[side],), chosen=0, rejected=0
    )
    for group, side in zip(pairs.groups, np.where(first, 0, 1), strict=True)
  ]
  return fine_tune(
    policy.model,
    chosen,
    steps=policy.sft_steps,
    batch_size=sizes.batch_size,
    learning_rate=policy.sft_learning_rate,
    seed=seed,
    start=policy.params,
    lora=policy.lora,
  ).params


def _split(model: Model, params: PyTree, pairs: Pairs) -> Split:
  batches = pipeline.evaluation_batches(pairs.groups, batch_size=64)
  return Split(pairs, batches, completion_logps(model, params, batches))


def _yardstick(pairs: Pairs) -> Callable[[PyTree, np.ndarray], Measured]:
  def measure(params: PyTree, margin: np.ndarray) -> Measured:
    del params  # Nothing but the pairs is known about real text.
    correct = agreement(pairs, margin)
    return Measured({'agreement': float(correct.mean())}, correct, {})

  return measure

"""One draw of noise and everything that is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.noise.corruption.classes import symmetric_matrix
from alignment.noise.detection.co_teaching import keep_share
from alignment.noise.detection.loss_mixture import gaussian_mixture
from alignment.protocols.noisy_labels import learner
from alignment.protocols.noisy_labels.methods import BASELINE, Arm
from alignment.protocols.noisy_labels.noise import NOISE, realised_transition
from alignment.protocols.noisy_labels.plan import Plan, orders
from alignment.protocols.noisy_labels.transition import (
  complaint,
  estimate_transition,
  mean_rate,
)
from alignment.protocols.noisy_labels.world import World

CLEAN, UNFLIPPED = 'on clean labels', 'on the unflipped labels only'
"""Controls: the baseline told the truth, or spared what is wrong."""
SHARPEN = 2.0
"""DivideMix: mixed labels are squared and renormalised (temperature ½)."""


class Labels(NamedTuple):
  """Labels to learn from and to select by, and what noise made them.

  Attributes:
    train, validation: `[B]` int32, noisy.
    is_flipped: `[B]` bool, of training.
    transition: `[C, C]` as realised in training.
  """

  train: np.ndarray
  validation: np.ndarray
  is_flipped: np.ndarray
  transition: np.ndarray


class Stop(NamedTuple):
  """Predicted classes when an arm is scored."""

  learning_rate: float
  step: int
  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray


def run_trial(
  world: World,
  noise: str,
  flip_rate: float,
  seed: int,
  arms: Sequence[Arm],
  plan: Plan,
) -> dict[str, Any]:
  """Trains every arm and both controls on one draw of noise.

  All share start and order. The stop and learning rate of an arm are those of
  the best accuracy against *noisy* validation labels (the first of equal ones);
  on clean labels against clean ones.

  Args:
    world: the splits.
    noise: key of `NOISE`.
    flip_rate: target share of wrong labels.
    seed: of noise, start and order.
    arms: what competes.
    plan: how it is trained.

  Returns:
    Row of JSON values: `arms` name -> scores (`selected`, `last`, `curve`), or
    `refused` name -> why.
  """
  labels = draw_labels(world, noise, flip_rate, seed)
  row = {'noise': noise, 'flip_rate': flip_rate, 'seed': seed}
  row['realised_rate'] = float(np.mean(labels.is_flipped))
  row['transition'] = labels.transition.tolist()
  told = {'true': labels.transition}
  if any(arm.assumed == 'estimated' for arm in arms):
    told['estimated'] = estimate_transition(
      world.train, labels.train, world.num_classes, seed, plan
    )
    row['estimated_transition'] = told['estimated'].tolist()
    row['estimate_error'] = float(
      np.abs(told['estimated'] - labels.transition).mean()
    )
  told['wrong'] = symmetric_matrix(
    world.num_classes, float(np.mean(labels.is_flipped)) / 2
  )
  row |= {'arms': {}, 'refused': {}}
  for arm in arms:
    matrix = told.get(arm.assumed)
    refusal = complaint(arm, matrix)
    if refusal:
      row['refused'][str(arm)] = refusal
      continue
    stops = train(arm, world, labels, seed, plan, matrix)
    row['arms'][str(arm)] = scores(stops, world, labels, plan)
  baseline = Arm(BASELINE)
  kept = ~labels.is_flipped
  stops = train(baseline, world, labels, seed, plan, None, kept)
  row['arms'][UNFLIPPED] = scores(stops, world, labels, plan)
  clean = labels._replace(
    train=world.train.label, validation=world.validation.label
  )
  stops = train(baseline, world, clean, seed, plan, None)
  row['arms'][CLEAN] = scores(stops, world, clean, plan)
  return row


def draw_labels(
  world: World, noise: str, flip_rate: float, seed: int
) -> Labels:
  """Noise on training and validation, by one recipe and different draws."""
  keys = jax.random.split(jax.random.key(seed))
  train, validation = (
    NOISE[noise](key, part, world.num_classes, flip_rate)
    for key, part in zip(keys, (world.train, world.validation), strict=True)
  )
  transition = realised_transition(
    world.train.label, train.label, world.num_classes
  )
  return Labels(train.label, validation.label, train.is_flipped, transition)


def train(
  arm: Arm,
  world: World,
  labels: Labels,
  seed: int,
  plan: Plan,
  transition: np.ndarray | None,
  kept: np.ndarray | None = None,
) -> list[Stop]:
  """Every stop of every learning rate.

  Args:
    arm: the method.
    world: the splits.
    labels: what is learnt.
    seed: of start and order.
    plan: how.
    transition: what the method is told, None where it is told nothing.
    kept: `[B]` bool, the training rows used; None for all.
  """
  weights = np.ones(len(world.train)) if kept is None else kept
  part = world.train
  data = learner.Data(
    jnp.asarray(part.features),
    (jnp.asarray(labels.train),) * _num_learners(arm),
    jnp.asarray(weights, jnp.float32),
  )
  return [
    stop
    for rate in plan.learning_rates
    for stop in _fit(arm, data, world, labels, seed, plan, transition, rate)
  ]


def _fit(arm, data, world, labels, seed, plan, transition, learning_rate):
  method = arm.method
  keys = jax.random.split(jax.random.key(seed), 2)[: len(data.targets)]
  state = learner.start(
    tuple(keys), data.features, plan.width, world.num_classes
  )
  order = orders(seed, len(data.targets), len(world.train), plan)
  keywords = _keywords(arm, labels.train, transition)
  flip_rate = (
    mean_rate(labels.train, transition) if transition is not None else 0.0
  )
  per_stop = plan.steps_per_stop
  for number in range(plan.num_stops):
    epoch = number * per_stop * plan.batch_size / len(world.train)
    if method.scheme == 'divide_mix' and number >= max(1, plan.num_stops // 5):
      data = data._replace(targets=_divided(state, data, labels.train))
    state = learner.advance(
      state,
      data,
      order[:, number * per_stop : (number + 1) * per_stop],
      keep_share(epoch, flip_rate=flip_rate),
      learning_rate,
      keywords,
      loss=method.loss,
      scheme=method.scheme,
    )
    yield Stop(
      learning_rate,
      (number + 1) * per_stop,
      *(
        np.asarray(learner.logits(state.params[0], p.features)).argmax(axis=1)
        for p in (world.train, world.validation, world.test)
      ),
    )


def scores(
  stops: Sequence[Stop], world: World, labels: Labels, plan: Plan
) -> dict[str, Any]:
  """What is reported of an arm: the stop selected, and the fixed last one."""
  agreement = [np.mean(s.validation == labels.validation) for s in stops]
  best = stops[int(np.argmax(agreement))]
  fixed = [s for s in stops if s.learning_rate == plan.learning_rates[0]]
  same = [s for s in stops if s.learning_rate == best.learning_rate]
  found = {
    'selected': _score(best, world, labels),
    'last': _score(fixed[-1], world, labels),
    'curve': [float(np.mean(s.test == world.test.label)) for s in same],
  }
  if plan.keep_rows:
    found['right'] = ''.join(
      '01'[int(hit)] for hit in best.test == world.test.label
    )
  return found


def _divided(
  state: learner.State, data: learner.Data, label: np.ndarray
) -> tuple[jax.Array, ...]:
  """DivideMix's co-refinement, without its augmentation and mixing of inputs.

    clean = posterior of the small-loss component, of the *other* learner's loss
    guess = own prediction where clean > ½, else the mean of both
    target ∝ (clean·onehot + (1 − clean)·guess)²

  Source: Li, Socher and Hoi, DivideMix, 2020, arXiv 2002.07394.
  """
  probs = [
    np.asarray(jax.nn.softmax(learner.logits(p, data.features)), np.float64)
    for p in state.params
  ]
  onehot = np.eye(probs[0].shape[1])[label]
  own = np.arange(len(label))
  targets = []
  for k, mine in enumerate(probs):
    losses = -np.log(np.maximum(probs[-1 - k][own, label], 1e-12))
    clean = gaussian_mixture(losses).clean[:, None]
    guess = np.where(clean > 0.5, mine, (probs[0] + probs[1]) / 2)
    mixed = (clean * onehot + (1 - clean) * guess) ** SHARPEN
    mixed /= mixed.sum(axis=1, keepdims=True)
    targets.append(jnp.asarray(mixed, jnp.float32))
  return tuple(targets)


def _keywords(arm, label, transition) -> Mapping[str, Any]:
  if arm.method.needs == 'transition':
    return {'transition': jnp.asarray(transition, jnp.float32)}
  if arm.name == 'conservative':
    return {'label_smoothing': jnp.float32(mean_rate(label, transition))}
  return {}


def _num_learners(arm: Arm) -> int:
  return 2 if arm.method.scheme in ('co_teaching', 'divide_mix') else 1


def _score(stop: Stop, world: World, labels: Labels) -> dict[str, Any]:
  wrong = labels.is_flipped
  fitted = np.mean(stop.train[wrong] == labels.train[wrong])
  return {
    'accuracy': float(np.mean(stop.test == world.test.label)),
    'learning_rate': stop.learning_rate,
    'step': stop.step,
    'fitted': float(fitted) if wrong.any() else None,
  }

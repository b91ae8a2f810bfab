"""The fair bake-off: same data, start, order and grid for every loss.

A contestant is a loss with the flip rate it assumes. It is trained at every
learning rate of the grid and scored at every stop; the pair (learning rate,
stop) is selected on *noisy* validation pairs by the best-temperature negative
log-likelihood, a criterion that no loss owns and that needs no clean label.
Clean labels are only ever used to report.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from alignment.data.layout import relabel
from alignment.data.pipeline import rows_with
from alignment.losses.preference import reads
from alignment.metrics.preference import accuracy, best_temperature_nll
from alignment.models.lora import Lora
from alignment.models.model import Model
from alignment.protocols.arena import Arena, Measured, Split
from alignment.protocols.contestants import Contestant, value_at_zero
from alignment.protocols.progress import ROLES, CellCheckpoints, Progress, Stop
from alignment.protocols.trainable import trained_step
from alignment.roles.learner import preference_objective
from alignment.roles.scoring import completion_logps, preference_margin
from alignment.training import writers
from alignment.training.loop import train
from alignment.training.mesh import param_shardings, place, state_shardings
from alignment.training.optimizer import make_optimizer, set_learning_rate
from alignment.training.step import init_state
from alignment.types import Batch, Frozen, PyTree, Step, TrainState


class Grid(NamedTuple):
  """The tuning budget, the same for every contestant.

  Attributes:
    learning_rates: peak rates; the first is the fixed setting's.
    stops: steps at which a run is scored, increasing; the last is the fixed
      setting's.
  """

  learning_rates: tuple[float, ...]
  stops: tuple[int, ...]


class Labels(NamedTuple):
  """The labels of one arena at one flip rate.

  Attributes:
    train_flipped: `[n_train]` bool, differs from the best known label.
    validation_flipped: `[n_validation]` bool.
    train_weight: `[n_train]` ≥ 0; 0 leaves a pair out.
    train_label_prob: `[n_train]`, ½ where the labeller called a tie: losses
      that read no label_prob leave ties out. None where there are none.
    validation_weight: `[n_validation]`, 0 leaves a pair out of selection; None
      where all count.
  """

  train_flipped: np.ndarray
  validation_flipped: np.ndarray
  train_weight: np.ndarray
  train_label_prob: np.ndarray | None = None
  validation_weight: np.ndarray | None = None


class Outcome(NamedTuple):
  """What a contestant came to in one arena.

  Attributes:
    curve: every point of the grid, in the order trained.
    selected: the point with the lowest noisy_nll, and what it measures.
    fixed: the first learning rate at the last stop: trained to fit.
    oracle: the point with the highest clean_accuracy: what noisy selection
      gave away; None where nobody asked.
  """

  curve: list[Stop]
  selected: tuple[Stop, Measured]
  fixed: tuple[Stop, Measured]
  oracle: tuple[Stop, Measured] | None = None


def tune(
  contestant: Contestant,
  arena: Arena,
  labels: Labels,
  grid: Grid,
  *,
  with_oracle: bool = True,
  keep: Callable[[Stop, PyTree], None] | None = None,
  mesh: Mesh | None = None,
  checkpoints: CellCheckpoints | None = None,
  save_interval: int = 0,
  writer: writers.Writer | None = None,
  log_interval: int = 0,
  should_stop: Callable[[int], bool] = lambda step: False,
) -> Outcome:
  """Trains a contestant over the grid and measures what it would have chosen.

  Args:
    contestant: the loss.
    arena: the data, start and yardstick of one seed.
    labels: of the training and validation pairs.
    grid: the tuning budget.
    with_oracle: measure the point that clean labels would have selected, too.
    keep: called with the point selected and what was trained to it (adapters
      where the arena has them).
    mesh: of the devices; None is one device.
    checkpoints: where the cell is kept and resumed from; None keeps nothing.
    save_interval: in steps; 0 saves only when asked to stop.
    writer: of training metrics, every `log_interval` steps, by `rate`.
    log_interval: steps; 0 writes none.
    should_stop: asked after every step; True raises `Preempted`.
  """
  arena, step = _on(mesh, arena), _step(contestant, arena, mesh)
  order = labelled_order(contestant, arena, labels)
  scores = _scorer(contestant, arena, labels)
  fresh = functools.partial(fresh_state, arena.trained(), mesh=mesh)
  progress = checkpoints and checkpoints.resume(fresh(grid.learning_rates[0]))
  progress = progress or Progress(0, fresh(grid.learning_rates[0]), [], {})
  curve, kept = progress.curve, progress.kept
  for run, rate in enumerate(grid.learning_rates):
    if run < progress.run:
      continue
    if run > progress.run:
      progress = Progress(run, fresh(rate), curve, kept)
    if checkpoints is not None:
      checkpoints.follow(progress)

    def at_stop(done: int, state: TrainState, rate: float = rate) -> None:
      stop = Stop(rate, done, *scores(state.params))
      curve.append(stop)
      for role in _better(stop, kept, grid):
        kept[role] = stop, jax.tree.map(jnp.copy, state.params)

    train(
      step,
      progress.state,
      _frozen(contestant, arena),
      lambda start: order[start:],
      num_steps=grid.stops[-1],
      key=jax.random.key(arena.seed),
      stops={stop: at_stop for stop in grid.stops},
      checkpoints=checkpoints,
      save_interval=save_interval,
      # Rates share the steps: each rewinds rows of its own.
      writer=writer and writers.tagged_writer(writer, {'rate': f'{rate:g}'}),
      log_interval=log_interval,
      should_stop=should_stop,
    )
  if checkpoints is not None:
    checkpoints.discard()
  if keep is not None:
    keep(*kept['selected'])
  if not with_oracle:
    del kept['oracle']
  measured = {
    stop: (stop, _measure(contestant, arena, params))
    for stop, params in dict(kept.values()).items()
  }
  return Outcome(curve, **{role: measured[s] for role, (s, _) in kept.items()})


def row_of(outcome: Outcome, *, with_pairs: bool) -> dict[str, Any]:
  """An outcome as JSON values; NaN becomes None.

  Args:
    outcome: of `tune`.
    with_pairs: keep the agreement of every test pair, for intervals over
      clusters of them.
  """

  def known(stop: Stop) -> dict[str, Any]:
    row = stop._asdict()
    return row | {'fitted': None if math.isnan(stop.fitted) else stop.fitted}

  def measured(stop: Stop, measure: Measured) -> dict[str, Any]:
    row = {'stop': known(stop), 'summary': dict(measure.summary)}
    row['curves'] = dict(measure.curves)
    if with_pairs:
      row['correct'] = np.round(measure.correct, 6).tolist()
    return row

  row = {'curve': [known(stop) for stop in outcome.curve]}
  for role in ROLES:
    found = getattr(outcome, role)
    row[role] = found and measured(*found)
  return row


def opening_loss(
  contestant: Contestant, arena: Arena, mesh: Mesh | None = None
) -> tuple[float, float]:
  """The loss before the first update, and what it must be.

  A policy equal to its reference has u = v = 0 on every pair, so the loss is
  the method's value there (ln 2 for a logistic link). Compiles the step.

  Returns:
    (measured, exact); exact is NaN for methods without a reference.

  Raises:
    ValueError: the two differ by more than 1e-5 relative.
  """
  arena, step = _on(mesh, arena), _step(contestant, arena, mesh)
  batch = relabel(
    arena.order[0],
    label_smoothing=np.full(len(arena.train.pairs), contestant.assumed or 0.0),
  )
  state = fresh_state(arena.trained(), 1e-3, mesh)
  frozen = _frozen(contestant, arena)
  _, metrics = step(state, frozen, batch, jax.random.key(arena.seed))
  measured = float(metrics['loss'].mean())
  exact = value_at_zero(contestant)
  close = math.isclose(measured, exact, rel_tol=1e-5, abs_tol=1e-8)
  if not math.isnan(exact) and not close:
    raise ValueError(
      f'{contestant.name}: the loss before the first update is {measured}, '
      f'it must be {exact}: policy and reference differ, or a label leaks'
    )
  return measured, exact


def _on(mesh: Mesh | None, arena: Arena) -> Arena:
  """The arena with a base that adapters can be trained on where they lie."""
  if mesh is None or arena.lora is None:
    return arena
  start = place(arena.start, param_shardings(arena.start, mesh), copy=False)
  return dataclasses.replace(arena, start=start)


def _step(contestant: Contestant, arena: Arena, mesh: Mesh | None) -> Step:
  return compiled_step(
    arena.model, contestant.loss, contestant.aggregate, mesh, arena.lora
  )


@functools.cache
def compiled_step(
  model: Model,
  loss: str,
  aggregate: str,
  mesh: Mesh | None = None,
  lora: Lora | None = None,
) -> Step:
  """One compiled step per loss: rates, β and assumed flip rates are traced.

  With `lora`, it trains adapters on `frozen.models['base']`.
  """
  objective = preference_objective(model, loss, aggregate=aggregate)
  return trained_step(model, objective, _optimizer(), mesh, lora)


def labelled_order(
  contestant: Contestant, arena: Arena, labels: Labels
) -> list[Batch]:
  """The arena's training batches as this contestant sees them."""
  assumed = np.full(len(labels.train_flipped), contestant.assumed or 0.0)
  tables = {'weight': labels.train_weight, 'label_smoothing': assumed}
  if labels.train_label_prob is not None:
    if 'label_prob' in reads(contestant.loss):
      tables['label_prob'] = labels.train_label_prob
    else:
      tied = labels.train_label_prob == 0.5
      tables['weight'] = np.where(tied, 0.0, labels.train_weight)
  return [
    relabel(batch, is_flipped=labels.train_flipped, **tables)
    for batch in arena.order
  ]


def margins(contestant: Contestant, arena: Arena, split: Split, params: PyTree):
  """`[n]`, completion 0 over completion 1 in the contestant's own score."""
  table = completion_logps(arena.model, params, split.batches)
  return _margins(contestant, split, split.of_pairs(table))


def _margins(contestant, split, logps) -> np.ndarray:
  return preference_margin(
    contestant.loss,
    logps,
    split.reference,
    split.pairs.lengths,
    dict(contestant.hyper),
  )


def _scorer(
  contestant: Contestant, arena: Arena, labels: Labels
) -> Callable[[PyTree], tuple[float, float, float]]:
  """What was trained -> noisy_nll, clean_accuracy and fitted of a `Stop`."""
  sign = np.where(arena.validation.pairs.first_is_better, 1.0, -1.0)
  noisy_sign = np.where(labels.validation_flipped, -sign, sign)
  fit = _fit(contestant, arena, labels)

  def scores(trained: PyTree) -> tuple[float, float, float]:
    params = arena.policy(trained)
    margin = margins(contestant, arena, arena.validation, params)
    return (
      float(
        best_temperature_nll(noisy_sign * margin, labels.validation_weight).nll
      ),
      float(accuracy(sign * margin)),
      fit(params),
    )

  return scores


def _fit(
  contestant: Contestant, arena: Arena, labels: Labels
) -> Callable[[PyTree], float]:
  """params -> the share of the flipped training pairs fitted; scores no more
  of the training pairs than it must."""
  train, flipped = arena.train, labels.train_flipped
  if not flipped.any():
    return lambda params: math.nan
  wrong_sign = np.where(train.pairs.first_is_better, -1.0, 1.0)[flipped]
  batches = rows_with(train.batches, np.flatnonzero(flipped))

  def fit(params: PyTree) -> float:
    logps = np.full(train.reference.shape, np.nan, np.float32)
    found = completion_logps(arena.model, params, batches)
    logps[: len(found)] = found
    margin = _margins(contestant, train, logps)[flipped]
    return float(accuracy(wrong_sign * margin))

  return fit


def _better(stop: Stop, kept: dict, grid: Grid) -> Iterator[str]:
  """The roles of an `Outcome` that a new point of the grid takes over."""
  if 'selected' not in kept or stop.noisy_nll < kept['selected'][0].noisy_nll:
    yield 'selected'
  if (
    'oracle' not in kept
    or stop.clean_accuracy > kept['oracle'][0].clean_accuracy
  ):
    yield 'oracle'
  if (stop.learning_rate, stop.step) == (
    grid.learning_rates[0],
    grid.stops[-1],
  ):
    yield 'fixed'


def _measure(contestant: Contestant, arena: Arena, trained: PyTree) -> Measured:
  params = arena.policy(trained)
  return arena.yardstick(params, margins(contestant, arena, arena.test, params))


def _frozen(contestant: Contestant, arena: Arena) -> Frozen:
  models = {} if arena.lora is None else {'base': arena.start}
  hyper = {k: jnp.float32(v) for k, v in contestant.hyper}
  return Frozen(models=models, hyper=hyper)


@functools.cache
def _optimizer() -> optax.GradientTransformation:
  """AdamW at a constant rate: a stop is a run of that many steps.

  Made on first use: it holds an array, and an import must not start a device.
  """
  return make_optimizer(max_grad_norm=1.0)


def fresh_state(
  trained: PyTree, learning_rate: float, mesh: Mesh | None = None
) -> TrainState:
  """The state that `compiled_step` starts from, at a constant rate."""
  state = init_state(trained, _optimizer())
  state = state.replace(
    opt_state=set_learning_rate(state.opt_state, learning_rate)
  )
  return state if mesh is None else place(state, state_shardings(state, mesh))

"""A cell in progress on disk, so that a long one need not start again."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import NamedTuple

from alignment.training.checkpoints import Checkpoints
from alignment.types import PyTree, TrainState


class Stop(NamedTuple):
  """What is known of a policy at a point of the grid.

  Attributes:
    learning_rate, step: the point.
    noisy_nll: nats per validation pair at the best temperature, noisy labels:
      what selects.
    clean_accuracy: agreement with the best known validation labels; reported,
      never used to select.
    fitted: share of the flipped training pairs ranked as they are (wrongly)
      labelled; NaN without flips.
  """

  learning_rate: float
  step: int
  noisy_nll: float
  clean_accuracy: float
  fitted: float


class Progress(NamedTuple):
  """Where a cell is.

  Attributes:
    run: which learning rate of the grid is being trained.
    state: of that run.
    curve: every point scored so far.
    kept: role -> (its point, its policy), see `bakeoff.Outcome`.
  """

  run: int
  state: TrainState
  curve: list[Stop]
  kept: dict[str, tuple[Stop, PyTree]]


ROLES = ('selected', 'fixed', 'oracle')


class CellCheckpoints:
  """What `train` saves through: the state with all that the cell has kept.

  Nothing is written before the first save, so that short cells cost nothing.
  """

  def __init__(self, directory: os.PathLike | str, num_steps: int):
    """Looks into the directory; does not create it.

    Args:
      directory: of this cell alone.
      num_steps: of a run; saves of runs follow one another in one count.
    """
    self._directory = pathlib.Path(directory)
    self._num_steps = num_steps
    self._checkpoints: Checkpoints | None = None
    self._progress: Progress | None = None

  def resume(self, fresh: TrainState) -> Progress | None:
    """The newest progress on disk; None where there is none.

    Args:
      fresh: a state of the same structure.
    """
    if not self._directory.exists():
      return None
    found = self._open().restore(_tree(fresh, {}))
    if found is None:
      return None
    _, tree, known = found
    curve = [Stop(*point) for point in known['curve']]
    kept = {
      role: (curve[at], tree['kept'][role])
      for role, at in known['kept'].items()
    }
    return Progress(known['run'], tree['state'], curve, kept)

  def follow(self, progress: Progress) -> None:
    """Whose curve and policies the next saves take along."""
    self._progress = progress

  def restore(self, target: TrainState) -> None:
    """Nothing: the state that `train` was given is where to go on."""
    del target

  def save(self, step: int, state: TrainState) -> None:
    """Saves the state; the end of a run is left to what follows it."""
    if step == self._num_steps:
      return
    run, _, curve, kept = self._progress
    self._open().save(
      run * self._num_steps + step,
      _tree(state, kept),
      {
        'run': run,
        'curve': [list(point) for point in curve],
        'kept': {role: curve.index(stop) for role, (stop, _) in kept.items()},
      },
    )

  def wait(self) -> None:
    if self._checkpoints is not None:
      self._checkpoints.wait()

  def discard(self) -> None:
    """Removes what a finished cell no longer needs."""
    if self._checkpoints is not None:
      self._checkpoints.close()
      shutil.rmtree(self._directory)

  def _open(self) -> Checkpoints:
    self._checkpoints = self._checkpoints or Checkpoints(self._directory)
    return self._checkpoints


def _tree(state: TrainState, kept: dict[str, tuple[Stop, PyTree]]) -> PyTree:
  # Roles not filled yet hold the parameters, so that all saves have one shape.
  policies = {
    role: kept[role][1] if role in kept else state.params for role in ROLES
  }
  return {'state': state, 'kept': policies}

"""One seed at one flip rate: every arm on the same pairs and flips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment.protocols.reward.arms import Arm
from alignment.protocols.reward.fitting import Fitted, Task, fit_arm

Cell = dict[str, Any]


def cells_of(
  task: Task, flip_rate: float, arms: Sequence[Arm], *, with_pairs: bool
) -> list[Cell]:
  """Fits every arm and measures it, as JSON objects.

  Args:
    task: world, labels and grid.
    flip_rate: injected.
    arms: who competes.
    with_pairs: keep the agreement of every test pair, for clustered intervals.

  Returns:
    One cell per arm whose estimate, if it needs one, was not refused.
  """
  cells = []
  for arm in arms:
    fitted = fit_arm(arm, task)
    if fitted is not None:
      cells.append(_cell(arm, fitted, task, flip_rate, with_pairs))
  return cells


def _cell(
  arm: Arm, fitted: Fitted, task: Task, flip_rate: float, with_pairs: bool
) -> Cell:
  world = task.world
  measured = world.measure(fitted.rewards(world.test.rewards))
  selected = {
    'summary': dict(measured.summary),
    'curves': dict(measured.curves),
    'l2': fitted.l2,
    'noisy_nll': fitted.noisy_nll,
  }
  if with_pairs:
    selected['correct'] = measured.correct.tolist()
  return {
    'seed': world.seed,
    'flip_rate': flip_rate,
    'name': arm.name,
    'role': arm.role,
    'assumed': task.estimate.rate
    if arm.treatment == 'estimated'
    else arm.assumed,
    'selected': selected,
  }

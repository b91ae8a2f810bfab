"""One seed at one flip rate: every arm on the same pairs and flips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment.protocols.arena import Measured
from alignment.protocols.reward.arms import Arm
from alignment.protocols.reward.fitting import Task, fit_arm

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
    One cell per arm whose estimate, if it needs one, was not refused; and one
    of role `oracle` where the gold reward is known.
  """
  world, cells = task.world, []
  for arm in arms:
    fitted = fit_arm(arm, task)
    if fitted is None:
      continue
    rewards = fitted.rewards(world.test.rewards)
    assumed = arm.assumed
    if arm.treatment == 'estimated':
      assumed = task.estimate.rate
    cell = _cell(arm, world.measure(rewards), world.seed, flip_rate, assumed)
    cell['selected'] |= {'l2': fitted.l2, 'noisy_nll': fitted.noisy_nll}
    cells.append(cell)
  if world.oracle:
    gold = Arm('gold reward', role='oracle')
    cells.append(_cell(gold, world.oracle, world.seed, flip_rate, None))
  if not with_pairs:
    for cell in cells:
      del cell['selected']['correct']
  return cells


def _cell(
  arm: Arm,
  measured: Measured,
  seed: int,
  flip_rate: float,
  assumed: float | None,
) -> Cell:
  return {
    'seed': seed,
    'flip_rate': flip_rate,
    'name': arm.name,
    'role': arm.role,
    'assumed': assumed,
    'selected': {
      'summary': dict(measured.summary),
      'curves': dict(measured.curves),
      'correct': measured.correct.tolist(),
    },
  }

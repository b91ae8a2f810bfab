"""Who competes: a reward loss, or a committee, and how it treats labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alignment.losses.ensembles import ENSEMBLES
from alignment.losses.reward import REWARD, per_pair

BASELINE = 'bradley_terry'
"""What every arm is compared with."""
REPAIRS = ('flip', 'soften', 'margin')
"""What can be done with the strength of a label."""


class Arm(NamedTuple):
  """A way to learn a reward from noisy pairs.

  Attributes:
    name: what the tables call it.
    treatment: key of `fitting.TREATMENTS`.
    loss: key of `REWARD`.
    assumed: the flip rate that loss or treatment assumes; None where it takes
      none or estimates one.
    combine: key of `ENSEMBLES`, how the members' rewards become one.
    role: `arm`, or a control: `clean` (best known labels throughout) or
      `unflipped` (wrong labels left out of training).
  """

  name: str
  treatment: str = 'labels'
  loss: str = BASELINE
  assumed: float | None = None
  combine: str = 'mean'
  role: str = 'arm'


CONTROLS = (
  Arm(f'{BASELINE} (clean)', 'clean', role='clean'),
  Arm(f'{BASELINE} (unflipped)', 'unflipped', role='unflipped'),
)


def line_up(
  losses: Sequence[str],
  ensembles: Sequence[str],
  repairs: Sequence[str],
  *,
  rate: float,
  misassumed: float,
  estimated: bool,
  centring: float,
) -> list[Arm]:
  """Everyone who competes at one flip rate; the baseline first, controls last.

  Args:
    losses: keys of `REWARD`; those that assume a flip rate compete with `rate`,
      with it wrong by ± misassumed, and with the estimate.
    ensembles: keys of `ENSEMBLES`.
    repairs: among REPAIRS.
    rate: what the labels have in all, in [0, ½).
    misassumed: ≥ 0; rates outside [0, ½) are left out.
    estimated: whether an estimate competes.
    centring: coefficient; 0 leaves the arm out.

  Raises:
    ValueError: an unknown name, or a loss that flipped labels cannot feed.
  """
  check(losses, ensembles, repairs)
  arms = [Arm(BASELINE)]
  for loss in losses:
    if 'label_smoothing' not in per_pair(loss):
      arms.append(Arm(loss, loss=loss))
      continue
    near = [round(rate + error, 6) for error in (0, -misassumed, misassumed)]
    for assumed in dict.fromkeys(r for r in near if 0 <= r < 0.5):
      name = f'{loss}@{assumed:g}'
      arms.append(Arm(name, loss=loss, assumed=assumed))
    if estimated:
      arms.append(Arm(f'{loss}@estimate', 'estimated', loss))
  if centring:
    arms.append(Arm(f'{BASELINE}+centring', 'centred'))
  for name in ensembles:
    arms.append(Arm(f'committee {name}', 'committee', combine=name))
  for name in repairs:
    assumed = rate if name == 'flip' else None
    arms.append(Arm(f'strength {name}', name, assumed=assumed))
  return [*dict.fromkeys(arms), *CONTROLS]


def check(
  losses: Sequence[str], ensembles: Sequence[str], repairs: Sequence[str]
) -> None:
  """Refuses what cannot compete, naming its flag.

  Raises:
    ValueError: an unknown name, or a loss that flipped labels cannot feed.
  """
  for flag, given, known in (
    ('loss', losses, REWARD),
    ('ensemble', ensembles, ENSEMBLES),
    ('repair', repairs, REPAIRS),
  ):
    for name in given:
      if name not in known:
        raise ValueError(f'--{flag}={name}: must be one of {", ".join(known)}')
  if 'soft_label' in losses:
    raise ValueError(
      '--loss=soft_label: learns from how sure the labeller was of each pair, '
      'which flipped labels do not say; --repair=soften feeds it the strength '
      'of labels'
    )

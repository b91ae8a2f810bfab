"""The methods compared on noisy labels, and what each has to be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

BASELINE = 'cross_entropy'
ASSUMED = ('true', 'estimated', 'wrong')
"""Where a method's transition or flip rate comes from: the noise itself; the
out-of-fold predictions of the baseline; the symmetric one at half the rate."""


class Method(NamedTuple):
  """One way to train on noisy labels.

  Attributes:
    loss: key of `CLASSIFICATION`.
    scheme: which examples count: 'all', 'small_loss' (each step's smallest
      losses), 'co_teaching' (those of another learner), 'divide_mix' (labels
      mixed with predictions where the other learner's loss is large).
    needs: 'transition', 'rate' (its mean error), or ''.
  """

  loss: str
  scheme: str = 'all'
  needs: str = ''


METHODS = {
  'cross_entropy': Method('cross_entropy'),
  'conservative': Method('conservative', needs='rate'),
  'forward': Method('forward', needs='transition'),
  'backward': Method('backward', needs='transition'),
  'gce': Method('gce'),
  'truncated_gce': Method('truncated_gce'),
  'sce': Method('sce'),
  'mae': Method('mae'),
  'unhinged': Method('unhinged'),
  'bootstrap_soft': Method('bootstrap_soft'),
  'bootstrap_hard': Method('bootstrap_hard'),
  'elr': Method('elr'),
  'peer': Method('peer'),
  'small_loss': Method('cross_entropy', 'small_loss', 'rate'),
  'co_teaching': Method('cross_entropy', 'co_teaching', 'rate'),
  'divide_mix': Method('cross_entropy', 'divide_mix'),
}


class Arm(NamedTuple):
  """A method with the source of what it is told.

  Attributes:
    name: key of `METHODS`.
    assumed: one of `ASSUMED`, or '' where the method is told nothing.
  """

  name: str
  assumed: str = ''

  @property
  def method(self) -> Method:
    return METHODS[self.name]

  def __str__(self) -> str:
    return f'{self.name}, {self.assumed} T' if self.assumed else self.name


def line_up(names: Sequence[str], assumed: Sequence[str]) -> list[Arm]:
  """The baseline, then each method under everything it may be told.

  Args:
    names: keys of `METHODS`.
    assumed: among `ASSUMED`; () is all of them.

  Raises:
    ValueError: an unknown name, or `assumed` where no method is told anything.
  """
  for flag, given, known in (
    ('method', names, METHODS),
    ('assume', assumed, ASSUMED),
  ):
    for name in given:
      if name not in known:
        raise ValueError(f'--{flag}={name}: must be one of {", ".join(known)}')
  if assumed and not any(METHODS[name].needs for name in names):
    raise ValueError(
      f'--assume={",".join(assumed)}: none of --method={",".join(names)} is '
      'told a transition or a rate'
    )
  arms = [Arm(BASELINE)]
  for name in names:
    if METHODS[name].needs:
      arms += [Arm(name, source) for source in assumed or ASSUMED]
    elif name != BASELINE:
      arms.append(Arm(name))
  return arms

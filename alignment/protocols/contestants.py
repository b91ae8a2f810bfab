"""Who competes: a loss, the flip rate it assumes, its hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from alignment.losses.preference import (
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
  reads,
)

Hyper = tuple[tuple[str, float], ...]


class Contestant(NamedTuple):
  """A loss, what it assumes, and its hyperparameters.

  Attributes:
    loss: key of `METHODS`.
    assumed: the flip rate the loss assumes; None where it takes none.
    aggregate: key of `AGGREGATES`.
    hyper: (name, value) pairs (`beta`, …), all traced.
  """

  loss: str
  assumed: float | None = None
  aggregate: str = 'mean'
  hyper: tuple[tuple[str, float], ...] = ()

  @property
  def name(self) -> str:
    assumed = '' if self.assumed is None else f'@{self.assumed:g}'
    aggregate = '' if self.aggregate == 'mean' else f'+{self.aggregate}'
    return f'{self.loss}{aggregate}{assumed}'


def contestants_at(
  flip_rate: float,
  losses: Sequence[str],
  aggregate: str,
  hyper: Mapping[str, Hyper],
  *,
  assumed: Sequence[float] = (),
  misassumed: float = 0.0,
) -> list[Contestant]:
  """Everyone who competes at one flip rate.

  Losses that assume a rate compete once for each of `assumed`, or, where that
  is empty, with the rate injected and with that rate wrong by ± misassumed.

  Args:
    flip_rate: injected, in [0, ½).
    losses: keys of `METHODS`.
    aggregate: key of `AGGREGATES`.
    hyper: loss -> its hyperparameters.
    assumed: rates in [0, ½).
    misassumed: ≥ 0; rates outside [0, ½) are left out.
  """
  near = (flip_rate, flip_rate - misassumed, flip_rate + misassumed)
  near = [round(rate, 6) for rate in near if 0 <= round(rate, 6) < 0.5]
  rates = assumed or list(dict.fromkeys(near))
  return [
    Contestant(loss, rate, aggregate, hyper[loss])
    for loss in losses
    for rate in (rates if takes_rate(loss) else [None])
  ]


def parse_hyper(
  entries: Sequence[str],
  losses: Sequence[str],
  aggregate: str,
  beta: float,
) -> dict[str, Hyper]:
  """Loss -> its hyperparameters, from --beta and --hyper.

  Args:
    entries: `name=value`, meant for every loss, or `loss.name=value`.
    losses: keys of `METHODS`.
    aggregate: key of `AGGREGATES`.
    beta: for the losses that take one.

  Raises:
    ValueError: an unknown loss or aggregate, a name that a loss it is meant
      for does not use, or a value that is no number.
  """
  given = {
    loss: {'beta': beta} if 'beta' in takes(loss, aggregate) else {}
    for loss in losses
  }
  for entry in entries:
    name, _, text = entry.partition('=')
    only, _, name = name.rpartition('.')
    for loss in [only] if only else losses:
      if loss not in given:
        raise ValueError(
          f'--hyper={entry}: {loss!r} is not among --loss={",".join(losses)}'
        )
      if name not in takes(loss, aggregate):
        raise ValueError(
          f'--hyper={entry}: --loss={loss} does not use {name!r}; it takes '
          f'{", ".join(takes(loss, aggregate))}'
        )
      try:
        given[loss][name] = float(text)
      except ValueError:
        raise ValueError(f'--hyper={entry}: want name=number') from None
  return {loss: tuple(sorted(values.items())) for loss, values in given.items()}


def takes(loss: str, aggregate: str = 'mean') -> list[str]:
  """The numbers a contestant may be given, besides the rate it assumes."""
  known = {**hyperparameters(loss), **aggregate_hyperparameters(aggregate)}
  return [
    name
    for name, default in known.items()
    if name != 'label_smoothing' and not isinstance(default, str)
  ]


def takes_rate(loss: str) -> bool:
  """Whether a loss assumes a flip rate."""
  return 'label_smoothing' in hyperparameters(loss)


def value_at_zero(contestant: Contestant) -> float:
  """The loss of a pair with u = v = 0; NaN for methods without a reference."""
  arguments = reads(contestant.loss)
  if 'reference_chosen_logps' not in arguments:
    return math.nan
  values = {
    'chosen_lengths': 1.0,
    'rejected_lengths': 1.0,
    'label_smoothing': contestant.assumed or 0.0,
    'label_prob': 1.0,
  }
  given = {k: jnp.full(1, v) for k, v in values.items() if k in arguments}
  zero = jnp.zeros(1)
  loss = METHODS[contestant.loss](
    zero, zero, zero, zero, **given, **dict(contestant.hyper)
  )
  return float(loss[0])

"""Who competes: a loss, the flip rate it assumes, its hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  aggregate_hyperparameters,
  hyperparameters,
  reads,
)
from alignment.roles.binding import check_hyperparameters
from alignment.types import Array

Hyper = tuple[tuple[str, float], ...]


class Contestant(NamedTuple):
  """A loss, what it assumes, and its hyperparameters.

  Attributes:
    loss: key of `METHODS`.
    assumed: the flip rate the loss assumes; None where it takes none.
    aggregate: key of `AGGREGATES`.
    hyper: (name, value) pairs (`beta`, …), all traced.
    estimator: where `assumed` is not given but estimated, in every arena and
      at every flip rate anew: key of `ESTIMATORS`.
  """

  loss: str
  assumed: float | None = None
  aggregate: str = 'mean'
  hyper: tuple[tuple[str, float], ...] = ()
  estimator: str = ''

  @property
  def name(self) -> str:
    assumed = '' if self.assumed is None else f'@{self.assumed:g}'
    if self.estimator:
      assumed = f'@{self.estimator}'
    aggregate = '' if self.aggregate == 'mean' else f'+{self.aggregate}'
    return f'{self.loss}{aggregate}{assumed}'


BASELINE = 'dpo'
"""What every loss is compared with, under the plain mean."""


def line_up(
  rates: Mapping[float, float],
  losses: Sequence[str],
  aggregate: str,
  entries: Sequence[str],
  *,
  beta: float,
  assumed: Sequence[float] = (),
  misassumed: float | None = None,
  estimator: str = '',
  has_ties: bool = False,
) -> dict[float, list[Contestant]]:
  """Flip rate -> who competes there; the baseline is always the first.

  Args:
    rates: injected -> what the labels then have in all, which losses assume.
    losses: keys of `METHODS`.
    aggregate: key of `AGGREGATES`, of all but the baseline.
    entries: see `parse_hyper`; those of `dpo` are the baseline's as well.
    beta: for the losses that take one.
    assumed: see `contestants_at`.
    misassumed: likewise; None is 0.1, where `assumed` and `estimator` are
      empty.
    estimator: likewise.
    has_ties: see `parse_hyper`.

  Raises:
    ValueError: as `parse_hyper` and `contestants_at`; no loss or rate; rates
      to assume where no loss assumes any; or two ways to say which.
  """
  if not losses or not rates:
    raise ValueError(f'--{"flip_rate" if losses else "loss"}=: name one')
  hyper = parse_hyper(entries, losses, aggregate, beta, has_ties=has_ties)
  given = {
    'label_smoothing': ','.join(map(str, assumed)),
    'estimate_flip_rate': estimator,
    'misassumed': misassumed or '',
  }
  said = [flag for flag, value in given.items() if value]
  if said and said != ['misassumed'] and not any(map(takes_rate, losses)):
    raise ValueError(
      f'--{said[0]}={given[said[0]]}: none of --loss={",".join(losses)} '
      'assumes a flip rate; cdpo, rdpo, forward do'
    )
  if len(said) > 1:
    raise ValueError(
      f'--{said[1]}={given[said[1]]}: not used where --{said[0]} says what '
      'losses assume'
    )
  if misassumed is None:
    misassumed = 0.0 if estimator else 0.1
  own = dict(hyper.get(BASELINE, ())).get('beta', beta)
  baseline = Contestant(BASELINE, hyper=(('beta', own),))
  competing = {}
  for injected, rate in rates.items():
    found = contestants_at(
      rate,
      losses,
      aggregate,
      hyper,
      assumed=assumed,
      misassumed=misassumed,
      estimator=estimator,
    )
    competing[injected] = list(dict.fromkeys([baseline, *found]))
  return competing


def contestants_at(
  flip_rate: float,
  losses: Sequence[str],
  aggregate: str,
  hyper: Mapping[str, Hyper],
  *,
  assumed: Sequence[float] = (),
  misassumed: float = 0.0,
  estimator: str = '',
) -> list[Contestant]:
  """Everyone who competes at one flip rate.

  Losses that assume a rate compete once for each of `assumed`, or, where that
  is empty, with the rate injected and with that rate wrong by ± misassumed, as
  far as the loss is defined there (exo is not at 0). With an estimator they
  compete at its estimate as well, first.

  Args:
    flip_rate: injected, in [0, ½).
    losses: keys of `METHODS`.
    aggregate: key of `AGGREGATES`.
    hyper: loss -> its hyperparameters.
    assumed: rates in [0, ½).
    misassumed: ≥ 0; rates outside [0, ½) are left out.
    estimator: see `Contestant`.

  Raises:
    ValueError: a loss that is not defined at a rate of `assumed`, at any rate
      it would assume, or at its hyperparameters.
  """
  near = (flip_rate, flip_rate - misassumed, flip_rate + misassumed)
  near = [round(rate, 6) for rate in near if 0 <= round(rate, 6) < 0.5]
  near = list(dict.fromkeys(near))
  competing = []
  for loss in losses:
    rates = (assumed or near) if takes_rate(loss) else [None]
    of_loss = [Contestant(loss, r, aggregate, hyper[loss]) for r in rates]
    if estimator and takes_rate(loss):
      of_loss.insert(0, of_loss[0]._replace(estimator=estimator))
    wrong = [c for c in of_loss if _complaint(c)]
    if wrong and (assumed or wrong == of_loss):
      raise ValueError(_complaint(wrong[0]))
    competing += [c for c in of_loss if c not in wrong]
  return competing


def parse_hyper(
  entries: Sequence[str],
  losses: Sequence[str],
  aggregate: str,
  beta: float,
  *,
  has_ties: bool = False,
) -> dict[str, Hyper]:
  """Loss -> its hyperparameters, from --beta and --hyper.

  Args:
    entries: `name=value`, meant for every loss, or `loss.name=value`.
    losses: keys of `METHODS`.
    aggregate: key of `AGGREGATES`.
    beta: for the losses that take one.
    has_ties: some pairs are called a tie, so that label_prob is known.

  Raises:
    ValueError: an unknown loss or aggregate, a loss that pairs with flipped
      labels cannot feed, a name that a loss it is meant for does not use, a
      beta for all, or a value that is no number.
  """
  for loss in losses:
    check_hyperparameters(loss, aggregate, {})
    if 'label_prob' in reads(loss) and not has_ties:
      raise ValueError(
        f'--loss={loss}: learns from how sure the labeller was of each pair '
        '(label_prob), which labels flipped at a known rate do not say; cdpo '
        'is soft_label at that rate'
      )
  given = {
    loss: {'beta': beta} if 'beta' in takes(loss, aggregate) else {}
    for loss in losses
  }
  for entry in entries:
    name, _, text = entry.partition('=')
    only, _, name = name.rpartition('.')
    value = _number(entry, text)
    if name == 'beta' and not only:
      raise ValueError(f'--hyper={entry}: for every loss, give --beta={text}')
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
      given[loss][name] = value
  return {loss: tuple(sorted(values.items())) for loss, values in given.items()}


def check_contestant(contestant: Contestant) -> None:
  """Raises `ValueError` where a contestant cannot be trained."""
  complaint = _complaint(contestant)
  if complaint:
    raise ValueError(complaint)


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
  if 'reference_chosen_logps' not in reads(contestant.loss):
    return math.nan
  return float(_at_zero(contestant)[0])


def _number(entry: str, text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise ValueError(f'--hyper={entry}: want name=number, finite')
  return value


def _at_zero(contestant: Contestant) -> Array:
  """The method's losses of two pairs with log-probabilities 0."""
  arguments, known = reads(contestant.loss), hyperparameters(contestant.loss)
  values = {
    'chosen_lengths': 1.0,
    'rejected_lengths': 1.0,
    'label_smoothing': contestant.assumed or 0.0,
    'label_prob': 1.0,
  }
  given = {k: jnp.full(2, v) for k, v in values.items() if k in arguments}
  logps = [jnp.zeros(2) for name in arguments if name.endswith('_logps')]
  own = {k: v for k, v in contestant.hyper if k in known}
  return METHODS[contestant.loss](*logps, **given, **own)


def _complaint(contestant: Contestant) -> str:
  """Why a contestant cannot be trained; empty where it can."""
  known = aggregate_hyperparameters(contestant.aggregate)
  own = {k: v for k, v in contestant.hyper if k in known}
  ones = jnp.ones(2)
  if 'swapped_losses' in reads(contestant.aggregate):
    own['swapped_losses'] = ones
  try:
    AGGREGATES[contestant.aggregate](ones, ones, **own)
    losses = _at_zero(contestant)
  except ValueError as error:
    return f'{contestant.name}: {error}'
  has_start = 'reference_chosen_logps' in reads(contestant.loss)
  if has_start and not bool(jnp.isfinite(losses).all()):
    return f'{contestant.name}: the loss is {losses[0]} where it starts'
  return ''

"""Names the rows of a non-finite step, without waiting for any step."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

_SHOWN = 16


class NonFiniteError(FloatingPointError):
  """A run met too many non-finite losses or gradients."""


class Refusals:
  """Follows the flags `nonfinite` of the steps that were dispatched.

  A flag is read once its step has run, so a refused update is named while the
  step after it runs, and the host never waits.
  """

  def __init__(self, limit: int):
    """Args: limit: refused steps at which the run stops, ≥ 1.

    Raises:
      ValueError: `limit` < 1.
    """
    if limit < 1:
      raise ValueError(f'max_nonfinite must be ≥ 1, got {limit!r}')
    self._limit = limit
    self._waiting: collections.deque = collections.deque()
    self._refused: list[int] = []

  def dispatched(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Takes the metrics of a step that may still be running."""
    if 'nonfinite' not in metrics:
      return
    flag, index = metrics['nonfinite'], metrics.get('nonfinite_index')
    if hasattr(flag, 'copy_to_host_async'):
      flag.copy_to_host_async()
    self._waiting.append((step, flag, index))

  def check(self, *, wait: bool = False) -> None:
    """Reads the flags of the steps that have run; of all of them with `wait`.

    Raises:
      NonFiniteError: `limit` steps were refused.
    """
    while self._waiting and (wait or _is_ready(self._waiting[0][1])):
      step, flag, index = self._waiting.popleft()
      if bool(np.asarray(flag)):
        self._name(step, index)

  def _name(self, step: int, index: Any) -> None:
    self._refused.append(step)
    what = (
      f'step {step}: the loss or its gradient is not finite, the update was '
      f'refused; {_examples(index)}'
    )
    if len(self._refused) < self._limit:
      warnings.warn(what, RuntimeWarning, stacklevel=4)
      return
    steps = ', '.join(str(s) for s in self._refused[-_SHOWN:])
    raise NonFiniteError(
      f'{what}. {len(self._refused)} refused updates (steps {steps}), '
      f'max_nonfinite is {self._limit}: look at these examples, lower the '
      'learning rate, or lower max_grad_norm'
    )


def _is_ready(flag: Any) -> bool:
  return flag.is_ready() if hasattr(flag, 'is_ready') else True


def _examples(index: Any) -> str:
  if index is None:
    return 'the step does not say which examples'
  index = np.unique(np.asarray(index))
  index = index[index >= 0]
  if not index.size:
    return 'no single example is to blame: every number of the batch is finite'
  shown = ', '.join(str(i) for i in index[:_SHOWN])
  more = f' and {index.size - _SHOWN} more' if index.size > _SHOWN else ''
  return f'examples with index {shown}{more}'

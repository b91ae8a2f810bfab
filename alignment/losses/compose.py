"""Puts a loss of margins behind the signature of its margin."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from math import inf

from alignment.losses.numerics import check_range
from alignment.types import Array

Loss = Callable[..., Array]


def of(margin: Callable) -> Callable[[Loss], Loss]:
  """loss ∘ margin as one function of both sets of arguments.

  The result takes the positional arguments of `margin` (by name as well), the
  keywords of `margin` and the keywords of `loss`, and nothing else: a keyword
  that neither names is a TypeError. `inspect.signature` shows all of them.
  A beta known at trace time is refused unless it is positive and finite.

  Args:
    margin: log-probabilities `[B]`, … → margin `[B]`, or a tuple of scores,
      each of which becomes one positional argument of the loss.
  """
  margin_parameters = inspect.signature(margin).parameters

  def compose(loss: Loss) -> Loss:
    own = [
      parameter
      for parameter in inspect.signature(loss).parameters.values()
      if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    signature = inspect.Signature([*margin_parameters.values(), *own])

    @functools.wraps(loss)
    def method(*args, **keywords):
      try:
        bound = signature.bind(*args, **keywords)
      except TypeError as error:
        raise TypeError(f'{loss.__name__}: {error}') from None
      check_range('beta', bound.arguments.get('beta', 1.0), 0.0, inf, '()')
      logps, margin_keywords, rest = [], {}, {}
      for name, value in bound.arguments.items():
        if name not in margin_parameters:
          rest[name] = value
        elif margin_parameters[name].kind is inspect.Parameter.KEYWORD_ONLY:
          margin_keywords[name] = value
        else:
          logps.append(value)
      scores = margin(*logps, **margin_keywords)
      scores = scores if isinstance(scores, tuple) else (scores,)
      return loss(*scores, **rest)

    method.__signature__ = signature
    return method

  return compose

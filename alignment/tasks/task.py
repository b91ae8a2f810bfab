"""What every small world answers, whatever its grammar.

`x` is a prompt and `y` a response, both 1-D int32 arrays of token ids of the
task's own vocabulary. A module with these functions is a task.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np


class Verdict(NamedTuple):
  """The oracle's answer.

  Attributes:
    score: the exact gold reward, in the task's own unit.
    step_labels: `[len(y)]` bool, False at every token that is at fault.
  """

  score: float
  step_labels: np.ndarray


class Tampered(NamedTuple):
  """A response made worse at one known place.

  Attributes:
    response: `[len(y)]` int32, differs from the original in one token.
    location: the index of that token.
    fix: the token id that restores the original.
  """

  response: np.ndarray
  location: int
  fix: int


class Task(Protocol):
  """A world small enough that its ground truth is exact."""

  def sample(self, rng: np.random.Generator, difficulty: Any) -> np.ndarray:
    """Draws one valid prompt x of the given difficulty."""

  def valid(self, x: np.ndarray) -> bool:
    """True where x is a sentence of the prompt grammar."""

  def verify(self, x: np.ndarray, y: np.ndarray) -> Verdict:
    """Scores y exactly; a malformed y gets a low score, never an error."""

  def tamper(
    self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator
  ) -> Tampered:
    """Changes one token of y so that verify(x, ·).score falls."""

  def weak_judge(
    self, x: np.ndarray, y: np.ndarray, budget: int, rng: np.random.Generator
  ) -> float:
    """Estimates verify(x, y).score from `budget` of the oracle's checks.

    The full budget is the oracle; budget 0 says the same of every response,
    so that a comparison of two is chance.
    """

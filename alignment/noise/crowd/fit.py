"""What an annotator model says: of the tasks, of the workers, of itself."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CrowdFit:
  """An annotator model fitted to a vote table.

  Attributes:
    task_probs: `[I, C]` P(true class of the task | votes); the prior for a
      task without votes.
    confusion: `[A, C, C]`, confusion[a, i, j] = P(a says j | true class i);
      NaN for a worker without votes.
    prior: `[C]` P(true class).
    skill: `[A]` P(a says the truth), the true class drawn from the prior; NaN
      for a worker without votes.
    log_likelihood: of the votes, in nats; NaN for `majority`, which has none.
    iterations: of EM or of the optimiser.
    converged: False where the iterations ran out.
    flags: remarks that a reader must see beside the numbers.
    ability: `[A]`, of `glad` only.
    difficulty: `[I]` > 0, of `glad` only.
  """

  task_probs: np.ndarray
  confusion: np.ndarray
  prior: np.ndarray
  skill: np.ndarray
  log_likelihood: float
  iterations: int
  converged: bool
  flags: tuple[str, ...] = ()
  ability: np.ndarray | None = None
  difficulty: np.ndarray | None = None

  @property
  def label(self) -> np.ndarray:
    """`[I]` int32, the likeliest class; the first of several."""
    return np.argmax(self.task_probs, axis=1).astype(np.int32)


class Parameters(NamedTuple):
  """The parameters of S fits, one per set of weights on the tasks.

  Attributes:
    prior: `[S, C]`.
    confusion: `[S, A, C, C]` as in `CrowdFit`; NaN where the worker has no
      vote on a task of positive weight.
    log_likelihood: `[S]` nats, weighted.
    iterations: `[S]`.
    converged: `[S]` bool.
  """

  prior: np.ndarray
  confusion: np.ndarray
  log_likelihood: np.ndarray
  iterations: np.ndarray
  converged: np.ndarray

  @property
  def skill(self) -> np.ndarray:
    """`[S, A]`, Σ_i prior[i] · confusion[a, i, i]."""
    return np.einsum('si,saii->sa', self.prior, self.confusion)

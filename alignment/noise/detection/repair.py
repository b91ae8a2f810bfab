"""What to do about each label, once it is known how likely it is wrong."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping

import numpy as np

from alignment.noise.detection.crowdlab import activelab
from alignment.noise.evidence import Evidence

ACTIONS = ('keep', 'reweight', 'soften', 'flip', 'drop', 'ask')


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Repair:
  """One action per row, and what the row is to be trained as.

  Attributes:
    action: `[B]` one of `ACTIONS`.
    label: `[B]` int32, the label after the repair; another than the label at
      hand where the action is `flip`, and nowhere else.
    label_prob: `[B]` in [0, 1], P(label) to train towards; 1 unless `soften`.
    weight: `[B]` in [0, 1]; 0 where `drop`, below 1 where `reweight`.
    flip_posterior: `[B]` P(label at hand is wrong); NaN where unknown.
    ask_rank: `[B]` int32, 0 the first to send to a human; −1 not to be asked.
    policy: its name in `POLICIES`.
    settings: what it was called with.
  """

  action: np.ndarray
  label: np.ndarray
  label_prob: np.ndarray
  weight: np.ndarray
  flip_posterior: np.ndarray
  ask_rank: np.ndarray
  policy: str
  settings: Mapping[str, float]

  def __len__(self) -> int:
    return len(self.action)

  def count(self, action: str) -> int:
    """Rows with an action, one of `ACTIONS`."""
    return int(np.sum(self.action == action))


def keep(wrong: np.ndarray) -> np.ndarray:
  """Leaves every label alone."""
  return np.full(len(wrong), 'keep', 'U8')


def flip(wrong: np.ndarray, *, margin: float = 0.1) -> np.ndarray:
  """`flip` where wrong > ½ + margin: likelier wrong than right, by a margin.

  Right on average if `wrong` is calibrated; the margin is what its error may
  be before a flip does harm.
  """
  return np.where(wrong > 0.5 + margin, 'flip', keep(wrong))


def drop(wrong: np.ndarray, *, margin: float = 0.1) -> np.ndarray:
  """`drop` where wrong > ½ + margin."""
  return np.where(wrong > 0.5 + margin, 'drop', keep(wrong))


def soften(wrong: np.ndarray, *, doubt: float = 0.05) -> np.ndarray:
  """`soften` where wrong > doubt: train towards label_prob = 1 − wrong."""
  return np.where(wrong > doubt, 'soften', keep(wrong))


def reweight(wrong: np.ndarray, *, doubt: float = 0.05) -> np.ndarray:
  """`reweight` where wrong > doubt: weight = 1 − wrong."""
  return np.where(wrong > doubt, 'reweight', keep(wrong))


def mixed(
  wrong: np.ndarray, *, margin: float = 0.1, doubt: float = 0.05
) -> np.ndarray:
  """Each to its place on the scale of `wrong`.

  `flip` above ½ + margin, `drop` within margin of ½, where the label says
  nothing, `soften` above doubt, else `keep`.
  """
  action = soften(wrong, doubt=doubt)
  action = np.where(np.abs(wrong - 0.5) <= margin, 'drop', action)
  return np.where(wrong > 0.5 + margin, 'flip', action)


POLICIES: Mapping[str, Callable[..., np.ndarray]] = {
  'keep': keep,
  'flip': flip,
  'drop': drop,
  'soften': soften,
  'reweight': reweight,
  'mixed': mixed,
}
"""name -> (P(wrong) `[B]`, **settings) -> action `[B]`."""


def plan_repair(
  evidence: Evidence,
  posterior: np.ndarray,
  rng: np.random.Generator,
  *,
  policy: str,
  ask_budget: int = 0,
  ask_value: np.ndarray | None = None,
  **settings: float,
) -> Repair:
  """Decides what happens to each label.

  First the `ask_budget` rows whose true label is worth most are set aside to be
  asked about, and stay as they are; the policy decides about the others. Rows
  whose clean label is known, or whose posterior is NaN, are kept.

  Args:
    evidence: the labels.
    posterior: `[B]` P(label is wrong), or `[B, C]` P(true class = c), which
      `flip` needs where there are more than two classes.
    rng: numpy generator; breaks ties among equally valuable questions.
    policy: key of `POLICIES`.
    ask_budget: ≥ 0, questions to humans.
    ask_value: `[B]`, higher is asked first; `value_of_asking` unless given.
      Rows of value 0 or less, or NaN, are not asked about.
    **settings: `margin` in [0, ½), `doubt` in [0, 1], if the policy has them.

  Raises:
    ValueError: an unknown policy, a setting it does not have, a shape or range
      that is violated.
  """
  wrong, other = _read_posterior(evidence, posterior)
  _check_settings(policy, settings)
  if ask_budget < 0:
    raise ValueError(f'ask_budget={ask_budget} must be >= 0')
  is_open = ~np.isnan(wrong)
  if evidence.clean_label is not None:
    is_open &= np.asarray(evidence.clean_label) < 0
  # NaN compares false with everything, so that it reads as 0 here.
  doubtful = np.where(is_open, wrong, 0.0)
  action = np.where(is_open, POLICIES[policy](doubtful, **settings), 'keep')
  ask_rank = np.full(len(evidence), -1, np.int32)
  if ask_budget:
    if ask_value is None:
      ask_value = value_of_asking(evidence, doubtful)
    if np.shape(ask_value) != (len(evidence),):
      raise ValueError(
        f'ask_value has shape {np.shape(ask_value)}, must be [B]'
      )
    asked = _first_to_ask(ask_value, is_open, ask_budget, rng)
    ask_rank[asked] = np.arange(len(asked))
    action = np.where(ask_rank >= 0, 'ask', action)
  return _as_repair(evidence, wrong, other, action, ask_rank, policy, settings)


def value_of_asking(
  evidence: Evidence,
  wrong: np.ndarray,
  *,
  answer_rate: float = 0.0,
) -> np.ndarray:
  """What one more answer is worth, `[B]` ≥ 0.

  With votes and a model: 1 − ActiveLab's score. Else what an answer takes off
  the error of the best guess, by enumeration of truth and answer:

    max(min(wrong, 1 − wrong) − answer_rate, 0)

  0 where no answer could change the guess.

  Args:
    evidence: `votes` and `probs` are read where both are there.
    wrong: `[B]` P(label is wrong).
    answer_rate: in [0, ½], flip rate of the answer; not used by ActiveLab,
      which weighs an answer by the workers it has seen.

  Raises:
    ValueError: answer_rate out of range, or given beside votes and a model.
  """
  if not 0 <= answer_rate <= 0.5:
    raise ValueError(f'answer_rate={answer_rate} must lie in [0, 0.5]')
  if evidence.votes is not None and evidence.probs is not None:
    if answer_rate:
      raise ValueError(
        'answer_rate is not used where there are votes and probs'
      )
    return 1.0 - activelab(evidence.votes, evidence.probs)
  return np.maximum(np.minimum(wrong, 1.0 - wrong) - answer_rate, 0.0)


def _read_posterior(
  evidence: Evidence, posterior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """P(wrong) `[B]`, and what a flip makes of each label."""
  posterior = np.asarray(posterior, np.float64)
  size, classes = len(evidence), evidence.num_classes
  if np.any((posterior < 0) | (posterior > 1)):
    raise ValueError('posterior must lie in [0, 1], or be NaN')
  if posterior.shape == (size, classes):
    rows = np.arange(size)
    others = posterior.copy()
    others[rows, evidence.label] = -1.0
    return 1.0 - posterior[rows, evidence.label], others.argmax(axis=1)
  if posterior.shape != (size,):
    raise ValueError(
      f'posterior has shape {posterior.shape}, must be {(size,)} or '
      f'{(size, classes)}'
    )
  # −1 where it cannot be said what the label should be.
  other = 1 - evidence.label if classes == 2 else np.full(size, -1)
  return posterior, other


def _check_settings(policy: str, settings: Mapping[str, float]) -> None:
  if policy not in POLICIES:
    raise ValueError(f'policy={policy!r} must be one of {list(POLICIES)}')
  known = [*inspect.signature(POLICIES[policy]).parameters][1:]
  for name, value in settings.items():
    if name not in known:
      raise ValueError(f'{name} is not used by policy={policy!r}')
    high = {'margin': 0.5, 'doubt': 1.0}[name]
    if not 0 <= value <= high:
      raise ValueError(f'{name}={value} must lie in [0, {high}]')


def _first_to_ask(
  value: np.ndarray,
  is_open: np.ndarray,
  budget: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """The rows of largest value above 0, at most `budget`, most first."""
  value = np.where(is_open & ~np.isnan(value), value, -np.inf)
  order = np.lexsort((rng.random(len(value)), -value))
  return order[: min(budget, int(np.sum(value > 0)))]


def _as_repair(
  evidence: Evidence,
  wrong: np.ndarray,
  other: np.ndarray,
  action: np.ndarray,
  ask_rank: np.ndarray,
  policy: str,
  settings: Mapping[str, float],
) -> Repair:
  label = np.where(action == 'flip', other, evidence.label)
  if label.min(initial=0) < 0:
    raise ValueError(
      f'posterior must be [B, C] to flip among {evidence.num_classes} classes'
    )
  weight = np.where(action == 'reweight', 1.0 - wrong, 1.0)
  return Repair(
    action=action,
    label=label.astype(np.int32),
    label_prob=np.where(action == 'soften', 1.0 - wrong, 1.0),
    weight=np.where(action == 'drop', 0.0, weight),
    flip_posterior=wrong,
    ask_rank=ask_rank,
    policy=policy,
    settings=dict(settings),
  )

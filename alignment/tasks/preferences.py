"""Demonstrations and preference pairs over completions that are enumerated.

Everything is index arrays: `prompt` in [0, P), completions in [0, C). The
draws depend on the generator and the arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

_MAX_REDRAWS = 1000


class Pairs(NamedTuple):
  """Pairs of completions with their clean labels, one entry per pair.

  Attributes:
    index: `[B]` int32, 0 to B − 1: the pair's stable name.
    prompt: `[B]` int32.
    first, second: `[B]` int32, completions, in the order they were drawn.
    label: `[B]` bool, True where the first is labelled better, before any
      noise is injected.
    margin: `[B]` float64, gold reward of the first minus that of the second;
      never 0.
  """

  index: np.ndarray
  prompt: np.ndarray
  first: np.ndarray
  second: np.ndarray
  label: np.ndarray
  margin: np.ndarray


def behaviour(
  rewards: np.ndarray, *, inverse_temperature: float, uniform: float
) -> np.ndarray:
  """A demonstrator who is decent and imperfect.

    probs = (1 − uniform) · softmax(inverse_temperature · rewards) + uniform / C

  Args:
    rewards: `[P, C]` gold rewards.
    inverse_temperature: per unit of reward; 0 is the uniform demonstrator.
    uniform: share of thoughtless draws, in [0, 1].

  Returns:
    `[P, C]` probabilities, each row sums to 1.

  Raises:
    ValueError: `uniform` out of range.
  """
  if not 0 <= uniform <= 1:
    raise ValueError(f'uniform={uniform}, must be in [0, 1]')
  logits = inverse_temperature * rewards
  probs = np.exp(logits - logits.max(axis=1, keepdims=True))
  probs /= probs.sum(axis=1, keepdims=True)
  return (1 - uniform) * probs + uniform / rewards.shape[1]


def _cycled_prompts(num_prompts: int, num_draws: int, rng) -> np.ndarray:
  """Every prompt equally often (± 1), in random order."""
  rounds = -(-num_draws // num_prompts)
  order = rng.permuted(np.tile(np.arange(num_prompts), (rounds, 1)), axis=1)
  return order.reshape(-1)[:num_draws].astype(np.int32)


def _draw(cumulative: np.ndarray, prompt: np.ndarray, rng) -> np.ndarray:
  """One completion per entry of `prompt`, by inverting the row's CDF."""
  num_prompts, num_completions = cumulative.shape
  # Rows are laid one after another on a line, so that one sorted search
  # serves all of them.
  line = cumulative / cumulative[:, -1:] + np.arange(num_prompts)[:, None]
  drawn = np.searchsorted(
    line.reshape(-1), prompt + rng.random(len(prompt)), side='right'
  )
  return np.clip(drawn - prompt * num_completions, 0, num_completions - 1)


def demonstrations(
  probs: np.ndarray, num_demonstrations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts, each equally often (± 1), and completions drawn from `probs`.

  Args:
    probs: `[P, C]` the demonstrator.
    num_demonstrations: how many.
    rng: the only source of randomness.

  Returns:
    prompt and completion, `[num_demonstrations]` int32 each.
  """
  prompt = _cycled_prompts(len(probs), num_demonstrations, rng)
  drawn = _draw(np.cumsum(probs, axis=1), prompt, rng)
  return prompt, drawn.astype(np.int32)


def argmax_label(margin: np.ndarray, uniforms: np.ndarray, temperature: float):
  """True where the first completion has the larger gold reward."""
  del uniforms, temperature
  return margin > 0


def bt_label(margin: np.ndarray, uniforms: np.ndarray, temperature: float):
  """Bradley-Terry: True with probability σ(margin / temperature)."""
  return uniforms < 0.5 * (1 + np.tanh(0.5 * margin / temperature))


PREFERENCES: Mapping[str, Callable[..., np.ndarray]] = {
  'argmax': argmax_label,
  'bt': bt_label,
}
"""name -> label(margin `[B]`, uniforms `[B]`, temperature) -> `[B]` bool."""


def preference_pairs(
  rewards: np.ndarray,
  probs: np.ndarray,
  num_pairs: int,
  rng: np.random.Generator,
  *,
  preference: str = 'argmax',
  temperature: float = 1.0,
) -> Pairs:
  """Two completions per pair, drawn from `probs`, and which is better.

  Pairs of equal gold reward are drawn again under the same prompt. With
  'argmax' the better one wins always and DPO has no finite optimum; with 'bt'
  it wins with probability σ(margin / temperature) and the optimum of DPO on
  clean labels is π* ∝ π_ref · exp(r / (β · temperature)). The completions drawn
  do not depend on `preference`.

  Args:
    rewards: `[P, C]` gold rewards.
    probs: `[P, C]`, rows sum to 1: a demonstrator, or the policy before
      preference learning, which makes the pairs on-policy.
    num_pairs: how many; every prompt equally often (± 1).
    rng: the only source of randomness.
    preference: a key of PREFERENCES.
    temperature: > 0, in units of the reward.

  Raises:
    ValueError: an argument out of range, or a prompt under which `probs` gives
      no two completions of different reward.
  """
  if preference not in PREFERENCES:
    raise ValueError(
      f'preference={preference!r}, must be one of {sorted(PREFERENCES)}'
    )
  if temperature <= 0:
    raise ValueError(f'temperature={temperature}, must be > 0')
  prompt = _cycled_prompts(len(rewards), num_pairs, rng)
  cumulative = np.cumsum(probs, axis=1)
  first, second = _draw(cumulative, prompt, rng), _draw(cumulative, prompt, rng)
  for _ in range(_MAX_REDRAWS):
    tied = np.flatnonzero(rewards[prompt, first] == rewards[prompt, second])
    if not len(tied):
      break
    first[tied] = _draw(cumulative, prompt[tied], rng)
    second[tied] = _draw(cumulative, prompt[tied], rng)
  else:
    raise ValueError(
      f'probs, must give completions of different reward; tied at prompts '
      f'{sorted(set(prompt[tied].tolist()))} after {_MAX_REDRAWS} draws'
    )
  margin = rewards[prompt, first] - rewards[prompt, second]
  label = PREFERENCES[preference](margin, rng.random(num_pairs), temperature)
  return Pairs(
    np.arange(num_pairs, dtype=np.int32),
    prompt,
    first.astype(np.int32),
    second.astype(np.int32),
    label,
    margin,
  )

"""The labels of an arena: noisy, turned round, or the best that are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from alignment.noise.corruption.catalogue import (
  INSTEAD,
  corrupt,
  hyperparameters,
)
from alignment.noise.labels import says_something
from alignment.protocols.arena import Arena, Pairs
from alignment.protocols.bakeoff import Labels
from alignment.types import NoisyLabels


class Noise(NamedTuple):
  """A noise model and its hyperparameters, all but the flip rate.

  Attributes:
    name: key of `NOISE`.
    hyper: (name, value) pairs; `exact` may be among them.
    has_ties: some labels come with a label_prob of ½.
  """

  name: str
  hyper: tuple[tuple[str, Any], ...] = ()
  has_ties: bool = False

  def __str__(self) -> str:
    settings = ', '.join(f'{name} {value}' for name, value in self.hyper)
    return f'{self.name} ({settings})' if settings else self.name


EXACT_FLIPS = Noise('exact_count')


def parse_noise(
  name: str, entries: Sequence[str], *, num_features: int
) -> Noise:
  """A noise model from --noise and --noise_hyper, tried on made-up pairs.

  Args:
    name: key of `NOISE`.
    entries: `name=value`; the value is a number, several joined by colons, or
      1 for `exact`.
    num_features: features that a pair will have.

  Raises:
    ValueError: a name that the model does not use, or that stands in the place
      of the flip rate; a value that is no number or that the model refuses.
  """
  hyper = {}
  known = {*hyperparameters(name), 'exact'} - {'flip_rate', INSTEAD.get(name)}
  for entry in entries:
    word, _, text = entry.partition('=')
    if word not in known:
      why = f'--noise={name} does not use {word!r}; it takes '
      if word in ('flip_rate', INSTEAD.get(name)):
        why = 'stands in the place of --flip_rate; give one of '
      raise ValueError(
        f'--noise_hyper={entry}: {why}{", ".join(sorted(known))}'
      )
    hyper[word] = _value(entry, word, text)
  rng = np.random.default_rng(0)
  clean = rng.random(16) < 0.5
  margin = np.where(clean, 1.0, -1.0) * rng.random(16)
  made_up = {
    'index': np.arange(16),
    'margin': margin,
    'judge_margin': margin,
    'attack_score': margin,
    'lengths': rng.integers(1, 9, (16, 2)),
    'annotator_id': np.arange(16) % 4,
    'features': rng.normal(size=(16, num_features)),
    'step_rewards': np.stack([margin, 0 * margin], axis=1)[..., None] + 1,
    'has_trigger': clean,
  }
  key = jax.random.key(0)
  try:
    labels = corrupt(name, key, clean, made_up, flip_rate=0.0, **hyper)
  except ValueError as error:
    given = ','.join(entries)
    raise ValueError(f'--noise_hyper={given}: {error}') from error
  return Noise(name, tuple(hyper.items()), labels.label_prob is not None)


def corrupted(
  arena: Arena, noise: Noise, flip_rate: float
) -> list[NoisyLabels]:
  """Noise on top of the labels at hand, of training and validation pairs."""
  key = jax.random.fold_in(jax.random.key(arena.seed), 0x11)
  return [
    corrupt(
      noise.name,
      jax.random.fold_in(key, stream),
      at_hand(pairs),
      what_is_known(pairs),
      flip_rate=flip_rate,
      **dict(noise.hyper),
    )
    for stream, pairs in enumerate((arena.train.pairs, arena.validation.pairs))
  ]


def noisy_labels(arena: Arena, noise: Noise, flip_rate: float) -> Labels:
  """Those labels as they are trained and selected on.

  A pair that the labeller skipped weighs nothing; one called a tie has a
  label_prob of ½. Neither counts as flipped.
  """
  train, validation = corrupted(arena, noise, flip_rate)
  says = says_something(validation)
  return Labels(
    _flipped(train, arena.train.pairs),
    _flipped(validation, arena.validation.pairs),
    np.ones(len(arena.train.pairs))
    if train.weight is None
    else train.weight.astype(float),
    train.label_prob,
    None if says.all() else says.astype(float),
  )


def best_labels(arena: Arena) -> Labels:
  """The best labels known: the truth, or the majority of the votes."""
  n, m = len(arena.train.pairs), len(arena.validation.pairs)
  return Labels(np.zeros(n, bool), np.zeros(m, bool), np.ones(n))


def complement(labels: Labels) -> Labels:
  """Every label swapped."""
  return labels._replace(
    train_flipped=~labels.train_flipped,
    validation_flipped=~labels.validation_flipped,
  )


def at_hand(pairs: Pairs) -> np.ndarray:
  """`[n]` bool, the label before any noise is injected: completion 0 wins."""
  return pairs.first_is_better ^ pairs.observed_flip


def what_is_known(pairs: Pairs) -> dict[str, np.ndarray | None]:
  """What noise models may read of pairs; None where it is not known.

  The features are standardised: by how much the loser's text is longer and,
  where margins are known, how close the two are.
  """
  margin = None if np.isnan(pairs.gold_margin).any() else pairs.gold_margin
  excess = np.diff(pairs.lengths)[:, 0]
  features = [np.where(at_hand(pairs), excess, -excess)]
  if margin is not None:
    features.append(-np.abs(margin))
  return {
    'index': np.arange(len(pairs)),
    'margin': margin,
    'lengths': pairs.lengths,
    'annotator_id': np.array([g.annotator_id for g in pairs.groups]),
    'features': np.stack([_standardised(f) for f in features], axis=1),
    **pairs.known,
  }


def _flipped(labels: NoisyLabels, pairs: Pairs) -> np.ndarray:
  return (labels.label != pairs.first_is_better) & says_something(labels)


def _standardised(values: np.ndarray) -> np.ndarray:
  spread = values.std()
  return (values - values.mean()) / (spread if spread > 0 else 1.0)


def _value(entry: str, word: str, text: str) -> float | tuple | bool:
  try:
    numbers = tuple(float(part) for part in text.split(':'))
  except ValueError:
    numbers = ()
  if not numbers or not np.all(np.isfinite(numbers)):
    raise ValueError(
      f'--noise_hyper={entry}: want name=number, or numbers joined by colons'
    )
  if word == 'exact':
    if numbers != (1.0,):
      raise ValueError(f'--noise_hyper={entry}: want exact=1, or leave it out')
    return True
  return numbers[0] if len(numbers) == 1 else numbers

"""Noise on records: new labels, and the truth about them in extra columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from alignment.data.records import DataError, Preference, Report, Unpaired
from alignment.noise.corruption import draws
from alignment.noise.corruption.catalogue import corrupt
from alignment.noise.labels import effective_flip_rate, says_something
from alignment.types import NoisyLabels

Labelled = TypeVar('Labelled', Preference, Unpaired)

_MIRRORED = {
  'margin': lambda values: -values,
  'judge_margin': lambda values: -values,
  'lengths': lambda values: values[:, ::-1],
  'step_rewards': lambda values: values[:, ::-1],
}
"""Data of a pair that turn round with its order."""


def corrupt_records(
  name: str,
  records: Sequence[Labelled],
  *,
  seed: int,
  data: Mapping[str, np.ndarray] | None = None,
  exact: bool = False,
  **hyper: Any,
) -> tuple[list[Labelled], Report]:
  """Labels records anew by a noise model and writes down what it did.

  The columns `is_flipped`, `clean_label` and `flip_rate` hold the truth,
  `label_prob` ½ a tie, `weight` 0 a pair the labeller skipped. Records that do
  not say yet whether they are flipped count as clean; those that do keep the
  truth they know, and rates compose. A flip swaps chosen and rejected and turns
  `votes` round with them.

  Which completion comes first, to noise that looks at places, is one draw of
  (seed, index); `data` are given in the order of the record. Neither file order
  nor the other records change a draw.

  Args:
    name: key of `NOISE`.
    records: all pairs, or all unpaired.
    seed: one number, one draw.
    data: what the model needs and records do not hold, among
      `catalogue.DATA`, `[B, …]`: `margin` and `judge_margin` of chosen minus
      rejected (unpaired: the score, > 0 where good), `step_rewards` of chosen
      and rejected, `features`, `has_trigger`, `attack_score`. `index` and
      `annotator_id` are the records'; `lengths`, unless given, are characters.
    exact: see `corrupt`.
    **hyper: hyperparameters of the model.

  Returns:
    The records, in order, and a report with seed, hyperparameters, expected and
    realised rate, and where the flips are.

  Raises:
    DataError: records with votes instead of a label, or an unknown annotator
      where the model asks.
    ValueError: as `corrupt`; ties or skips of unpaired records.
  """
  kinds = {type(record) for record in records}
  if not kinds <= {Preference} and not kinds <= {Unpaired}:
    raise DataError(
      f'holds {", ".join(sorted(kind.__name__ for kind in kinds))}',
      'Give pairs with one label each, or unpaired records; one_vote and '
      'majority make pairs of votes',
      records[0].path,
    )
  key = jax.random.key(seed)
  known = _what_is_known(records, data or {})
  if kinds == {Unpaired}:
    clean = np.array([record.label for record in records], bool)
  else:
    first = draws.uniforms(key, draws.ORDER, known['index'])
    clean = first < 0.5
    known |= {
      word: _either(clean, known[word], turn(known[word]))
      for word, turn in _MIRRORED.items()
      if known.get(word) is not None
    }
  labels = corrupt(name, key, clean, known, exact=exact, **hyper)
  if kinds == {Unpaired} and not says_something(labels).all():
    raise ValueError('ties and skips are of pairs, not of single completions')
  noisy = [_relabelled(record, labels, i) for i, record in enumerate(records)]
  asked = {'seed': seed, **hyper, **({'exact': True} if exact else {})}
  return noisy, _report(name, noisy, labels, asked)


def _what_is_known(
  records: Sequence[Labelled], data: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray | None]:
  annotators = np.array([record.annotator_id for record in records], int)
  texts = [record.completions() for record in records]
  own = {
    'index': np.array([record.index for record in records], int),
    'annotator_id': None if (annotators < 0).any() else annotators,
  }
  for word in own:
    if word in data:
      raise ValueError(f'data: {word!r} is what the records say')
  if texts and len(texts[0]) == 2:
    own['lengths'] = np.array([[len(text) for text in pair] for pair in texts])
  return own | {word: np.asarray(values) for word, values in data.items()}


def _either(
  mask: np.ndarray, values: np.ndarray, others: np.ndarray
) -> np.ndarray:
  if len(values) != len(mask):
    raise ValueError(f'data: has {len(values)} rows, there are {len(mask)}')
  return np.where(mask.reshape(-1, *[1] * (values.ndim - 1)), values, others)


def _relabelled(record: Labelled, labels: NoisyLabels, row: int) -> Labelled:
  swapped = bool(labels.is_flipped[row])
  # float32 holds seven digits; more would be noise in the file.
  rate = float(f'{labels.flip_rate[row]:.7g}')
  if record.flip_rate is not None:
    rate = effective_flip_rate(record.flip_rate, rate)
  is_flipped = bool(record.is_flipped) != swapped
  changes = {'is_flipped': is_flipped, 'flip_rate': rate}
  if labels.weight is not None:
    changes['weight'] = record.weight * float(labels.weight[row])
  if isinstance(record, Unpaired):
    label = record.label != swapped
    return dataclasses.replace(
      record, label=label, clean_label=label != is_flipped, **changes
    )
  if labels.label_prob is not None and labels.label_prob[row] != 1:
    changes['label_prob'] = float(labels.label_prob[row])
  if swapped:
    changes['chosen'], changes['rejected'] = record.rejected, record.chosen
    changes['votes'] = tuple(-vote for vote in record.votes)
  return dataclasses.replace(record, clean_label=not is_flipped, **changes)


def _report(
  name: str,
  noisy: Sequence[Labelled],
  labels: NoisyLabels,
  asked: Mapping[str, Any],
) -> Report:
  report = Report(f'noise {name}', read=len(noisy), kept=len(noisy))
  counted = says_something(labels)
  for record, flipped, says in zip(
    noisy, labels.is_flipped, counted, strict=True
  ):
    if not says:
      report.add('skipped or tied', record.index)
    elif flipped:
      report.add('flipped', record.index)
  settings = ', '.join(f'{word}={value}' for word, value in asked.items())
  report.notes.append(settings)
  if counted.any():
    report.notes.append(
      f'flip rate {labels.is_flipped[counted].mean():.6g} realised, '
      f'{labels.flip_rate[counted].mean(dtype=np.float64):.6g} expected, of '
      f'{counted.sum()} labels that say something'
    )
  return report

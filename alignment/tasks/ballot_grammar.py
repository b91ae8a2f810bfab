"""The words of BALLOT: prompts, completions, and every one of them.

prompt      g<group> w<weights> <=<limit> <required letters> -<avoided> :
completion  <1 to max_letters letters> conf<level> #
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

LETTERS = 'abcdefgh'
CONFIDENCES = (0, 25, 50, 75, 100)
LIMITS = (1, 2, 3, 4)
NUM_GROUPS = 2
NUM_WEIGHTS = 3

VOCABULARY = (
  '#',
  ':',
  *LETTERS,
  *(f'-{letter}' for letter in LETTERS),
  *(f'conf{level}' for level in CONFIDENCES),
  *(f'g{group}' for group in range(NUM_GROUPS)),
  *(f'w{row}' for row in range(NUM_WEIGHTS)),
  *(f'<={limit}' for limit in LIMITS),
)
"""Token id -> string; one vocabulary for every difficulty."""

_ID = {token: index for index, token in enumerate(VOCABULARY)}
EOS = _ID['#']
_COLON, _AVOID = _ID[':'], _ID['-a']
FIRST_LETTER, FIRST_CONFIDENCE = _ID['a'], _ID[f'conf{CONFIDENCES[0]}']
_GROUP, _WEIGHTS, _LIMIT = _ID['g0'], _ID['w0'], _ID[f'<={LIMITS[0]}']


@dataclasses.dataclass(frozen=True)
class Difficulty:
  """How large the world is.

  Attributes:
    num_letters: letters in use, 2 to 8.
    max_letters: a response has 1 to this many letters.
    confidences: the confidence levels in use, percent.
    required_sizes: how many letters a request may ask for.
    limits: the length limits in use.
    conflict: share of prompts whose avoided letter is also required, in [0, 1].
  """

  num_letters: int = 6
  max_letters: int = 3
  confidences: tuple[int, ...] = (0, 100)
  required_sizes: tuple[int, ...] = (2, 3)
  limits: tuple[int, ...] = (2, 3)
  conflict: float = 0.25

  def __post_init__(self):
    if not 2 <= self.num_letters <= len(LETTERS):
      raise ValueError(
        f'num_letters={self.num_letters}, must be in [2, {len(LETTERS)}]'
      )
    if not 1 <= self.max_letters <= self.num_letters:
      raise ValueError(
        f'max_letters={self.max_letters}, must be in [1, {self.num_letters}]'
      )
    for name, allowed in (
      ('confidences', CONFIDENCES),
      ('limits', LIMITS),
      ('required_sizes', range(1, self.num_letters)),
    ):
      values = getattr(self, name)
      if not values or not set(values) <= set(allowed):
        raise ValueError(f'{name}={values}, must be among {tuple(allowed)}')
    if not 0 <= self.conflict <= 1:
      raise ValueError(f'conflict={self.conflict}, must be in [0, 1]')


DIFFICULTIES: Mapping[str, Difficulty] = {
  'default': Difficulty(),
  'hard': Difficulty(
    num_letters=8,
    confidences=(0, 25, 50, 75, 100),
    required_sizes=(2, 3, 4),
    limits=(1, 2, 3),
    conflict=0.5,
  ),
}


class Requests(NamedTuple):
  """Prompts by meaning: one entry, or one row, per prompt.

  Attributes:
    required: `[P, 8]` bool.
    avoided: `[P]` letter index.
    limit: `[P]` letters.
    group: `[P]`, who asks.
    weights: `[P]`, whose priorities count.
  """

  required: np.ndarray
  avoided: np.ndarray
  limit: np.ndarray
  group: np.ndarray
  weights: np.ndarray


def _left_justified(tokens: np.ndarray, keep: np.ndarray):
  """Moves the kept tokens of each row to its front: (tokens, lengths)."""
  order = np.argsort(~keep, axis=1, kind='stable')
  lengths = keep.sum(axis=1)
  tokens = np.take_along_axis(tokens, order, axis=1)[:, : lengths.max()]
  beyond = np.arange(tokens.shape[1]) >= lengths[:, None]
  return np.where(beyond, EOS, tokens).astype(np.int32), lengths


def enumerate_requests(difficulty: Difficulty) -> Requests:
  """Every prompt of a difficulty once, in a fixed order."""
  subsets = [
    np.isin(np.arange(len(LETTERS)), letters)
    for size in difficulty.required_sizes
    for letters in itertools.combinations(range(difficulty.num_letters), size)
  ]
  axes = (
    np.arange(len(subsets)),
    np.arange(difficulty.num_letters),
    np.array(difficulty.limits),
    np.arange(NUM_GROUPS),
    np.arange(NUM_WEIGHTS),
  )
  subset, *rest = (a.ravel() for a in np.meshgrid(*axes, indexing='ij'))
  return Requests(np.stack(subsets)[subset], *rest)


def encode_requests(requests: Requests) -> tuple[np.ndarray, np.ndarray]:
  """Token ids `[P, Tp]` int32 and lengths `[P]`; letters in order a to h."""
  num = len(requests.avoided)
  column = np.ones((num, 1), np.int32)
  tokens = np.concatenate(
    [
      _GROUP + requests.group[:, None],
      _WEIGHTS + requests.weights[:, None],
      _LIMIT + requests.limit[:, None] - LIMITS[0],
      column * (FIRST_LETTER + np.arange(len(LETTERS))),
      _AVOID + requests.avoided[:, None],
      column * _COLON,
    ],
    axis=1,
  )
  keep = np.ones(tokens.shape, bool)
  keep[:, 3 : 3 + len(LETTERS)] = requests.required
  return _left_justified(tokens, keep)


def decode_request(x: np.ndarray) -> Requests:
  """Reads one prompt.

  Returns:
    Requests with P = 1.

  Raises:
    ValueError: x is not a sentence of the prompt grammar.
  """
  x = [int(token) for token in x]
  letters = [token - FIRST_LETTER for token in x[3:-2]]
  avoided = x[-2] - _AVOID if len(x) >= 6 else -1
  ok = (
    len(x) >= 6
    and 0 <= x[0] - _GROUP < NUM_GROUPS
    and 0 <= x[1] - _WEIGHTS < NUM_WEIGHTS
    and 0 <= x[2] - _LIMIT < len(LIMITS)
    and x[-1] == _COLON
    and all(0 <= letter < len(LETTERS) for letter in (*letters, avoided))
    and letters == sorted(set(letters))
  )
  if not ok:
    raise ValueError(f'x={render(np.array(x))!r} is not a BALLOT prompt')
  return Requests(
    np.isin(np.arange(len(LETTERS)), letters)[None],
    np.array([avoided]),
    np.array([LIMITS[x[2] - _LIMIT]]),
    np.array([x[0] - _GROUP]),
    np.array([x[1] - _WEIGHTS]),
  )


def enumerate_completions(
  difficulty: Difficulty,
) -> tuple[np.ndarray, np.ndarray]:
  """Every completion once: token ids `[C, Tc]` int32 and lengths `[C]`.

  C = |confidences| · Σ_{n ≤ max_letters} num_lettersⁿ; shorter ones first.
  """
  width = difficulty.max_letters
  rows, keep = [], []
  for size in range(1, width + 1):
    letters = np.indices((difficulty.num_letters,) * size).reshape(size, -1).T
    rows.append(np.pad(letters, ((0, 0), (0, width - size))))
    keep.append(np.broadcast_to(np.arange(width) < size, rows[-1].shape))
  rows, keep = np.concatenate(rows), np.concatenate(keep)
  levels = [CONFIDENCES.index(level) for level in difficulty.confidences]
  repeats = len(levels)
  rows, keep = np.repeat(rows, repeats, 0), np.repeat(keep, repeats, 0)
  level = np.tile(levels, len(rows) // repeats)[:, None]
  tail = np.ones((len(rows), 2), bool)
  tokens = [
    rows + FIRST_LETTER,
    level + FIRST_CONFIDENCE,
    np.full_like(level, EOS),
  ]
  return _left_justified(
    np.concatenate(tokens, axis=1), np.concatenate([keep, tail], axis=1)
  )


def count_grammatical(y: np.ndarray) -> int:
  """How many leading tokens of y still begin some completion."""
  letter = (y >= FIRST_LETTER) & (y < FIRST_LETTER + len(LETTERS))
  num_letters = int(np.cumprod(letter).sum())
  tail = y[num_letters : num_letters + 2]
  good = [
    FIRST_CONFIDENCE <= token < FIRST_CONFIDENCE + len(CONFIDENCES)
    if place == 0
    else token == EOS
    for place, token in enumerate(tail)
  ]
  return num_letters + int(np.cumprod(good).sum()) if num_letters else 0


def is_completion(y: np.ndarray) -> bool:
  """True where y is letters, one confidence, and the end."""
  return count_grammatical(y) == len(y) and len(y) > 2 and y[-1] == EOS


def render(tokens: np.ndarray) -> str:
  """Token ids as the strings of VOCABULARY; an unknown id as ⟨id⟩."""
  return ' '.join(
    VOCABULARY[t] if 0 <= t < len(VOCABULARY) else f'⟨{t}⟩' for t in tokens
  )


def parse(text: str) -> np.ndarray:
  """The token ids of what `render` wrote.

  Raises:
    ValueError: a word is not of the vocabulary.
  """
  unknown = [word for word in text.split() if word not in _ID]
  if unknown:
    raise ValueError(f'text holds {unknown}, must be words of VOCABULARY')
  return np.array([_ID[word] for word in text.split()], np.int32)

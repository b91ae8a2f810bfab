"""What a linear reward reads of BALLOT: every prompt word with every trait.

  reward(x, y) = words(x) · weights · traits(y)

Words are 1 and those of the prompt; traits are the letters a response holds,
its first letter, its neighbouring letters, its length and its confidence. A
matrix of weights can say most of the gold reward (the avoided letter, the
forbidden bigrams, the limit, the taste of the group) and not all of it: what a
letter helps depends on how many are required and on whose priorities count,
which takes three words at once.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from alignment.tasks import ballot_grammar as grammar

_LETTERS = len(grammar.LETTERS)


def words(requests: grammar.Requests) -> np.ndarray:
  """1 and the words of each prompt, `[P, X]` of 0 and 1."""
  return np.concatenate(
    [
      np.ones((len(requests.avoided), 1)),
      requests.required.astype(float),
      np.eye(_LETTERS)[requests.avoided],
      np.eye(len(grammar.LIMITS))[requests.limit - grammar.LIMITS[0]],
      np.eye(grammar.NUM_GROUPS)[requests.group],
      np.eye(grammar.NUM_WEIGHTS)[requests.weights],
    ],
    axis=1,
  )


def traits(completions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """What each well-formed completion is like, `[C, Y]` of 0 and 1.

  Args:
    completions: `[C, Tc]` token ids: letters, one confidence, EOS.
    lengths: `[C]` tokens, EOS counted.
  """
  rows, num_letters = np.arange(len(lengths)), lengths - 2
  is_letter = np.arange(completions.shape[1]) < num_letters[:, None]
  letter = np.where(is_letter, completions - grammar.FIRST_LETTER, 0)
  has = np.zeros((len(rows), _LETTERS))
  np.maximum.at(has, (rows[:, None], letter), is_letter.astype(float))
  follows = np.zeros((len(rows), _LETTERS**2))
  bigram = letter[:, :-1] * _LETTERS + letter[:, 1:]
  np.maximum.at(
    follows, (rows[:, None], bigram), is_letter[:, 1:].astype(float)
  )
  level = completions[rows, num_letters] - grammar.FIRST_CONFIDENCE
  return np.concatenate(
    [
      has,
      np.eye(_LETTERS)[letter[:, 0]],
      follows,
      np.eye(completions.shape[1])[num_letters],
      np.eye(len(grammar.CONFIDENCES))[level],
    ],
    axis=1,
  )


def products(words: np.ndarray, traits: np.ndarray) -> sparse.csr_array:
  """words[b] ⊗ traits[b] as rows, so that their product with flat weights is
  the reward.

  Args:
    words: `[B, X]`.
    traits: `[B, Y]`; of a pair, the difference or the sum of both completions.

  Returns:
    `[B, X·Y]`.
  """
  flat = np.einsum('bx,by->bxy', words, traits).reshape(len(words), -1)
  return sparse.csr_array(flat)


def rewards(
  words: np.ndarray, traits: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """Rewards of every completion of every prompt by M models.

  Args:
    words: `[P, X]`.
    traits: `[C, Y]`.
    weights: `[M, X·Y]`.

  Returns:
    `[M, P, C]`.
  """
  shape = (len(weights), words.shape[1], traits.shape[1])
  return words @ weights.reshape(shape) @ traits.T

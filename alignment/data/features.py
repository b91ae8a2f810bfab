"""Texts as rows of a sparse matrix, for linear models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from alignment.data.tokenizers import HashedTokenizer


def bag_of_words(
  texts: Sequence[str], tokenizer: HashedTokenizer | None = None
) -> sparse.csr_array:
  """φ(text) / ‖φ(text)‖: which hashed words and word pairs a text has.

  Args:
    texts: n of them; equal texts are read once.
    tokenizer: 2¹⁶ buckets unless given.

  Returns:
    `[n, num_buckets]` float64, every row of norm 1.
  """
  tokenizer = tokenizer or HashedTokenizer()
  place = {text: None for text in texts}
  rows = []
  for row, text in enumerate(place):
    place[text] = row
    rows.append(np.unique(tokenizer.encode(text)))
  lengths = np.array([len(row) for row in rows], np.int64)
  matrix = sparse.csr_array(
    (
      np.repeat(np.maximum(lengths, 1) ** -0.5, lengths),
      np.concatenate(rows) if rows else np.zeros(0, np.int32),
      np.concatenate([[0], np.cumsum(lengths)]),
    ),
    shape=(len(rows), tokenizer.vocab_size),
  )
  return matrix[[place[text] for text in texts]]

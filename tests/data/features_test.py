"""Bags of words as a matrix: the tokenizer's ids, rows of norm one."""

import numpy as np

from alignment.data.features import bag_of_words
from alignment.data.tokenizers import HashedTokenizer


def test_rows_are_the_ids_of_the_tokenizer_at_norm_one():
  texts = ['The cat sat.', '', 'the CAT sat .', 'a b a b', 'The cat sat.']
  tokenizer = HashedTokenizer(512)
  matrix = bag_of_words(texts, tokenizer)
  assert matrix.shape == (5, 512)
  for row, text in enumerate(texts):
    dense = matrix[[row]].toarray()[0]
    ids = np.unique(tokenizer.encode(text))
    np.testing.assert_array_equal(np.flatnonzero(dense), ids)
    np.testing.assert_allclose(dense[ids], len(ids) ** -0.5)
  assert (matrix[[0]] != matrix[[4]]).nnz == 0


def test_no_text_gives_no_row():
  assert bag_of_words([], HashedTokenizer(16)).shape == (0, 16)

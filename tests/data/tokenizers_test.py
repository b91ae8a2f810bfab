"""Bytes come back whole; a hashed bag is the same everywhere."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.tokenizers import (
  ByteTokenizer,
  HashedTokenizer,
  check_vocabulary,
)

TEXT = st.text(st.characters(exclude_categories=['Cs']), max_size=40)


@given(TEXT, TEXT)
@settings(max_examples=100, deadline=None)
def test_bytes_come_back_and_parts_are_the_whole(prompt, completion):
  tokenizer = ByteTokenizer()
  ids = tokenizer.encode(prompt + completion)
  assert ids.dtype == np.int32
  parts = tokenizer.encode_parts(prompt, completion)
  np.testing.assert_array_equal(np.concatenate(parts[:2]), ids)
  assert not parts.straddling
  assert tokenizer.decode(ids) == prompt + completion
  special = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
  assert len(special) == 3 and max(special) < tokenizer.vocab_size
  assert not special & set(ids.tolist())


def test_special_ids_say_nothing_and_half_characters_are_marked():
  tokenizer = ByteTokenizer()
  ids = [256, *tokenizer.encode('né')[:-1], 257, 258]
  assert tokenizer.decode(np.asarray(ids)) == 'n�'


@given(TEXT)
@settings(max_examples=100, deadline=None)
def test_a_bag_is_never_empty_distinct_and_in_range(text):
  tokenizer = HashedTokenizer(512)
  ids = tokenizer.encode(text)
  assert ids.dtype == np.int32 and len(ids) >= 1
  assert len(set(ids.tolist())) == len(ids)
  assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size
  np.testing.assert_array_equal(ids, tokenizer.encode(text.lower()))


def test_a_bag_holds_unigrams_then_bigrams_once():
  tokenizer = HashedTokenizer()
  one, two = tokenizer.encode('Good'), tokenizer.encode('dog')
  both = tokenizer.encode('good dog good  DOG')
  assert len(both) == 4  # good, dog, good·dog, dog·good
  assert both[0] == one[0] and both[1] == two[0]
  # A bigram is no word: not even the same letters without the space.
  assert tokenizer.encode('gooddog')[0] not in both
  np.testing.assert_array_equal(tokenizer.encode(' \n'), [0])
  prompt, bag, _ = tokenizer.encode_parts('good', 'dog')
  assert len(prompt) == 0 and bag.tolist() == two.tolist()


def test_hash_does_not_depend_on_the_process():
  code = (
    'from alignment.data.tokenizers import HashedTokenizer as H;'
    "print(H(1000).encode('A quick brown fox').tolist())"
  )
  printed = subprocess.run(
    [sys.executable, '-c', code],
    check=True,
    capture_output=True,
    text=True,
    env={'PYTHONHASHSEED': '7', 'PYTHONPATH': ':'.join(sys.path)},
  ).stdout
  here = HashedTokenizer(1000).encode('A quick brown fox').tolist()
  assert printed.strip() == str(here)


def test_fingerprints_differ_where_ids_do():
  prints = {
    ByteTokenizer().fingerprint,
    HashedTokenizer(64).fingerprint,
    HashedTokenizer(65).fingerprint,
  }
  assert len(prints) == 3
  with pytest.raises(ValueError, match='num_buckets: 1 must be ≥ 2'):
    HashedTokenizer(1)


def test_a_model_has_an_embedding_for_every_id():
  check_vocabulary(ByteTokenizer(), 259)
  with pytest.raises(ValueError, match='vocab_size=258 must be ≥ 259'):
    check_vocabulary(ByteTokenizer(), 258)

"""Files of the tokenizers of policies trained here: the same ids elsewhere."""

import json

import numpy as np
import pytest
import tokenizers

from alignment.data.tokenizer_files import byte_files, word_files
from alignment.data.tokenizers import ByteTokenizer
from alignment.tasks import ballot_grammar

TEXTS = ('', ' two  blanks\n\tand\r', 'naïve café – 12 €', '日本語 😀\x00\x7f')


def loaded(files):
  return tokenizers.Tokenizer.from_str(files['tokenizer.json'].decode())


@pytest.mark.parametrize('text', TEXTS)
def test_bytes_have_the_same_ids_and_come_back(text):
  found = loaded(byte_files()).encode(text).ids
  np.testing.assert_array_equal(found, ByteTokenizer().encode(text))
  assert loaded(byte_files()).decode(found) == text


def test_every_byte_has_its_id():
  vocabulary = loaded(byte_files()).get_vocab()
  assert sorted(vocabulary.values()) == list(range(ByteTokenizer.vocab_size))


def test_special_bytes_are_named():
  said = json.loads(byte_files()['tokenizer_config.json'])
  found = loaded(byte_files())
  for name in ('bos', 'eos', 'pad'):
    number = found.token_to_id(said[f'{name}_token'])
    assert number == getattr(ByteTokenizer, f'{name}_id')


def test_words_of_the_embedded_task_have_their_places():
  words = ballot_grammar.VOCABULARY
  found = loaded(word_files(words, words[ballot_grammar.EOS]))
  ids = np.random.default_rng(1).integers(0, len(words), 40)
  assert found.encode(ballot_grammar.render(ids)).ids == ids.tolist()
  assert found.token_to_id('#') == ballot_grammar.EOS

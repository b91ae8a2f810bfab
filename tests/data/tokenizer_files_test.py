"""Files of the tokenizers of policies trained here: the same ids elsewhere."""

import json

import numpy as np
import pytest
import tokenizers

from alignment.data.tokenizer_files import (
  byte_files,
  character_files,
  word_files,
)
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


BYTES = [f'<0x{byte:02X}>' for byte in range(256)]
PIECES = ['<unk>', '<s>', '</s>', *BYTES, *'▁aé,b']
PLACES = {'bos_id': 1, 'eos_id': 2, 'unk_id': 0}


@pytest.mark.parametrize('text', [*TEXTS, 'ab, é', ' a', 'a ', '▁<0x41>'])
def test_characters_are_places_and_others_bytes(text):
  found = loaded(character_files(PIECES, **PLACES))
  characters = ('▁' if text else '') + text
  expected = [1]
  for character in characters.replace(' ', '▁'):
    if character in PIECES:
      expected.append(PIECES.index(character))
    else:
      expected += [3 + byte for byte in character.encode()]
  assert found.encode(text).ids == expected
  if '▁' not in text:
    assert found.decode(expected) == text


@pytest.mark.parametrize(
  ('pieces', 'places', 'message'),
  [
    (PIECES, {'eos_id': 264}, 'eos_id=264 must be the place of one of 264'),
    (PIECES, {'eos_id': 1}, 'so must the special ones'),
    ([*PIECES, 'a'], {}, 'must be distinct'),
    ([*PIECES, 'ab'], {}, "'ab' must be one character"),
    (PIECES[:5] + PIECES[6:], {}, '<0x02> is missing'),
  ],
)
def test_pieces_that_are_no_characters(pieces, places, message):
  with pytest.raises(ValueError, match=message):
    character_files(pieces, **{**PLACES, **places})


@pytest.mark.shared
def test_the_pieces_of_a_public_model_name_every_text(shared_dir, tmp_path):
  folder = shared_dir / 'data' / 'models' / 'babyllama_tok361'
  said = json.loads((folder / 'config_and_vocab.json').read_text())
  files = character_files(said['pieces'], **PLACES)
  found = loaded(files)
  story = 'Once upon a time, there was a “dog”.\nüñ'
  ids = found.encode(story).ids
  spelled = [said['pieces'][i] for i in ids]
  assert spelled[:7] == ['<s>', '▁', 'O', 'n', 'c', 'e', '▁']
  assert spelled[-4:] == ['<0x0A>', '<0xC3>', '<0xBC>', 'ñ']
  assert found.decode(ids) == story

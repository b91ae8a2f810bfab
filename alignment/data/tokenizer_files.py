"""The files by which others read what policies trained from scratch read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from alignment.data.tokenizers import ByteTokenizer

BOS, EOS, PAD = '<s>', '</s>', '<pad>'


def byte_files() -> dict[str, bytes]:
  """`ByteTokenizer` as a folder has it: id = byte, then BOS, EOS, padding.

  A byte-level BPE without merges; the alphabet that stands for bytes is that
  of GPT-2 (Radford et al., 2019).
  """
  special = {
    BOS: ByteTokenizer.bos_id,
    EOS: ByteTokenizer.eos_id,
    PAD: ByteTokenizer.pad_id,
  }
  level = {'type': 'ByteLevel', 'add_prefix_space': False, 'use_regex': False}
  level['trim_offsets'] = False
  vocabulary = {sign: byte for byte, sign in enumerate(_alphabet())}
  model = _bpe({**vocabulary, **special})
  named = {'bos_token': BOS, 'eos_token': EOS, 'pad_token': PAD}
  return _files(model, level, level, special, named)


def word_files(words: Sequence[str], eos: str) -> dict[str, bytes]:
  """Words between blanks, id = place; `eos` ends, fills, and is unknown ones.

  Args:
    words: distinct, without blanks.
    eos: one of them.
  """
  vocabulary = {word: place for place, word in enumerate(words)}
  model = {'type': 'WordLevel', 'vocab': vocabulary, 'unk_token': eos}
  split = {'type': 'WhitespaceSplit'}
  named = {'eos_token': eos, 'pad_token': eos, 'unk_token': eos}
  return _files(model, split, None, {}, named)


def character_files(
  pieces: Sequence[str], *, bos_id: int, eos_id: int, unk_id: int
) -> dict[str, bytes]:
  """Characters as SentencePiece writes them, bytes for those it does not have.

  A text is its characters, '▁' for a space and one before the first, also after
  a special token; BOS comes first. A BPE without merges, whose ids are the
  places of the pieces (Kudo and Richardson, SentencePiece: A Simple and
  Language Independent Subword Tokenizer, 2018, arXiv:1808.06226).

  Args:
    pieces: distinct; single characters, `<0x00>` to `<0xFF>` for bytes, and the
      special ones.
    bos_id, eos_id, unk_id: places of the special ones.

  Raises:
    ValueError: a piece that is there twice or is none of these, a place that no
      piece has.
  """
  places = {'bos': bos_id, 'eos': eos_id, 'unk': unk_id}
  _check_pieces(pieces, places)
  named = {name: pieces[place] for name, place in places.items()}
  vocabulary = {piece: place for place, piece in enumerate(pieces)}
  model = _bpe(vocabulary, unknown=named['unk'])
  spaces = {
    'type': 'Sequence',
    'normalizers': [
      {'type': 'Prepend', 'prepend': '▁'},
      {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '▁'},
    ],
  }
  decoder = {
    'type': 'Sequence',
    'decoders': [
      {'type': 'Replace', 'pattern': {'String': '▁'}, 'content': ' '},
      {'type': 'ByteFallback'},
      {'type': 'Fuse'},
      {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0},
    ],
  }
  first = {'SpecialToken': {'id': named['bos'], 'type_id': 0}}
  text, other = ({'Sequence': {'id': i, 'type_id': 0}} for i in 'AB')
  begins = {
    'type': 'TemplateProcessing',
    'single': [first, text],
    'pair': [first, text, other],
    'special_tokens': {
      named['bos']: {
        'id': named['bos'],
        'ids': [bos_id],
        'tokens': [named['bos']],
      }
    },
  }
  special = {pieces[place]: place for place in places.values()}
  tokens = {f'{name}_token': piece for name, piece in named.items()}
  return _files(
    model, None, decoder, special, tokens, normalizer=spaces, processor=begins
  )


def _bpe(
  vocabulary: dict[str, int], unknown: str | None = None
) -> dict[str, Any]:
  """No merges; what is not in the vocabulary falls back to bytes, if at all."""
  return {
    'type': 'BPE',
    'dropout': None,
    'unk_token': unknown,
    'continuing_subword_prefix': None,
    'end_of_word_suffix': None,
    'fuse_unk': unknown is not None,
    'byte_fallback': unknown is not None,
    'ignore_merges': False,
    'vocab': vocabulary,
    'merges': [],
  }


def _check_pieces(pieces: Sequence[str], places: dict[str, int]) -> None:
  for name, place in places.items():
    if not 0 <= place < len(pieces):
      raise ValueError(
        f'{name}_id={place} must be the place of one of {len(pieces)} pieces'
      )
  if len({*places.values()}) < len(places) or len({*pieces}) < len(pieces):
    raise ValueError('pieces must be distinct, and so must the special ones')
  in_bytes = {f'<0x{byte:02X}>' for byte in range(256)}
  missing = sorted(in_bytes - {*pieces})
  if missing:
    raise ValueError(f'pieces must hold all bytes, {missing[0]} is missing')
  known = in_bytes | {pieces[place] for place in places.values()}
  for piece in pieces:
    if piece not in known and len(piece) != 1:
      raise ValueError(f'pieces: {piece!r} must be one character')


def _files(
  model: dict[str, Any],
  pre_tokenizer: dict[str, Any] | None,
  decoder: dict[str, Any] | None,
  special: dict[str, int],
  named: dict[str, str],
  *,
  normalizer: dict[str, Any] | None = None,
  processor: dict[str, Any] | None = None,
) -> dict[str, bytes]:
  added = [
    {
      'id': number,
      'content': token,
      'single_word': False,
      'lstrip': False,
      'rstrip': False,
      'normalized': False,
      'special': True,
    }
    for token, number in special.items()
  ]
  tokenizer = {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': added,
    'normalizer': normalizer,
    'pre_tokenizer': pre_tokenizer,
    'post_processor': processor,
    'decoder': decoder,
    'model': model,
  }
  config = {'tokenizer_class': 'PreTrainedTokenizerFast', **named}
  config['clean_up_tokenization_spaces'] = False
  return {
    'tokenizer.json': json.dumps(tokenizer, ensure_ascii=False).encode(),
    'tokenizer_config.json': json.dumps(config, indent=2).encode(),
  }


def _alphabet() -> list[str]:
  """A printable character for every byte: itself, or one from U+0100 on."""
  printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
  others = iter(range(256, 512))
  return [
    chr(byte if byte in printable else next(others)) for byte in range(256)
  ]

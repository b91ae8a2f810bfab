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
  model = {
    'type': 'BPE',
    'dropout': None,
    'unk_token': None,
    'continuing_subword_prefix': None,
    'end_of_word_suffix': None,
    'fuse_unk': False,
    'byte_fallback': False,
    'ignore_merges': False,
    'vocab': {**vocabulary, **special},
    'merges': [],
  }
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


def _files(
  model: dict[str, Any],
  pre_tokenizer: dict[str, Any],
  decoder: dict[str, Any] | None,
  special: dict[str, int],
  named: dict[str, str],
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
    'normalizer': None,
    'pre_tokenizer': pre_tokenizer,
    'post_processor': None,
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

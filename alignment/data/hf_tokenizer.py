"""The tokenizer of a model folder: `tokenizer.json`, and whose ids are special.

Read with the library `tokenizers`; nothing in a folder is executed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.data.records import DataError
from alignment.data.tokenizers import Parts
from alignment.models.huggingface.family import ModelError
from alignment.models.huggingface.folder_files import file_inside, read_json

TOKENIZER, TOKENIZER_CONFIG = 'tokenizer.json', 'tokenizer_config.json'
SPECIAL_TOKENS = 'special_tokens_map.json'
MODEL_CONFIGS = ('generation_config.json', 'config.json')
OTHER_FORMATS = ('tokenizer.model', 'vocab.json', 'vocab.txt', 'tiktoken.model')
MAX_TOKENIZER = 2**27
"""Bytes; that of a vocabulary of 262,144 has about 2**25."""


class FolderTokenizer:
  """The tokenizer of a model folder; fulfils `tokenizers.Tokenizer`.

  Special ids, where the first source that names one decides:

  - BOS: what the post-processor of `tokenizer.json` puts before a text;
    `bos_token` of `tokenizer_config.json`, then of `special_tokens_map.json`;
    `bos_token_id` of `generation_config.json`, then of `config.json`; EOS, for
    families without one (GPT-2, Qwen).
  - EOS: `eos_token`, what the post-processor puts after a text, `eos_token_id`,
    of the same files.
  - padding: `pad_token`, `pad_token_id`, EOS.

  Ids of the model's configurations count where they are those of added tokens:
  a configuration may keep the default of its class, which is an ordinary token
  of another vocabulary.

  BOS is put before a prompt where the post-processor would put it there, or
  where `add_bos_token` of `tokenizer_config.json` says so (true or false, it
  overrules), unless the text begins with it already.

  Args:
    folder: of the model.
    vocab_size: rows of the model's embedding, where that is known: tokens of
      the tokenizer that have none are refused when a text holds them.

  Attributes:
    vocab_size, bos_id, eos_id, end_ids, pad_id, fingerprint: as `Tokenizer`;
      `end_ids` are EOS and every end that the model's configurations name.
    tokens: name -> text of the special tokens that are named, for templates.
    special: texts that are read as one special token wherever they stand.
    adds_bos: whether a prompt gets BOS.

  Raises:
    ModelError: no `tokenizer.json`, one that is broken, or files that
      contradict each other.
  """

  def __init__(
    self, folder: str | os.PathLike, *, vocab_size: int | None = None
  ):
    folder = pathlib.Path(folder)
    text = _tokenizer_text(folder)
    self._place = str(folder / TOKENIZER)
    self._tokenizer = _parsed(text, self._place)
    self._added = self._tokenizer.get_added_tokens_decoder()
    ids = self._tokenizer.get_vocab(with_added_tokens=True)
    self.vocab_size = max(ids.values(), default=-1) + 1
    config = _json(folder, TOKENIZER_CONFIG)
    _check_added(self._tokenizer, config, str(folder / TOKENIZER_CONFIG))
    self.tokens = _named_tokens(folder)
    self.special = tuple(t.content for t in self._added.values() if t.special)
    before, after = _surroundings(self._tokenizer, self._place)
    # It would trim the offsets, by which the end of the prompt is found.
    self._tokenizer.post_processor = None
    named = _named_ids(folder, self.tokens, ids)
    numbers = _model_ids(folder, self._added)
    self.eos_id = _first(named['eos'], after, *numbers['eos'])
    if self.eos_id is None:
      raise ModelError(
        str(folder),
        'names no token that ends a text',
        f'Write eos_token into {TOKENIZER_CONFIG}',
      )
    bos = _first(before, named['bos'], *numbers['bos'])
    self.bos_id = _first(bos, self.eos_id)
    self.pad_id = _first(named['pad'], *numbers['pad'], self.eos_id)
    self.end_ids = tuple(sorted({self.eos_id, *numbers['eos']}))
    said = config.get('add_bos_token')
    adds = said if isinstance(said, bool) else before is not None
    self.adds_bos = adds and bos is not None
    if vocab_size is not None:
      self._limit(vocab_size)
    special = (self.bos_id, self.end_ids, self.eos_id, self.pad_id)
    digest = hashlib.sha256(text + repr((special, self.adds_bos)).encode())
    self.fingerprint = f'folder-{digest.hexdigest()[:32]}'

  def _limit(self, vocab_size: int) -> None:
    ordinary = self.vocab_size - 1
    while ordinary in self._added:
      ordinary -= 1
    needed = max(self.bos_id, self.eos_id, self.pad_id, ordinary)
    if needed >= vocab_size:
      raise ModelError(
        self._place,
        f'has {self.vocab_size} tokens, such as '
        f'{self._tokenizer.id_to_token(needed)!r} with id {needed}; the model '
        f'has embeddings for {vocab_size}',
        'Take the tokenizer of the model, or a model of the tokenizer',
      )
    self.vocab_size = min(self.vocab_size, vocab_size)

  def encode(self, text: str) -> np.ndarray:
    """`[T]` int32 ids of the text; special tokens only where it spells them.

    Raises:
      DataError: a token that the model has no embedding for.
    """
    return self._ids(self._encoding(text))

  def encode_parts(self, prompt: str, completion: str) -> Parts:
    """Ids of `prompt + completion` as one text, cut where the prompt ends.

    The text is tokenised once and cut by the characters that each token covers
    in it, before normalisation. The prompt gets BOS where `adds_bos` says so.
    Where the completion ends with one of `end_ids` and nothing but white space
    after it (a template writes a line break there), it ends with the first of
    them and has no white space.

    Raises:
      DataError: a token that the model has no embedding for.
    """
    text = prompt + completion
    encoding = self._encoding(text)
    ids, offsets = self._ids(encoding), encoding.offsets
    end = len(prompt)
    cut = next(
      (i for i, (a, b) in enumerate(offsets) if a >= end or b > end),
      len(ids),
    )
    straddling = ''
    if cut < len(ids) and offsets[cut][0] < end:
      straddling = text[slice(*offsets[cut])]
    stop = self._end(ids, offsets, text, cut)
    head = ids[:cut]
    if self.adds_bos and not (len(head) and head[0] == self.bos_id):
      head = np.append(np.int32(self.bos_id), head)
    return Parts(head, ids[cut:stop], straddling)

  def decode(self, ids: np.ndarray) -> str:
    """The text; special ids, and ids without a token, say nothing."""
    silent = {self.bos_id, self.pad_id, *self.end_ids}
    plain = [int(i) for i in np.asarray(ids) if int(i) not in silent]
    return self._tokenizer.decode(plain, skip_special_tokens=True)

  def _encoding(self, text: str) -> Any:
    return self._tokenizer.encode(text, add_special_tokens=False)

  def _ids(self, encoding: Any) -> np.ndarray:
    ids = np.asarray(encoding.ids, np.int32)
    if len(ids) and ids.max() >= self.vocab_size:
      first = int(np.argmax(ids >= self.vocab_size))
      raise DataError(
        f'holds {encoding.tokens[first]!r}, token {ids[first]} of '
        f'{self._place}; the model has embeddings for {self.vocab_size}',
        'Remove it from the text',
      )
    return ids

  def _end(
    self,
    ids: np.ndarray,
    offsets: Sequence[tuple[int, int]],
    text: str,
    cut: int,
  ) -> int:
    """Where the completion ends: right after its first closing end, if any."""
    stop = len(ids)
    for i in range(len(ids) - 1, cut - 1, -1):
      if ids[i] in self.end_ids:
        stop = i + 1
      elif text[slice(*offsets[i])].strip():
        break
    return stop


def _tokenizer_text(folder: pathlib.Path) -> bytes:
  if not (folder / TOKENIZER).exists():
    others = [name for name in OTHER_FORMATS if (folder / name).exists()]
    beside = f' (there is {", ".join(others)})' if others else ''
    raise ModelError(
      str(folder),
      f'has no {TOKENIZER}{beside}',
      'Write it once where transformers is installed: AutoTokenizer.'
      'from_pretrained(folder, use_fast=True).save_pretrained(folder)',
    )
  path = file_inside(folder, TOKENIZER)
  with open(path, 'rb') as file:
    text = file.read(MAX_TOKENIZER + 1)
  if len(text) > MAX_TOKENIZER:
    raise ModelError(
      str(path), f'is longer than {MAX_TOKENIZER} bytes', 'Download it again'
    )
  return text


def _parsed(text: bytes, place: str) -> Any:
  # Loaded only where a folder is read.
  import tokenizers

  try:
    tokenizer = tokenizers.Tokenizer.from_str(text.decode('utf-8'))
  except Exception as error:  # The library raises nothing more special.
    raise ModelError(
      place, f'is no tokenizer ({error})', 'Download it again'
    ) from error
  # Budgets and padding are not the tokenizer's affair here.
  tokenizer.no_truncation()
  tokenizer.no_padding()
  return tokenizer


def _json(folder: pathlib.Path, name: str) -> Mapping[str, Any]:
  return read_json(folder, name) if (folder / name).exists() else {}


def _named_tokens(folder: pathlib.Path) -> dict[str, str]:
  """name, such as 'bos_token' -> text of the token."""
  named = {}
  for file in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
    for name, value in _json(folder, file).items():
      if not name.endswith('_token') or name in named:
        continue
      if isinstance(value, dict):
        value = value.get('content')
      if isinstance(value, str):
        named[name] = value
  return named


def _named_ids(
  folder: pathlib.Path, tokens: Mapping[str, str], ids: Mapping[str, int]
) -> dict[str, int | None]:
  """'bos', 'eos', 'pad' -> the id of the token that is named so, or None."""
  found = {}
  for name in ('bos', 'eos', 'pad'):
    token = tokens.get(f'{name}_token')
    if token is not None and token not in ids:
      raise ModelError(
        str(folder),
        f'{name}_token is {token!r}, which {TOKENIZER} does not have',
        f'Correct {TOKENIZER_CONFIG}, or download the folder again',
      )
    found[name] = ids.get(token)
  return found


def _check_added(tokenizer: Any, config: Mapping[str, Any], place: str) -> None:
  """The tokens that the configuration lists are those of the tokenizer."""
  listed = config.get('added_tokens_decoder', {})
  if not isinstance(listed, dict):
    raise ModelError(
      place, 'added_tokens_decoder is no object', 'Download it again'
    )
  for number, token in listed.items():
    text = token.get('content') if isinstance(token, dict) else token
    known = tokenizer.token_to_id(text) if isinstance(text, str) else None
    if str(known) != number:
      raise ModelError(
        place,
        f'lists the token {text!r} with id {number}, {TOKENIZER} has it with '
        f'id {known}',
        'Download both files again',
      )


def _surroundings(tokenizer: Any, place: str) -> tuple[int | None, int | None]:
  """The ids that the post-processor puts before and after a text, or None."""
  encoding = tokenizer.encode('a')
  added = np.asarray(encoding.special_tokens_mask)
  ids = encoding.ids
  inside = np.flatnonzero(added == 0)
  before = ids[: inside[0]] if len(inside) else ids
  after = ids[inside[-1] + 1 :] if len(inside) else []
  for found in (before, after):
    if len(found) > 1:
      raise ModelError(
        place,
        f'puts the tokens {[tokenizer.id_to_token(i) for i in found]} around '
        'every text',
        'At most one before and one after it are understood; take another '
        'model',
      )
  return (*before, None)[0], (*after, None)[0]


def _model_ids(
  folder: pathlib.Path, added: Mapping[int, Any]
) -> dict[str, list[int]]:
  """'bos', 'eos', 'pad' -> the ids of added tokens that configurations name."""
  found: dict[str, list[int]] = {'bos': [], 'eos': [], 'pad': []}
  for file in MODEL_CONFIGS:
    config = _json(folder, file)
    for name, ids in found.items():
      value = config.get(f'{name}_token_id')
      for number in value if isinstance(value, list) else [value]:
        if type(number) is int and number in added:
          ids.append(number)
  return found


def _first(*ids: int | None) -> int | None:
  return next((i for i in ids if i is not None), None)

"""Text to token ids and back: bytes for a model, hashed n-grams for a bag."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple, Protocol

import numpy as np

WORD = re.compile(r'\w+|[^\w\s]')


class Parts(NamedTuple):
  """A text as ids, cut in two.

  Attributes:
    prompt: `[P]` int32, the tokens that end where the prompt ends or before.
    completion: `[C]` int32, the rest, without an EOS that the text has not.
    straddling: what the first token of `completion` says where it begins before
      the end of the prompt; '' where the cut is at the end of the prompt.
  """

  prompt: np.ndarray
  completion: np.ndarray
  straddling: str = ''


class Tokenizer(Protocol):
  """What the rest of the library asks of a tokenizer.

  Attributes:
    vocab_size: ids lie in [0, vocab_size).
    bos_id: stands where there is no prompt.
    eos_id: ends a completion; None where completions are not sequences.
    end_ids: a completion that ends with one of these gets no other end.
    pad_id: fills; masks never come from it.
    fingerprint: equal where and only where all ids are equal; part of the key
      of everything that is cached.
  """

  vocab_size: int
  bos_id: int
  eos_id: int | None
  end_ids: tuple[int, ...]
  pad_id: int
  fingerprint: str

  def encode(self, text: str) -> np.ndarray:
    """`[T]` int32 ids of the text, no special ones."""

  def encode_parts(self, prompt: str, completion: str) -> Parts:
    """Ids of `prompt + completion` as one text, cut where the prompt ends.

    A token that begins in the prompt and ends in the completion belongs to the
    completion. The prompt with nothing after it is `encode_parts(prompt, '')`.
    """

  def decode(self, ids: np.ndarray) -> str:
    """The text; special ids say nothing."""


class ByteTokenizer:
  """UTF-8 bytes: id = byte, then BOS, EOS and padding; nothing is unknown."""

  vocab_size = 259
  bos_id = 256
  eos_id = 257
  end_ids = (257,)
  pad_id = 258
  fingerprint = 'bytes-259'

  def encode(self, text: str) -> np.ndarray:
    """`[T]` int32, one id per UTF-8 byte."""
    return np.frombuffer(text.encode('utf-8'), np.uint8).astype(np.int32)

  def encode_parts(self, prompt: str, completion: str) -> Parts:
    """Bytes never merge, so the parts are the whole."""
    return Parts(self.encode(prompt), self.encode(completion))

  def decode(self, ids: np.ndarray) -> str:
    """The text; a character cut in two by truncation reads as U+FFFD."""
    ids = np.asarray(ids)
    return bytes(ids[ids < 256].astype(np.uint8)).decode('utf-8', 'replace')


class HashedTokenizer:
  """Hashed bag of words: lower-cased unigrams and bigrams, each once.

  A feature's id is 1 + crc32(feature) mod (num_buckets − 1). Unigrams come
  first, then bigrams, each in the order of first appearance, so that a length
  budget gives up the last bigrams. Id 0 is no feature: it is the prompt (a bag
  does not look at it) and a text without words. There is no EOS: a bag does not
  end.

  Args:
    num_buckets: ≥ 2, the vocabulary.

  Raises:
    ValueError: fewer than 2 buckets.
  """

  eos_id = None
  end_ids = ()
  bos_id = 0
  pad_id = 0

  def __init__(self, num_buckets: int = 2**16):
    if num_buckets < 2:
      raise ValueError(f'num_buckets: {num_buckets} must be ≥ 2')
    self.vocab_size = num_buckets
    self.fingerprint = f'hashed-uni-bigrams-{num_buckets}'

  def encode(self, text: str) -> np.ndarray:
    """`[F]` int32, distinct feature ids; [0] where there is no word."""
    words = WORD.findall(text.lower())
    # A line break cannot be part of a word, so no unigram equals a bigram.
    pairs = ['\n'.join(pair) for pair in zip(words, words[1:], strict=False)]
    buckets = self.vocab_size - 1
    ids = [
      1 + zlib.crc32(feature.encode('utf-8')) % buckets
      for feature in words + pairs
    ]
    return np.asarray(list(dict.fromkeys(ids)) or [0], np.int32)

  def encode_parts(self, prompt: str, completion: str) -> Parts:
    """No ids for the prompt, the bag of the completion."""
    return Parts(np.zeros(0, np.int32), self.encode(completion))

  def decode(self, ids: np.ndarray) -> str:
    """The ids as numbers: hashing cannot be undone."""
    return ' '.join(f'#{i}' for i in np.asarray(ids) if i)


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
  """Refuses a tokenizer that a model has too few embeddings for.

  Args:
    tokenizer: text to ids.
    vocab_size: of the model.

  Raises:
    ValueError: an id that no row of the embedding belongs to.
  """
  if tokenizer.vocab_size > vocab_size:
    raise ValueError(
      f'vocab_size={vocab_size} must be ≥ {tokenizer.vocab_size}, the ids of '
      f'the tokenizer'
    )

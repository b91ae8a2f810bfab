"""What every contender of a benchmark is given: sizes, texts, settings.

Read by worker processes under any interpreter, so NumPy is all it needs.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Size(NamedTuple):
  """Shape of a Llama-like model: grouped-query attention, gated MLP, RMSNorm.

  Attributes:
    width: D.
    depth: layers.
    num_heads, num_kv_heads: of attention.
    head_dim: features of a head.
    mlp_width: hidden features of the MLP.
    vocab_size: V.
    tied_head: the head reads the embedding table.
  """

  width: int
  depth: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  vocab_size: int
  tied_head: bool


SIZES: dict[str, Size] = {
  'tiny': Size(16, 1, 2, 1, 8, 24, 64, False),
  's1': Size(256, 4, 8, 4, 32, 1024, 8192, False),
  'large': Size(512, 8, 8, 4, 64, 2048, 32000, False),
  '0.5b': Size(896, 24, 14, 2, 64, 4864, 151936, True),
  '1.7b': Size(2048, 28, 16, 8, 128, 6144, 151936, True),
}
"""Name -> sizes; the last two are those of Qwen2.5-0.5B and Qwen3-1.7B."""


@dataclasses.dataclass(frozen=True)
class Work:
  """One contender's settings, handed to its process as JSON.

  Attributes:
    side: whose code it is, a key of `worker.SIDES`.
    case: 'dpo', 'sft', 'forward' or 'decode'.
    size: key of `SIZES`.
    texts: the file of `save`.
    dtype: 'float32', or 'bfloat16' for the operands of matrix products (other
      libraries: autocast in training, else the weights).
    reference: how DPO gets its reference, 'in_step' or 'precomputed'.
    packing: key of PACKINGS; ours only.
    attention, remat: of `TransformerConfig`; ours only.
    lora: '' trains all weights; 'merged' and 'low_rank' train adapters, by
      `assemble` that merges them or by products beside the frozen weights.
    lora_rank: ≥ 1, of every adapter.
    new_tokens: ≥ 1, that decoding adds to every prompt.
    threads: cores the process may use; 0 leaves them all.
    cache_dir: where compiled programs are kept; '' keeps none.
  """

  side: str
  case: str
  size: str
  texts: str
  dtype: str = 'float32'
  reference: str = 'in_step'
  packing: str = 'packed'
  attention: str = 'auto'
  remat: bool = False
  lora: str = ''
  lora_rank: int = 16
  new_tokens: int = 128
  threads: int = 0
  cache_dir: str = ''

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_json(cls, text: str) -> Work:
    return cls(**json.loads(text))


class Side(NamedTuple):
  """What a library offers to a worker process.

  Attributes:
    step: (which batch) -> its loss or a token; returns when all is done.
    device: its name in words.
    packages: distributions whose versions are told.
    device_memory: the most bytes of the device used so far; None where the
      device is the host.
    matmul: (dtype, n) -> a call that multiplies two n × n matrices and waits.
    copy: (bytes) -> a call that reads and writes so many and waits.
  """

  step: Callable[[int], float]
  device: str
  packages: tuple[str, ...]
  device_memory: Callable[[], int | None]
  matmul: Callable[[str, int], Callable[[], Any]]
  copy: Callable[[int], Callable[[], Any]]


class Texts(NamedTuple):
  """Batches of preference pairs as token ids; B pairs in each of S batches.

  Attributes:
    lengths: `[S, B, 3]` of prompt, chosen and rejected.
    tokens: all of them end to end, in that order.
    reference_logps: `[S, B, 2]` of chosen and rejected, nats; drawn, as only
      their presence matters.
  """

  lengths: np.ndarray
  tokens: np.ndarray
  reference_logps: np.ndarray

  def batch(self, index: int) -> list[tuple[np.ndarray, ...]]:
    """(prompt, chosen, rejected) of every pair of a batch."""
    ends = np.cumsum(self.lengths).reshape(self.lengths.shape)
    return [
      tuple(
        self.tokens[end - length : end]
        for length, end in zip(*pair, strict=True)
      )
      for pair in zip(self.lengths[index], ends[index], strict=True)
    ]


def draw(
  *,
  num_batches: int,
  batch_size: int,
  sequence_length: int,
  vocab_size: int,
  seed: int = 0,
) -> Texts:
  """Pairs whose prompts and completions have log-normal lengths.

    prompt = exp(normal(log 0.27 T, ½)) in [2, T / 2]
    completion = exp(normal(log 0.3 T, ½)) in [1, T − prompt]

  with T the sequence length: about 0.6 T tokens a sequence on average, as real
  preference data is skewed.

  Args:
    num_batches: S.
    batch_size: B, pairs.
    sequence_length: T ≥ 4, that no prompt with its completion exceeds.
    vocab_size: ids are uniform in [1, vocab_size).
    seed: ≥ 0.
  """
  rng = np.random.default_rng(seed)
  shape = (num_batches, batch_size)

  def lengths(median: float, count: int, most: np.ndarray | int, least: int):
    drawn = rng.lognormal(np.log(median), 0.5, (*shape, count))
    return np.clip(np.rint(drawn), least, most).astype(np.int32)

  prompt = lengths(0.27 * sequence_length, 1, sequence_length // 2, 2)
  both = lengths(0.3 * sequence_length, 2, sequence_length - prompt, 1)
  drawn = np.concatenate([prompt, both], -1)
  return Texts(
    drawn,
    rng.integers(1, vocab_size, drawn.sum(), np.int32),
    (-np.log(vocab_size) * both).astype(np.float32),
  )


def save(path: pathlib.Path, texts: Texts) -> None:
  """Writes texts for the worker processes."""
  np.savez(path, **texts._asdict())


def load(path: str) -> Texts:
  with np.load(path, allow_pickle=False) as arrays:
    return Texts(**arrays)

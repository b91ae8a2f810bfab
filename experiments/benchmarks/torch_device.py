"""What a worker asks of torch: a model of given sizes, memory, peaks."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.workload import SIZES, Work

IGNORED = -100
"""Label of a position without loss."""


def prepare(work: Work) -> Any:
  """Imports torch, with as many threads as asked for, and returns it."""
  torch = importlib.import_module('torch')
  if work.threads:
    torch.set_num_threads(work.threads)
  return torch


def place() -> str:
  torch = importlib.import_module('torch')
  return 'cuda' if torch.cuda.is_available() else 'cpu'


def device() -> str:
  torch = importlib.import_module('torch')
  return torch.cuda.get_device_name() if place() == 'cuda' else 'cpu'


def device_memory() -> int | None:
  """Peak bytes allocated on the device; None on a host."""
  torch = importlib.import_module('torch')
  return torch.cuda.max_memory_allocated() if place() == 'cuda' else None


def wait() -> None:
  if place() == 'cuda':
    importlib.import_module('torch').cuda.synchronize()


def autocast(work: Work) -> contextlib.AbstractContextManager:
  """bfloat16 where the work asks for it, as trainers with bf16 do."""
  if work.dtype == 'float32':
    return contextlib.nullcontext()
  torch = importlib.import_module('torch')
  return torch.autocast(place(), torch.bfloat16)


def llama(work: Work) -> Any:
  """LlamaForCausalLM of the work's sizes with random weights."""
  transformers = importlib.import_module('transformers')
  size = SIZES[work.size]
  importlib.import_module('torch').manual_seed(0)
  model = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
      vocab_size=size.vocab_size,
      hidden_size=size.width,
      num_hidden_layers=size.depth,
      num_attention_heads=size.num_heads,
      num_key_value_heads=size.num_kv_heads,
      head_dim=size.head_dim,
      intermediate_size=size.mlp_width,
      tie_word_embeddings=size.tied_head,
      max_position_embeddings=2**15,
      bos_token_id=None,
      eos_token_id=None,
      pad_token_id=0,
    )
  )
  return model.to(place())


def padded(texts: list[np.ndarray], *, left: bool = False) -> tuple[Any, Any]:
  """Token ids `[n, T]` and mask, filled up with 0 on one side."""
  torch = importlib.import_module('torch')
  longest = max(map(len, texts))
  tokens = np.zeros((len(texts), longest), np.int64)
  mask = np.zeros_like(tokens)
  for row, text in enumerate(texts):
    where = slice(longest - len(text), None) if left else slice(len(text))
    tokens[row, where], mask[row, where] = text, 1
  return tuple(torch.from_numpy(x).to(place()) for x in (tokens, mask))


def updater(model: Any) -> Callable[[], None]:
  """AdamW after clipping, as the trainer of `transformers` does by default."""
  torch = importlib.import_module('torch')
  weights = [w for w in model.parameters() if w.requires_grad]
  optimizer = torch.optim.AdamW(weights, lr=1e-5, weight_decay=0.0, fused=True)

  def update() -> None:
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad()

  return update


def matmul(dtype: str, n: int) -> Callable[[], Any]:
  """A product of two n × n matrices."""
  torch = importlib.import_module('torch')
  left = torch.full((n, n), 1 / 3, dtype=getattr(torch, dtype), device=place())

  def product() -> None:
    torch.mm(left, left)
    wait()

  return product


def copy(num_bytes: int) -> Callable[[], Any]:
  """Reads and writes `num_bytes` in all."""
  torch = importlib.import_module('torch')
  source = torch.zeros(num_bytes // 8, device=place())
  target = torch.empty_like(source)

  def call() -> None:
    target.copy_(source)
    wait()

  return call

"""Work that a model asks for, by the usual conventions: FLOPs and bytes."""

from __future__ import annotations

from experiments.benchmarks.workload import Size, Texts, Work

BYTES = {'float32': 4, 'bfloat16': 2}


def matmul_params(size: Size) -> int:
  """N, weights that every token is multiplied by: projections and head.

  Embeddings are looked up and norms are vectors; neither counts.
  """
  attention = size.width * size.head_dim * 2
  attention *= size.num_heads + size.num_kv_heads
  mlp = 3 * size.width * size.mlp_width
  return size.depth * (attention + mlp) + size.vocab_size * size.width


def tokens(texts: Texts, case: str, new_tokens: int = 0) -> float:
  """T of an average batch.

  DPO and forward: the prompt counts for both completions, also where it is
  computed once. SFT: prompt and chosen. Decoding: new tokens only. Padding
  never counts.
  """
  prompt, chosen, rejected = texts.lengths.sum((0, 1))
  total = {
    'dpo': 2 * prompt + chosen + rejected,
    'forward': 2 * prompt + chosen + rejected,
    'sft': prompt + chosen,
    'decode': texts.lengths[..., 0].size * new_tokens,
  }
  return float(total[case]) / len(texts.lengths)


def flops_per_token(size: Size, work: Work) -> float:
  """Model FLOPs that one token is credited with.

    forward, decode, a reference in the step: 2 N
    training all weights: 6 N;  training adapters: 4 N (no weight gradients)

  Attention scores are not credited, nor what is computed twice.
  """
  n = matmul_params(size)
  if work.case in ('forward', 'decode'):
    return 2.0 * n
  training = (4.0 if work.lora else 6.0) * n
  in_step = work.case == 'dpo' and work.reference == 'in_step'
  return training + 2.0 * n * in_step


def decode_bytes(size: Size, texts: Texts, work: Work) -> float:
  """Bytes that decoding an average batch must at least read.

  For each of the new tokens all weights once, in `work.dtype`, and the keys
  and values so far of every prompt, float32.
  """
  weights = matmul_params(size) * BYTES[work.dtype]
  per_position = 2 * size.depth * size.num_kv_heads * size.head_dim * 4
  batches, batch_size, _ = texts.lengths.shape
  prompts = texts.lengths[..., 0].sum() / batches
  seen = prompts + batch_size * (work.new_tokens - 1) / 2
  return work.new_tokens * (weights + per_position * seen)

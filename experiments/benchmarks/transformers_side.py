"""The side of transformers: its Llama trained, scored and decoded plainly."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks import torch_device
from experiments.benchmarks.workload import Side, Work, load


def start(work: Work) -> Side:
  torch_device.prepare(work)
  return Side(
    CASES[work.case](work),
    torch_device.device(),
    ('torch', 'transformers'),
    torch_device.device_memory,
    torch_device.matmul,
    torch_device.copy,
  )


def _sft(work: Work) -> Callable[[int], float]:
  """The model's own loss on prompt and chosen, labels on the latter."""
  model = torch_device.llama(work).train()
  update = torch_device.updater(model)
  texts = load(work.texts)
  batches = []
  for index in range(len(texts.lengths)):
    pairs = texts.batch(index)
    tokens, mask = torch_device.padded([np.concatenate(p[:2]) for p in pairs])
    labels = tokens.masked_fill(mask == 0, torch_device.IGNORED)
    for row, pair in enumerate(pairs):
      labels[row, : len(pair[0])] = torch_device.IGNORED
    batches.append(
      {'input_ids': tokens, 'attention_mask': mask, 'labels': labels}
    )

  def take(index: int) -> float:
    with torch_device.autocast(work):
      loss = model(**batches[index % len(batches)], use_cache=False).loss
    loss.backward()
    update()
    value = loss.item()
    torch_device.wait()
    return value

  return take


def _forward(work: Work) -> Callable[[int], float]:
  """Log-probabilities of all completions from whole logits."""
  torch = importlib.import_module('torch')
  model = _in_its_type(work)
  texts = load(work.texts)
  batches = []
  for index in range(len(texts.lengths)):
    pairs = texts.batch(index)
    both = [(p[0], p[k]) for k in (1, 2) for p in pairs]
    tokens, mask = torch_device.padded([np.concatenate(x) for x in both])
    counted = mask.clone()
    for row, (prompt, _) in enumerate(both):
      counted[row, : len(prompt)] = 0
    batches.append((tokens, mask, counted))

  def score(index: int) -> float:
    tokens, mask, counted = batches[index % len(batches)]
    with torch.no_grad():
      logits = model(
        input_ids=tokens, attention_mask=mask, use_cache=False
      ).logits
      logps = torch.log_softmax(logits[:, :-1].float(), -1)
      found = logps.gather(-1, tokens[:, 1:, None])[..., 0] * counted[:, 1:]
    value = found.sum().item()
    torch_device.wait()
    return value

  return score


def _decode(work: Work) -> Callable[[int], float]:
  """Greedy `generate` from prompts padded on the left."""
  torch = importlib.import_module('torch')
  model = _in_its_type(work)
  texts = load(work.texts)
  batches = [
    torch_device.padded([pair[0] for pair in texts.batch(index)], left=True)
    for index in range(len(texts.lengths))
  ]

  def decode(index: int) -> float:
    tokens, mask = batches[index % len(batches)]
    with torch.no_grad():
      found = model.generate(
        tokens,
        attention_mask=mask,
        do_sample=False,
        min_new_tokens=work.new_tokens,
        max_new_tokens=work.new_tokens,
      )
    value = float(found[0, -1])
    torch_device.wait()
    return value

  return decode


def _in_its_type(work: Work) -> Any:
  """A model whose weights are of the type asked for, not only its products."""
  torch = importlib.import_module('torch')
  return torch_device.llama(work).eval().to(getattr(torch, work.dtype))


CASES: dict[str, Callable[[Work], Callable[[int], float]]] = {
  'sft': _sft,
  'forward': _forward,
  'decode': _decode,
}
"""Case -> (work) -> step."""

"""Which contenders a case has, and which of them are compared."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

from experiments import common
from experiments.benchmarks.workload import Work
from experiments.common import field
from experiments.report.timing import Figure

Dtype = Literal['float32', 'bfloat16']
SHORT = {'float32': 'f32', 'bfloat16': 'bf16'}


@dataclasses.dataclass(frozen=True)
class ModelConfig(common.Config):
  """The flags of cases that run a language model."""

  model_size: Literal['tiny', 's1', 'large', '0.5b', '1.7b'] = field(
    's1',
    'Shape of the model: s1 has width 256, 4 layers, vocabulary 8192; large '
    '512, 8, 32000; 0.5b and 1.7b are those of Qwen.',
  )
  sequence_length: int = field(
    128, 'Most tokens of a prompt with one completion.', within='[4, inf)'
  )
  batch_size: int = field(8, 'Pairs in a step.', within='[1, inf)')
  steps: int = field(20, 'Timed steps of a model.', within='[1, inf)')
  packing: tuple[Literal['packed', 'shared', 'padded'], ...] = field(
    ('packed',), 'How our batches are laid out.'
  )
  attention: tuple[
    Literal['auto', 'dense', 'blocks', 'splash', 'cudnn'], ...
  ] = field(('auto',), 'How we compute attention; results agree to rounding.')
  matmul_dtype: tuple[Dtype, ...] = field(
    ('float32', 'bfloat16'),
    'Operands of our matrix products; other libraries train under autocast, '
    'and score and decode with weights of this type.',
  )
  reference: tuple[Literal['in_step', 'precomputed'], ...] = field(
    ('in_step', 'precomputed'), 'How DPO gets its reference.'
  )
  remat: bool = field(
    False, 'Compute our layers again in the backward pass: less memory.'
  )
  lora: tuple[Literal['merged', 'low_rank'], ...] = field(
    (), 'Train adapters too, by these ways of applying them.'
  )
  lora_rank: int = field(16, 'Of every adapter.', within='[1, inf)')
  new_tokens: int = field(
    128, 'Decoded for every prompt of a batch.', within='[1, inf)'
  )
  threads: int = field(
    0, 'Cores of every contender; 0 leaves them all.', within='[0, inf)'
  )
  peer_python: tuple[str, ...] = field(
    (),
    'Interpreters of libraries that are installed elsewhere, such as '
    'tunix=/path/bin/python.',
  )


USES = {
  'packing': ('dpo', 'sft', 'forward', 'start_up'),
  'attention': ('dpo', 'sft', 'forward', 'start_up'),
  'reference': ('dpo',),
  'remat': ('dpo', 'sft'),
  'lora': ('dpo', 'sft'),
  'lora_rank': ('dpo', 'sft'),
  'new_tokens': ('decode',),
  'steps': ('dpo', 'sft', 'forward', 'decode'),
}
"""Flag -> the model cases that it changes; those left out change all."""

PEERS = {
  'dpo': {'trl': ('float32', 'bfloat16'), 'tunix': ('float32',)},
  'sft': {'transformers': ('float32', 'bfloat16')},
  'forward': {'transformers': ('float32', 'bfloat16')},
  'decode': {'transformers': ('float32', 'bfloat16')},
  'start_up': {'trl': ('float32',), 'tunix': ('float32',)},
}
"""Case -> other library -> the types it is measured in."""


def contenders(case: str, config: ModelConfig, texts: str) -> dict[str, Work]:
  """Name -> what it is to do; ours first.

  Args:
    case: 'dpo', 'sft', 'forward' or 'decode'.
    config: the flags.
    texts: the file of `workload.save`.
  """
  shared = {
    'case': case,
    'size': config.model_size,
    'texts': texts,
    'remat': config.remat and case in USES['remat'],
    'lora_rank': config.lora_rank,
    'new_tokens': config.new_tokens,
    'threads': config.threads,
  }
  references = config.reference if case == 'dpo' else ('in_step',)
  loras = ('', *config.lora) if case in USES['lora'] else ('',)
  is_laid_out = case != 'decode'
  packings = config.packing if is_laid_out else ('padded',)
  attentions = config.attention if is_laid_out else ('auto',)
  found = {}
  for packing, attention, lora, reference, dtype in itertools.product(
    packings, attentions, loras, references, config.matmul_dtype
  ):
    work = Work(
      'ours',
      **shared,
      packing=packing,
      attention=attention,
      lora=lora,
      reference=reference,
      dtype=dtype,
    )
    told = [packing] * (len(packings) > 1)
    told += [f'{attention} attention'] * (len(attentions) > 1)
    found[_name(work, told)] = work
  for peer, dtypes in PEERS[case].items():
    if peer not in config.peer:
      continue
    for lora, reference, dtype in itertools.product(
      ('', 'low_rank') if config.lora and peer == 'trl' else ('',),
      references if peer == 'trl' else ('in_step',),
      dtypes,
    ):
      if dtype in config.matmul_dtype:
        work = Work(peer, **shared, lora=lora, reference=reference, dtype=dtype)
        found[_name(work)] = work
  return found


def figures(works: dict[str, Work], floors: dict[str, float]) -> list[Figure]:
  """Every peer over ours of the same work, and all of ours over the first.

  Args:
    works: of `contenders`.
    floors: name of a peer's contender -> what the ratio has to reach.
  """
  ours = {name: work for name, work in works.items() if work.side == 'ours'}
  first, *others = ours
  compared = [Figure(first, other) for other in others]
  for name, work in works.items():
    same = [
      mine
      for mine, own in ours.items()
      if work.side != 'ours' and _alike(own) == _alike(work)
    ]
    least = floors.get(name, 0.0)
    compared += [Figure(name, mine, least=least) for mine in same]
  return compared


def floors(works: dict[str, Work], config: ModelConfig) -> dict[str, float]:
  """How many times as fast as others DPO is asked to be, by contender."""
  asked = {}
  for name, work in works.items():
    if work.case != 'dpo' or work.lora or config.batch_size != 8:
      continue
    what = config.model_size, config.sequence_length
    if what == ('s1', 128):
      asked[name] = _FLOORS.get((work.side, work.dtype, work.reference), 0.0)
    elif what in (('s1', 512), ('large', 128)) and work.side == 'trl':
      asked[name] = 1.5
  return asked


_FLOORS = {
  ('trl', 'float32', 'in_step'): 1.8,
  ('trl', 'bfloat16', 'in_step'): 2.5,
  ('trl', 'float32', 'precomputed'): 2.0,
  ('trl', 'bfloat16', 'precomputed'): 2.0,
  ('tunix', 'float32', 'in_step'): 2.2,
}


def _alike(work: Work) -> tuple:
  return work.dtype, work.reference, bool(work.lora)


def _name(work: Work, told: Sequence[str] = ()) -> str:
  parts = [f'{work.side} {SHORT[work.dtype]}']
  if work.case == 'dpo' and work.reference == 'precomputed':
    parts.append('precomputed')
  if work.lora:
    parts.append(
      f'LoRA {work.lora.replace("_", "-")}' if work.side == 'ours' else 'LoRA'
    )
  return ', '.join([*parts, *told])

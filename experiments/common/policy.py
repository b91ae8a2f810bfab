"""The flags of experiments that train a transformer on text or a task."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Literal

from alignment.models.huggingface.card import Provenance
from experiments.common import Config, MeshConfig, field, program


@dataclasses.dataclass(frozen=True)
class PolicyConfig(MeshConfig):
  """How much of a transformer is trained, and how it is computed."""

  lora_rank: int | None = field(
    None,
    'Rank of the adapters that are trained in place of the weights, which then '
    'are the reference too; 0 trains all weights. If not given: 0.',
    within='[0, inf)',
  )
  lora_alpha: float | None = field(
    None,
    'Adapters count alpha / rank times. If not given: twice the rank.',
    within='(0, inf)',
  )
  lora_path: Literal['low_rank', 'merged'] | None = field(
    None,
    'How adapters are applied: beside every weight, or added to it before it '
    'is used; results agree to rounding. If not given: low_rank.',
  )
  matmul_dtype: Literal['float32', 'bfloat16'] | None = field(
    None,
    'What weight matmuls multiply; they accumulate in float32, and all else is '
    'float32. If not given: float32.',
  )
  remat: bool | None = field(
    None,
    'Compute each layer again in the backward pass, to store less. If not '
    'given: false.',
  )


def provenance_of(
  data: str, model: str, command: str, noise: str = 'none added'
) -> Provenance:
  """What all policies of a run have in common, for their model cards.

  Args:
    data: the data set or task.
    model: the flag.
    command: that started the run.
    noise: what labels received.
  """
  own = model in ('transformer', 'hashed')
  base = '' if own else model
  return Provenance(data, noise, '', (), base_model=base, command=command)


def command(config: Config) -> str:
  """The command line of this config; flags at their default are left out."""
  given = []
  for f in dataclasses.fields(config):
    value = getattr(config, f.name)
    if value == f.default:
      continue
    entries = value if isinstance(value, tuple) else (value,)
    text = ','.join(map(str, entries))
    if isinstance(value, bool):
      text = text.lower()
    given.append(shlex.quote(f'--{f.name}={text}'))
  return ' '.join(['python -m', program(config), *given])

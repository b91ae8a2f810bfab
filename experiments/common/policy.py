"""The flags of experiments that train a transformer on text or a task."""

from __future__ import annotations

import dataclasses
from typing import Literal

from experiments.common import MeshConfig, field


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

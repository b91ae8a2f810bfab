"""A weight of a module, applied with the adapters that lie beside it."""

from __future__ import annotations

import flax.linen as nn

from alignment.models.lora import low_rank
from alignment.models.matmul import matmul
from alignment.types import Array


def project(
  module: nn.Module, name: str, inputs: Array, weight: Array, axes: int = 1
) -> Array:
  """inputs · weight, and inputs · a · b where `lora.attach` put adapters.

  Args:
    module: whose `config` says in what precision, and whose parameters may
      have an entry `lora`.
    name: of the weight.
    inputs: `[..., *contracted]`.
    weight: `[*contracted, *features]`.
    axes: how many axes are contracted.
  """
  matmul_dtype = module.config.matmul_dtype
  outputs = matmul(inputs, weight, matmul_dtype, axes=axes)
  if module.has_variable('params', 'lora'):
    adapted = module.get_variable('params', 'lora')
    if name in adapted:
      outputs += low_rank(inputs, adapted[name], matmul_dtype, axes)
  return outputs

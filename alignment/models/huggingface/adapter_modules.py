"""Where adapters of a folder's linear maps lie among ours.

A linear map of a folder may be one target of ours (`q_proj`: the query) or all
targets of a weight (`c_attn` of GPT-2, `query_key_value` of GPT-NeoX: query,
key and value). Which, and in what order its rows lie, is read off the weight
table of the family, by packing matrices that are 0 but for what is asked about.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.family import Family, Weight
from alignment.models.huggingface.table import weight_table
from alignment.models.lora import FUSED

_SLOTS = {'query': slice(None, -2), 'key': -2, 'value': -1, 'gate': 0, 'up': -1}
"""Where a target lies on the axis before the last of its weight."""


class Module(NamedTuple):
  """A linear map of a folder.

  Attributes:
    name: such as 'model.layers.3.self_attn.q_proj'.
    layer: of ours, such as 'layer_3'.
    targets: of ours that it computes, in their order.
    weight: of the family's table, that it is a tensor of.
    place: which of the tensors.
    transposed: the tensor is kept as `[in, out]`, not `[out, in]`.
  """

  name: str
  layer: str
  targets: tuple[str, ...]
  weight: Weight
  place: int
  transposed: bool

  @property
  def sizes(self) -> tuple[int, int]:
    """Features that go in, and that come out."""
    shape = self.weight.shapes[self.place]
    return shape if self.transposed else shape[::-1]


def modules_of(config: TransformerConfig, family: Family) -> list[Module]:
  """Every linear map of a model that adapters may change, in layer order."""
  found, seen = [], {}
  for weight in weight_table(config, family):
    layer, _, rest = weight.path.partition('/')
    targets = FUSED.get(rest)
    if targets is None:
      continue
    if rest == 'mlp/gate_up' and not config.gated:
      targets = ('up',)
    for place, name in enumerate(weight.names):
      if (rest, place) not in seen:  # layers are alike
        seen[rest, place] = (
          _targets_at(weight, place, targets),
          _is_transposed(weight, place),
        )
      own, transposed = seen[rest, place]
      name = name.removesuffix('.weight')
      found.append(Module(name, layer, own, weight, place, transposed))
  return found


def a_from(module: Module, lora_a: np.ndarray) -> np.ndarray:
  """Our `a` `[*inputs, r]` from `lora_A.weight` `[r, in]`."""
  if _reads_residual(module.weight):
    return lora_a.T
  theirs = _zeros(module.weight, lora_a.dtype)
  rows = _as_linear(module, theirs[module.place])
  rows[: len(lora_a)] = lora_a
  return module.weight.pack(*theirs)[..., : len(lora_a)]


def lora_a_from(module: Module, a: np.ndarray) -> np.ndarray:
  """`lora_A.weight` `[r, in]` from our `a` `[*inputs, r]`; undoes `a_from`."""
  if _reads_residual(module.weight):
    return a.T
  rank = a.shape[-1]
  ours = np.zeros((*a.shape[:-1], module.sizes[1]), a.dtype)
  ours[..., :rank] = a
  return _as_linear(module, module.weight.unpack(ours)[module.place])[:rank]


def b_from(module: Module, lora_b: np.ndarray) -> dict[str, np.ndarray]:
  """Target -> our `b` `[r, *outputs]`, from `lora_B.weight` `[out, r]`."""
  rank = lora_b.shape[1]
  if not _reads_residual(module.weight):
    return {module.targets[0]: lora_b.T}
  theirs = _zeros(module.weight, lora_b.dtype)
  _as_linear(module, theirs[module.place])[:, :rank] = lora_b
  ours = module.weight.pack(*theirs)[:rank]
  return {target: ours[..., _SLOTS[target], :] for target in module.targets}


def lora_b_from(module: Module, target: str, b: np.ndarray) -> np.ndarray:
  """`lora_B.weight` `[out, r]` of one target, 0 in the rows of the others."""
  rank = len(b)
  if not _reads_residual(module.weight):
    return b.T
  ours = module.weight.pack(*_zeros(module.weight, b.dtype))
  ours[:rank][..., _SLOTS[target], :] = b
  return _as_linear(module, module.weight.unpack(ours)[module.place])[:, :rank]


def _reads_residual(weight: Weight) -> bool:
  """Whether the hidden states go in; they come out of all other modules."""
  return weight.path.endswith(('/qkv', '/gate_up'))


def _targets_at(
  weight: Weight, place: int, targets: tuple[str, ...]
) -> tuple[str, ...]:
  if not _reads_residual(weight):
    return targets
  theirs = _zeros(weight, np.int8)
  theirs[place][:] = 1
  ours = weight.pack(*theirs)
  return tuple(t for t in targets if ours[..., _SLOTS[t], :].all())


def _is_transposed(weight: Weight, place: int) -> bool:
  theirs = _zeros(weight, np.int8)
  theirs[place][0] = 1  # an output's row is alike for all inputs
  ours = weight.pack(*theirs)
  axes = 1 if _reads_residual(weight) else ours.ndim - 1
  by_input = ours.reshape(np.prod(ours.shape[:axes]), -1)
  return bool((by_input[0] != by_input[-1]).any())


def _zeros(weight: Weight, dtype) -> list[np.ndarray]:
  return [np.zeros(shape, dtype) for shape in weight.shapes]


def _as_linear(module: Module, tensor: np.ndarray) -> np.ndarray:
  """The tensor as `[out, in]`."""
  return tensor.T if module.transposed else tensor

"""LoRA adapters in the folders of PEFT, in and out.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, whose
tensors are `base_model.model.<module>.lora_A.weight` `[r, in]` and
`….lora_B.weight` `[out, r]`; a module changes by scale · B · A
(https://huggingface.co/docs/peft/developer_guides/checkpoint).
"""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.adapter_modules import (
  Module,
  a_from,
  b_from,
  lora_a_from,
  lora_b_from,
  modules_of,
)
from alignment.models.huggingface.adapter_settings import (
  CONFIG,
  Settings,
  read_settings,
)
from alignment.models.huggingface.card import Provenance, model_card
from alignment.models.huggingface.family import Family, ModelError
from alignment.models.huggingface.folder_files import file_inside
from alignment.models.huggingface.new_folder import becoming, put, put_json
from alignment.models.huggingface.save import fetched
from alignment.models.huggingface.table import stacked_path
from alignment.models.huggingface.tensor_file import (
  read_header,
  read_tensor,
  write_tensors,
)
from alignment.models.lora import TARGETS, Lora
from alignment.models.stacking import unstack_layers
from alignment.types import PyTree

TENSORS = 'adapter_model.safetensors'
_PREFIX, _A, _B = 'base_model.model.', '.lora_A.weight', '.lora_B.weight'


class LoadedAdapters(NamedTuple):
  """Adapters read from a folder.

  Attributes:
    lora: rank, alpha and the targets that there are.
    adapters: a tree as `init_lora` makes it.
    base_model: what they were trained on; '' where the folder does not say.
  """

  lora: Lora
  adapters: PyTree
  base_model: str


def load_adapters(
  folder: os.PathLike | str, config: TransformerConfig, family: Family
) -> LoadedAdapters:
  """Reads adapters for a base that was read with `load_model`.

  The `lora_A` of a module that is several targets of ours (`c_attn`,
  `query_key_value`) becomes the `a` of each. Where modules have ranks or alphas
  of their own, what their scale differs by goes into `b`. Layers that are
  stacked get the highest rank of them all; what a layer lacks is 0 in a and b,
  which no gradient moves.

  Args:
    folder: with `adapter_config.json` and `adapter_model.safetensors`.
    config: of the base.
    family: of the base.

  Raises:
    ModelError: whatever is wrong with the folder; an option that is not plain
      LoRA; tensors other than those that `target_modules` asks for.
  """
  folder = pathlib.Path(folder)
  settings = read_settings(folder)
  if not os.path.lexists(folder / TENSORS):
    raise ModelError(
      str(folder),
      f'has no {TENSORS}',
      'Save the adapters as safetensors; pickles (.bin) are not read',
    )
  modules = {module.name: module for module in modules_of(config, family)}
  pairs = _read_pairs(folder, modules, family)
  _check_targets(settings, modules, set(pairs))
  lora = Lora(settings.rank, settings.alpha, rslora=settings.rslora)
  adapters: dict[str, dict[str, Any]] = {}
  for name, (lora_a, lora_b) in pairs.items():
    module, rank = modules[name], len(lora_a)
    a, change = a_from(module, lora_a), settings.scale(name, rank) / lora.scale
    own = adapters.setdefault(module.layer, {})
    for target, b in b_from(module, lora_b).items():
      scaled = b if change == 1 else b * np.float32(change)
      own[target] = {'a': jnp.asarray(a), 'b': jnp.asarray(scaled)}
  present = {target for own in adapters.values() for target in own}
  return LoadedAdapters(
    Lora(
      lora.rank,
      lora.alpha,
      tuple(target for target in TARGETS if target in present),
      lora.rslora,
    ),
    _stack(adapters, config.depth) if config.scan_layers else adapters,
    settings.base_model,
  )


def save_adapters(
  folder: os.PathLike | str,
  config: TransformerConfig,
  lora: Lora,
  adapters: PyTree,
  family: Family,
  *,
  provenance: Provenance,
) -> pathlib.Path:
  """Writes adapters that PEFT loads onto `provenance.base_model`.

  A module that is several targets of ours has one `lora_A`. Where these have
  the same `a` it is that; else those below one another, with blocks in `lora_B`
  and ranks that add up (`rank_pattern`), alpha grown so that the scale stays
  (`alpha_pattern`). The product is the same, exactly.

  Args:
    folder: that does not exist or is empty; its parent exists.
    config: of the base.
    lora: of the adapters.
    adapters: as `init_lora` makes them.
    family: of the base.
    provenance: for the card.

  Returns:
    The folder.

  Raises:
    ValueError: adapters that the base has no place for.
    ModelError: a folder that is not empty, NaN or infinity in the adapters, a
      disk that is full or cannot be written.
  """
  folder = pathlib.Path(os.path.abspath(folder))
  adapters = unstack_layers(jax.tree.map(fetched, adapters))
  modules = modules_of(config, family)
  places = {(m.layer, target) for m in modules for target in m.targets}
  for layer, own in adapters.items():
    for target in own:
      if (layer, target) not in places:
        raise ValueError(f'adapters={layer}/{target}: the base has no such map')
  pairs = {}
  for module in modules:
    own = adapters.get(module.layer, {})
    own = {t: own[t] for t in module.targets if t in own}
    if own:
      pairs[module.name] = _pair(module, own)
  if jax.process_index():
    return folder
  tensors = {
    f'{_PREFIX}{name}{end}': tensor
    for name, pair in sorted(pairs.items())
    for end, tensor in zip((_A, _B), pair, strict=True)
  }
  ranks = {name: len(lora_a) for name, (lora_a, _) in pairs.items()}
  with becoming(folder, sum(t.nbytes for t in tensors.values())) as temporary:
    said = _said(lora, ranks, modules, provenance.base_model)
    put_json(temporary / CONFIG, said)
    card = model_card(
      folder.name,
      provenance,
      f'LoRA of {family.architecture}',
      'float32',
      library='peft',
    )
    put(temporary / 'README.md', card.encode())
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    write_tensors(temporary / TENSORS, shapes, tensors.values())
  return folder


def _read_pairs(
  folder: pathlib.Path, modules: Mapping[str, Module], family: Family
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Module -> its lora_A and lora_B, float32; every tensor is used."""
  found: dict[str, dict[str, Any]] = {}
  path = file_inside(folder, TENSORS)
  for name, stored in read_header(path).items():
    end = next((end for end in (_A, _B) if name.endswith(end)), '')
    module = name.removeprefix(_PREFIX).removesuffix(end)
    if module not in modules:
      for pattern, replacement in family.renames:
        module = re.sub(pattern, replacement, module)
    if not name.startswith(_PREFIX) or not end or module not in modules:
      raise ModelError(
        str(path),
        f'tensor {name!r:.200} is no adapter of a linear map in the layers of '
        f'{family.architecture}',
        'Merge these adapters into their base with PEFT',
      )
    if end in found.setdefault(module, {}):
      raise ModelError(
        str(path), f'has {module}{end} twice', 'Save the adapters again'
      )
    found[module][end] = stored
  if not found:
    raise ModelError(str(path), 'holds no adapters', 'Save them again')
  pairs = {}
  for module, stored in found.items():
    inputs, outputs = modules[module].sizes
    shapes = [stored[end].shape if end in stored else None for end in (_A, _B)]
    rank = shapes[0][0] if shapes[0] else 0
    # More rank than features is never of use, and has no place in a table.
    fits = 0 < rank <= min(inputs, outputs)
    if not fits or shapes != [(rank, inputs), (outputs, rank)]:
      raise ModelError(
        str(path),
        f'{module} has A {shapes[0]} and B {shapes[1]}',
        f'Of this base they must be [r, {inputs}] and [{outputs}, r]',
      )
    pairs[module] = tuple(
      read_tensor(stored[end]).astype(np.float32) for end in (_A, _B)
    )
  return pairs


def _check_targets(
  settings: Settings, modules: Mapping[str, Module], found: set[str]
) -> None:
  """Refuses a file that has other modules than `target_modules` asks for."""
  if settings.target_modules is None:
    return
  asked = {
    name
    for name, module in modules.items()
    if settings.targets(name, stacked_path(module.weight.path)[1])
  }
  if asked != found:
    some = ', '.join(sorted(asked ^ found)[:4])
    raise ModelError(
      settings.place,
      f'target_modules and the tensors do not agree on {some}',
      'Take both files of one training, of this base',
    )


def _pair(
  module: Module, own: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
  """lora_A and lora_B of a module, from the adapters of its targets."""
  lora_bs = [lora_b_from(module, t, part['b']) for t, part in own.items()]
  first, *others = (part['a'] for part in own.values())
  if all(np.array_equal(first, other) for other in others):
    return lora_a_from(module, first), sum(lora_bs[1:], lora_bs[0])
  lora_as = [lora_a_from(module, part['a']) for part in own.values()]
  return np.concatenate(lora_as), np.concatenate(lora_bs, axis=1)


def _said(
  lora: Lora, ranks: Mapping[str, int], modules: Sequence[Module], base: str
) -> dict[str, Any]:
  """`adapter_config.json`."""
  others = {name: rank for name, rank in ranks.items() if rank != lora.rank}
  alphas = {
    name: _number(lora.scale * (math.sqrt(rank) if lora.rslora else rank))
    for name, rank in others.items()
  }
  names = [module.name for module in modules]
  return {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'r': lora.rank,
    'lora_alpha': _number(lora.alpha),
    'use_rslora': lora.rslora,
    'rank_pattern': _shortened(others, names),
    'alpha_pattern': _shortened(alphas, names),
    'target_modules': sorted(_shortened(dict.fromkeys(ranks), names)),
    'fan_in_fan_out': any(module.transposed for module in modules),
    'bias': 'none',
    'lora_dropout': 0.0,
    'inference_mode': True,
  }


def _shortened(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
  """Values by what follows the layer's number, where all layers agree."""
  ends = {name: re.split(r'\.\d+\.', name)[-1] for name in names}
  shortened = {}
  for name, value in values.items():
    alike = [n for n in names if ends[n] == ends[name]]
    agree = all(n in values and values[n] == value for n in alike)
    shortened[ends[name] if agree else name] = value
  return shortened


def _number(value: float) -> int | float:
  return int(value) if float(value).is_integer() else value


def _stack(adapters: Mapping[str, Any], depth: int) -> PyTree:
  """Layers on a first axis; zeros where one has less than the others."""
  targets = {target for own in adapters.values() for target in own}
  layers = [adapters.get(f'layer_{i}', {}) for i in range(depth)]

  def leaf(target: str, name: str) -> jax.Array:
    found = [own[target][name] if target in own else None for own in layers]
    shapes = [x.shape for x in found if x is not None]
    whole = np.zeros((depth, *map(max, zip(*shapes, strict=True))), np.float32)
    for place, x in enumerate(found):
      if x is not None:
        whole[place][tuple(map(slice, x.shape))] = x
    return jnp.asarray(whole)

  return {
    'layers': {
      target: {name: leaf(target, name) for name in ('a', 'b')}
      for target in TARGETS
      if target in targets
    }
  }

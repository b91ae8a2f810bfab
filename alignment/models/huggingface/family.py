"""What a model family is: a config mapping and a table of weight names."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignment.models.config import TransformerConfig


class ModelError(ValueError):
  """A model folder that cannot be used as it is: where, what, what to do."""

  def __init__(self, place: str, problem: str, remedy: str):
    super().__init__(f'{place}: {problem}. {remedy}.')
    self.place, self.problem, self.remedy = place, problem, remedy


class Weight(NamedTuple):
  """One parameter of ours and the tensors of a folder that it is made of.

  Attributes:
    path: of ours, such as 'layer_3/attention/qkv'.
    names: of theirs, such as 'model.layers.3.self_attn.q_proj.weight'.
    shapes: of theirs, one for each of `names`.
    pack: their tensors (numpy arrays) -> our array; only moves numbers.
    unpack: our array -> their tensors, the inverse of `pack`.
  """

  path: str
  names: tuple[str, ...]
  shapes: tuple[tuple[int, ...], ...]
  pack: Callable[..., np.ndarray]
  unpack: Callable[[np.ndarray], Sequence[np.ndarray]]


class Family(NamedTuple):
  """How models of one architecture are written in folders.

  Attributes:
    architecture: of `config.json`, such as 'LlamaForCausalLM'.
    model_type: of `config.json`, such as 'llama'.
    read: (config.json as a dictionary) -> our config; raises ModelError that
      names a field it cannot honour.
    write: our config -> the fields of `config.json` that describe it; raises
      ValueError naming what this family does not have.
    weights: our config -> the table, every parameter of the vocabulary model
      once (paths of unstacked layers).
    ignored: regular expressions of tensor names that hold nothing to learn
      (rotary tables, masks) and may be there.
    renames: regular expression and replacement, for `re.sub` on names found in
      a folder, of each other name that tensors go by ('wte.weight' of GPT-2
      folders is 'transformer.wte.weight'); names of the table stay.
    defaults: field of `config.json` that `read` honours -> what an absent one
      means.
    fixed: field that `read` honours with some values alone -> those, first
      what an absent one means.
  """

  architecture: str
  model_type: str
  read: Callable[[Mapping[str, Any]], TransformerConfig]
  write: Callable[[TransformerConfig], dict[str, Any]]
  weights: Callable[[TransformerConfig], list[Weight]]
  ignored: tuple[str, ...] = ()
  renames: tuple[tuple[str, str], ...] = ()
  defaults: Mapping[str, Any] = types.MappingProxyType({})
  fixed: Mapping[str, tuple] = types.MappingProxyType({})

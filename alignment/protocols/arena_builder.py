"""From flags to the function that builds the arenas of a seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from alignment.data.tokenizers import ByteTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig, plain_config
from alignment.protocols.arena import Arena
from alignment.protocols.ballot_arena import (
  BallotSizes,
  ballot_arena,
  ballot_origin,
)
from alignment.protocols.base_models import BaseModels
from alignment.protocols.folder_policies import folder_policy
from alignment.protocols.records_arena import (
  Policy,
  RecordSizes,
  records_arenas,
)
from alignment.protocols.records_policies import byte_policy, hashed_policy
from alignment.protocols.records_source import Source
from alignment.protocols.settings import lora_of
from alignment.tasks.ballot_grammar import VOCABULARY
from alignment.training.mesh import make_mesh, row_shards

_READING = (
  'max_prompt_length',
  'max_completion_length',
  'sft_steps',
  'sft_learning_rate',
)
_COMPUTING = ('matmul_dtype', 'remat')


def arena_builder(
  given: Mapping[str, Any],
  source: Source | None,
  base_models: Callable[[str], BaseModels | None],
) -> Callable[..., list[Arena]]:
  """(seed, writer=…, should_stop=…) -> the arenas of the seed.

  Args:
    given: flag -> value, those of `SETTINGS` filled in.
    source: of real preferences; None is the embedded task.
    base_models: text that says what params mean -> where starts are kept.

  Raises:
    ModelError: a model folder that cannot be used.
    ValueError: sizes that no transformer can have, or a mesh that is not there.
  """
  if source:
    return _records(given, source)
  return _ballot(given, base_models)


def _ballot(
  given: Mapping[str, Any], base_models: Callable[[str], BaseModels | None]
) -> Callable[..., list[Arena]]:
  transformer = transformer_of(given, len(VOCABULARY))
  build_one = functools.partial(
    ballot_arena,
    model=build(transformer),
    sizes=_sizes(given, BallotSizes),
    beta=given['beta'],
    lora=lora_of(given),
    origin=ballot_origin(transformer),
    base_models=base_models(repr(transformer)),
  )
  return lambda seed, **carrying: [build_one(seed, **carrying)]


def _records(
  given: Mapping[str, Any], source: Source
) -> Callable[..., list[Arena]]:
  mesh = make_mesh(given['mesh']) if given['mesh'] else None
  if given['model'] == 'hashed':
    policies = [hashed_policy(given['max_completion_length'])]
  else:
    policies = [text_policy(given, mesh), hashed_policy()]
  return functools.partial(
    records_arenas,
    policies=policies,
    records=source.records,
    sizes=_sizes(given, RecordSizes),
    mesh=mesh,
  )


def text_policy(given: Mapping[str, Any], mesh: Mesh | None) -> Policy:
  """The transformer that `--model` names, and how it reads --data.

  Args:
    given: flag -> value; a supervised start has its own, where it is to have
      one.
    mesh: where the weights of a folder are loaded to; None is one device.

  Raises:
    ModelError: a model folder that cannot be used.
    ValueError: sizes that no transformer can have, or lengths beyond a context.
  """
  asked = {name: given[name] for name in _READING if name in given}
  asked['lora'] = lora_of(given)
  if given['model'] == 'transformer':
    return byte_policy(transformer_of(given, ByteTokenizer.vocab_size), **asked)
  computing = {name: given[name] for name in _COMPUTING}
  return folder_policy(given['model'], mesh=mesh, **asked, **computing)


def _sizes(given: Mapping[str, Any], kind: type) -> Any:
  """`kind` with the flags that bear the names of its fields."""
  asked = {f.name: given.get(f.name) for f in dataclasses.fields(kind)}
  asked = {name: value for name, value in asked.items() if value is not None}
  return kind(**asked, row_multiple=row_shards(make_mesh(given['mesh'])))


def transformer_of(
  given: Mapping[str, Any], vocab_size: int
) -> TransformerConfig:
  """The transformer that is trained from scratch."""
  sizes = {name: given[name] for name in ('width', 'depth', 'num_heads')}
  computing = {name: given[name] for name in _COMPUTING}
  return dataclasses.replace(plain_config(vocab_size, **sizes), **computing)

"""Policies that start from a Hugging Face folder and read as it does."""

from __future__ import annotations

import functools
from typing import Any

from jax.sharding import Mesh

from alignment.data.chat_template import ChatTemplate
from alignment.data.folder_template import folder_template
from alignment.data.hf_tokenizer import FolderTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.huggingface.load import load_model
from alignment.models.huggingface.save import tokenizer_files
from alignment.models.lora import Lora
from alignment.protocols.policies import Origin
from alignment.protocols.records_arena import Policy
from alignment.protocols.records_draw import Reading
from alignment.training.mesh import param_shardings
from alignment.types import PyTree


def folder_policy(
  folder: str,
  *,
  max_prompt_length: int,
  max_completion_length: int,
  sft_steps: int = 0,
  sft_learning_rate: float = 3e-3,
  lora: Lora | None = None,
  mesh: Mesh | None = None,
  **overrides: Any,
) -> Policy:
  """A model folder's transformer, which reads by the folder's tokenizer.

  Args:
    folder: of Hugging Face.
    max_prompt_length, max_completion_length: tokens.
    sft_steps, sft_learning_rate: of the supervised start, from its weights.
    lora: adapters are trained; None: all parameters.
    mesh: where the weights are loaded to; None is one device.
    **overrides: of `load_model`.

  Raises:
    ModelError: whatever is wrong with the folder.
    ValueError: lengths that its context has no room for.
  """
  origin, params = read_folder(folder, mesh=mesh, **overrides)
  tokenizer = FolderTokenizer(folder, vocab_size=origin.config.vocab_size)
  template = folder_template(folder, tokenizer)
  check_context(origin.config, max_prompt_length, max_completion_length)
  return Policy(
    build(origin.config),
    Reading(tokenizer, max_prompt_length, max_completion_length, template),
    sft_steps,
    sft_learning_rate,
    params,
    origin,
    lora,
  )


def template_of(folder: str) -> ChatTemplate:
  """The chat template of a model folder, before its weights are read.

  Raises:
    ModelError, DataError: a tokenizer or a template that cannot be used.
  """
  return folder_template(folder, FolderTokenizer(folder))


def read_folder(
  folder: str,
  *,
  mesh: Mesh | None = None,
  **overrides: Any,
) -> tuple[Origin, PyTree]:
  """A model folder's origin and parameters.

  Args:
    folder: of Hugging Face.
    mesh: where the parameters are loaded to; None is one device.
    **overrides: of `load_model`.

  Raises:
    ModelError: whatever is wrong with the folder.
  """
  shardings = functools.partial(param_shardings, mesh=mesh) if mesh else None
  loaded = load_model(folder, shardings=shardings, **overrides)
  origin = Origin(
    loaded.config,
    {name: p.read_bytes() for name, p in tokenizer_files(folder).items()},
    loaded.token_ids,
    loaded.family.architecture,
    folder,
    is_start=True,
  )
  return origin, loaded.params


def check_context(
  config: TransformerConfig, max_prompt_length: int, max_completion_length: int
) -> None:
  """Refuses lengths that together exceed the positions of a model.

  Raises:
    ValueError: naming both flags and the context.
  """
  longest = max_prompt_length + max_completion_length
  if config.context and longest > config.context:
    raise ValueError(
      f'--max_prompt_length={max_prompt_length}, --max_completion_length='
      f'{max_completion_length}: together must be at most {config.context}, '
      'the context of the model'
    )

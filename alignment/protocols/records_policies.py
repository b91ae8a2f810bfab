"""Policies that read text: bytes from scratch, or a bag of hashed words."""

from __future__ import annotations

from alignment.data.tokenizers import ByteTokenizer, HashedTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.hashed import HashedConfig
from alignment.protocols.records_arena import Policy
from alignment.protocols.records_draw import Reading

HASHED_LENGTH = 256
"""Distinct words and word pairs of a completion; longer ones lose the last."""


def byte_policy(
  sizes: TransformerConfig,
  *,
  max_prompt_length: int,
  max_completion_length: int,
  sft_steps: int,
  sft_learning_rate: float,
) -> Policy:
  """A transformer on bytes.

  Args:
    sizes: of the transformer; its `vocab_size` is `ByteTokenizer.vocab_size`.
    max_prompt_length, max_completion_length: bytes.
    sft_steps, sft_learning_rate: of the supervised start.
  """
  reading = Reading(ByteTokenizer(), max_prompt_length, max_completion_length)
  return Policy(build(sizes), reading, sft_steps, sft_learning_rate)


def hashed_policy(max_completion_length: int = HASHED_LENGTH) -> Policy:
  """A linear Bradley-Terry reward on hashed words, from zero.

  Its start is the reference with reward 0, so that every loss that takes a
  reference fits β · (reward difference).

  Args:
    max_completion_length: features of a completion.
  """
  tokenizer = HashedTokenizer()
  model = build(HashedConfig(tokenizer.vocab_size))
  return Policy(model, Reading(tokenizer, None, max_completion_length))

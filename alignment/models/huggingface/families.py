"""The architectures whose folders are read and written."""

from __future__ import annotations

from alignment.models.huggingface.family import Family
from alignment.models.huggingface.gemma import GEMMA2, GEMMA3
from alignment.models.huggingface.gpt2 import GPT2
from alignment.models.huggingface.gpt_neox import GPT_NEOX
from alignment.models.huggingface.llama_like import (
  LLAMA,
  MISTRAL,
  QWEN2,
  QWEN3,
)

FAMILIES: dict[str, Family] = {
  family.architecture: family
  for family in (
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA2,
    GEMMA3,
    GPT2,
    GPT_NEOX,
  )
}
"""Architecture, as `config.json` calls it -> family."""

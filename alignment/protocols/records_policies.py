"""Policies that read text: bytes from scratch, or a bag of hashed words."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.data.tokenizer_files import byte_files
from alignment.data.tokenizers import ByteTokenizer, HashedTokenizer
from alignment.models.build import build
from alignment.models.config import TransformerConfig
from alignment.models.hashed import HashedConfig
from alignment.models.lora import Lora
from alignment.protocols.arena import Arena
from alignment.protocols.bakeoff import Grid
from alignment.protocols.contestants import Contestant
from alignment.protocols.labelling import Noise, noisy_labels
from alignment.protocols.policies import Origin
from alignment.protocols.records_arena import Policy
from alignment.protocols.records_draw import Reading
from alignment.protocols.rounds import Carrying, Job, train_jobs
from alignment.protocols.standings import Cell

HASHED = 'hashed words'
"""The role of the linear reference that stands beside a transformer."""
HASHED_LENGTH = 256
"""Distinct words and word pairs of a completion; longer ones lose the last."""


def byte_policy(
  sizes: TransformerConfig,
  *,
  max_prompt_length: int,
  max_completion_length: int,
  sft_steps: int = 0,
  sft_learning_rate: float = 3e-3,
  lora: Lora | None = None,
) -> Policy:
  """A transformer on bytes.

  Args:
    sizes: of the transformer; its `vocab_size` is `ByteTokenizer.vocab_size`.
    max_prompt_length, max_completion_length: bytes.
    sft_steps, sft_learning_rate: of the supervised start.
    lora: adapters are trained; None: all parameters.
  """
  reading = Reading(ByteTokenizer(), max_prompt_length, max_completion_length)
  return Policy(
    build(sizes),
    reading,
    sft_steps,
    sft_learning_rate,
    origin=byte_origin(sizes),
    lora=lora,
  )


def byte_origin(config: TransformerConfig) -> Origin:
  """What a transformer on bytes is besides its parameters."""
  ids = {n: getattr(ByteTokenizer, n) for n in ('bos_id', 'eos_id', 'pad_id')}
  return Origin(
    config,
    byte_files(),
    {name.replace('_id', '_token_id'): value for name, value in ids.items()},
  )


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


def train_reference(
  arenas: Sequence[Arena],
  flip_rates: Sequence[float],
  baseline: Contestant,
  grid: Grid,
  noise: Noise,
  carrying: Carrying,
) -> list[Cell]:
  """The baseline alone, of another policy on the same pairs and flips.

  Args:
    arenas: of that policy, one per seed.
    flip_rates: injected.
    baseline: what is trained.
    grid: its tuning budget.
    noise: what flips labels.
    carrying: how.

  Returns:
    One cell per arena and rate, of role `HASHED`.
  """
  jobs = [
    (arena, Job(rate, HASHED, baseline, labels, grid))
    for arena in arenas
    for rate in flip_rates
    for labels in [noisy_labels(arena, noise, rate)]
  ]
  return train_jobs(jobs, carrying, with_pairs=True)

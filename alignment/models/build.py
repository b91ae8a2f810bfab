"""From a config to its model."""

from __future__ import annotations

from alignment.models.config import TransformerConfig
from alignment.models.hashed import HashedConfig, hashed_reward
from alignment.models.model import Model
from alignment.models.transformer import transformer


def build(config: TransformerConfig | HashedConfig) -> Model:
  """The model that a config describes.

  Raises:
    ValueError: the config is of no known family.
  """
  if isinstance(config, TransformerConfig):
    return transformer(config)
  if isinstance(config, HashedConfig):
    return hashed_reward(config.num_buckets)
  raise ValueError(
    'config must be a TransformerConfig or a HashedConfig, '
    f'got {type(config).__name__}'
  )

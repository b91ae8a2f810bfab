"""The layer's function of one token alone."""

from __future__ import annotations

import functools

import flax.linen as nn

from alignment.models.config import TransformerConfig
from alignment.models.initial import fan_in
from alignment.models.projection import project
from alignment.types import Array

ACTIVATIONS = {
  'silu': nn.silu,
  'gelu': functools.partial(nn.gelu, approximate=False),
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
}


class MLP(nn.Module):
  """(activation(x · gate) ∗ (x · up)) · down, or activation(x · up) · down.

  One product makes both: `gate_up` is `[D, 2, mlp_width]`, or
  `[D, 1, mlp_width]` where nothing is gated.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    config = self.config
    parts = (2 if config.gated else 1, config.mlp_width)
    gate_up = self.param(
      'gate_up', fan_in(config.width), (config.width, *parts)
    )
    down = self.param(
      'down',
      fan_in(config.mlp_width * 2 * config.depth),
      (config.mlp_width, config.width),
    )
    projected = project(self, 'gate_up', inputs, gate_up)
    if config.mlp_bias:
      zeros = nn.initializers.zeros
      projected += self.param('gate_up_bias', zeros, parts)
    hidden = ACTIVATIONS[config.activation](projected[..., 0, :])
    if config.gated:
      hidden *= projected[..., 1, :]
    outputs = project(self, 'down', hidden, down)
    if config.mlp_bias:
      outputs += self.param('down_bias', zeros, (config.width,))
    return outputs

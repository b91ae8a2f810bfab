"""Normalisation of features: by their mean square, or by mean and variance."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from alignment.models.config import TransformerConfig
from alignment.types import Array, PyTree


def rms_norm(inputs: Array, scale: Array, config: TransformerConfig) -> Array:
  """x / √(mean x² + norm_eps) · (norm_offset + scale), over the last axis.

  Args:
    inputs: `[..., D]` float32.
    scale: of a shape that broadcasts against `inputs`.
    config: `norm_eps` and `norm_offset`.
  """
  mean_square = jnp.mean(inputs * inputs, axis=-1, keepdims=True)
  scale = config.norm_offset + scale.astype(jnp.float32)
  return inputs * (jax.lax.rsqrt(mean_square + config.norm_eps) * scale)


def normalise(
  inputs: Array, params: PyTree, config: TransformerConfig
) -> Array:
  """The norm of `config`; 'layer' is `rms_norm` of x − mean x, plus a bias.

  Args:
    inputs: `[..., D]` float32.
    params: `scale` `[D]`, and `bias` `[D]` of a 'layer' norm.
    config: which norm.
  """
  if config.norm == 'rms':
    return rms_norm(inputs, params['scale'], config)
  centred = inputs - jnp.mean(inputs, axis=-1, keepdims=True)
  return rms_norm(centred, params['scale'], config) + params['bias']


class Norm(nn.Module):
  """Holds the parameters of `normalise`, which starts without effect."""

  config: TransformerConfig

  @nn.compact
  def __call__(self, inputs: Array) -> Array:
    params = norm_params(self, self.config, inputs.shape[-1])
    return normalise(inputs, params, self.config)


def norm_params(
  module: nn.Module, config: TransformerConfig, width: int
) -> PyTree:
  """Declares `scale`, and the `bias` of a 'layer' norm, in `module`."""
  one = nn.initializers.constant(1.0 - config.norm_offset)
  params = {'scale': module.param('scale', one, (width,))}
  if config.norm == 'layer':
    params['bias'] = module.param('bias', nn.initializers.zeros, (width,))
  return params

"""Parameters by layer, or stacked for a scan over layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from alignment.types import PyTree


def stack_layers(params: PyTree) -> PyTree:
  """`layer_0`, `layer_1`, … as one `layers`, stacked on a first axis."""
  layers, rest = [], {}
  for index in range(sum(name.startswith('layer_') for name in params)):
    layers.append(params[f'layer_{index}'])
  for name, value in params.items():
    if not name.startswith('layer_'):
      rest[name] = value
  return rest | {'layers': jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def unstack_layers(params: PyTree) -> PyTree:
  """The inverse of `stack_layers`; parameters by layer stay as they are."""
  if 'layers' not in params:
    return params
  rest = {name: value for name, value in params.items() if name != 'layers'}
  depth = len(jax.tree.leaves(params['layers'])[0])
  for index in range(depth):
    layer = jax.tree.map(lambda x, i=index: x[i], params['layers'])
    rest[f'layer_{index}'] = layer
  return rest

"""Parameters stacked for a scan and taken apart again."""

import jax
import numpy as np

from alignment.models.stacking import stack_layers, unstack_layers
from alignment.models.transformer import transformer
from tests.models.trees import random_params, small_config


def test_stacks_in_the_order_of_the_layers():
  # Ten layers and more: the order of their names is another one.
  params = random_params(transformer(small_config(depth=11)))
  stacked = stack_layers(params)
  scanned = transformer(small_config(depth=11, scan_layers=True))
  shapes = jax.eval_shape(scanned.init, jax.random.key(0))
  assert jax.tree.map(np.shape, stacked) == jax.tree.map(np.shape, shapes)
  down = stacked['layers']['mlp']['down']
  np.testing.assert_array_equal(down[10], params['layer_10']['mlp']['down'])
  again = unstack_layers(stacked)
  jax.tree.map(np.testing.assert_array_equal, again, params)
  jax.tree.map(np.testing.assert_array_equal, unstack_layers(again), params)

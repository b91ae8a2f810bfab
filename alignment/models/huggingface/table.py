"""The parameters of a model beside the tensors of a folder they are made of."""

from __future__ import annotations

import dataclasses
import math

import jax

from alignment.models.config import TransformerConfig
from alignment.models.huggingface.family import Family, Weight
from alignment.models.transformer import transformer
from alignment.types import PyTree

REWARD_HEAD = 'score.weight'
"""`[1, D]`, of every …ForSequenceClassification."""

_LAYER = 'layer_'


def weight_table(config: TransformerConfig, family: Family) -> list[Weight]:
  """The table of the heads that `config` has: `Family.weights`, and rewards."""
  table = family.weights(dataclasses.replace(config, head='vocabulary'))
  if config.head == 'scalar':
    table = [weight for weight in table if weight.path != 'head']
  if config.head != 'vocabulary':
    table = [*table, _reward_head(config.width)]
  return table


def head_names(config: TransformerConfig, family: Family) -> set[str]:
  """How the tensors of a vocabulary head would be called, were it not tied."""
  untied = dataclasses.replace(config, head='vocabulary', tied_head=False)
  return {
    name
    for weight in family.weights(untied)
    if weight.path == 'head'
    for name in weight.names
  }


def numbers_in(weight: Weight) -> int:
  """How many numbers a parameter has."""
  return sum(math.prod(shape) for shape in weight.shapes)


def abstract_params(config: TransformerConfig) -> PyTree:
  """Shapes of the parameter tree; one layer is traced, whatever the depth."""
  one = dataclasses.replace(
    config,
    depth=1,
    window=None,
    windowed=None,
    local_rotary=None,
    scan_layers=False,
  )
  shapes = jax.eval_shape(transformer(one).init, jax.random.key(0))
  layer = shapes.pop(f'{_LAYER}0')
  if config.scan_layers:

    def stack(leaf):
      return jax.ShapeDtypeStruct((config.depth, *leaf.shape), leaf.dtype)

    return {**shapes, 'layers': jax.tree.map(stack, layer)}
  return {**shapes, **{f'{_LAYER}{i}': layer for i in range(config.depth)}}


def stacked_path(path: str) -> tuple[str, int]:
  """'layer_3/mlp/down' -> ('layers/mlp/down', 3); −1 where it is no layer's."""
  first, _, rest = path.partition('/')
  number = first.removeprefix(_LAYER)
  if first == number:
    return path, -1
  return f'layers/{rest}', int(number)


def by_path(tree: PyTree) -> dict[str, object]:
  """'layer_0/mlp/down' -> leaf, of a nested dictionary."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def nested(leaves: dict[str, object]) -> PyTree:
  """The nested dictionary of `by_path`."""
  tree: dict = {}
  for path, leaf in leaves.items():
    *parents, last = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def _reward_head(width: int) -> Weight:
  return Weight(
    'reward_head',
    (REWARD_HEAD,),
    ((1, width),),
    lambda score: score[0],
    lambda head: (head[None],),
  )

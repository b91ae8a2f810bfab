"""LoRA: a low-rank change of every projection, as a plain tree beside a base.

Nothing here knows a family: what there is to change is read from the base.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from alignment.models.matmul import matmul
from alignment.types import Array, Frozen, PyTree

FUSED = {
  'attention/qkv': ('query', 'key', 'value'),
  'attention/output': ('output',),
  'mlp/gate_up': ('gate', 'up'),
  'mlp/down': ('down',),
}
"""Weight of a layer -> the targets it holds, in their order along axis −2."""

TARGETS = ('query', 'key', 'value', 'output', 'gate', 'up', 'down')


@dataclasses.dataclass(frozen=True)
class Lora:
  """What adapters are trained, and how they are applied.

  Attributes:
    rank: ≥ 1.
    alpha: > 0; the change of a weight is `scale` · a · b.
    targets: names among `TARGETS`; None: all that the model has.
    rslora: scale = alpha / √rank instead of alpha / rank.
    path: 'low_rank' computes x · W + scale · (x · a) · b, and no gradient of
      W; 'merged' computes x · (W + scale · a · b), which needs a float32 copy
      of the weights and the product that their gradient costs, and loses small
      changes to rounding where matmuls are bfloat16. Equal but for rounding.

  Raises:
    ValueError: a value outside its range.

  Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021,
  arXiv 2106.09685; Kalajdzievski, "A Rank Stabilization Scaling Factor for
  Fine-Tuning with LoRA", 2023, arXiv 2312.03732.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] | None = None
  rslora: bool = False
  path: Literal['low_rank', 'merged'] = 'low_rank'

  def __post_init__(self):
    chosen = TARGETS if self.targets is None else self.targets
    wanted = {
      'rank': (isinstance(self.rank, int) and self.rank >= 1, 'an integer ≥ 1'),
      'alpha': (0 < self.alpha < math.inf, '> 0'),
      'targets': (
        len(chosen) > 0 and set(chosen) <= set(TARGETS),
        f'some of {TARGETS}',
      ),
      'path': (self.path in ('low_rank', 'merged'), "'low_rank' or 'merged'"),
    }
    for name, (holds, range_) in wanted.items():
      if not holds:
        value = getattr(self, name)
        raise ValueError(f'{name} must be {range_}, got {value!r}')

  @property
  def scale(self) -> float:
    """What a · b is multiplied by."""
    return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def init_lora(base: PyTree, lora: Lora, key: Array) -> PyTree:
  """Adapters that change nothing yet: b = 0.

    a ~ uniform(−1 / √inputs, 1 / √inputs)

  as in PEFT (Kaiming's bound for a slope of √5). What a target draws depends
  neither on the other targets nor on whether layers are stacked.

  Args:
    base: params of a transformer, or their shapes.
    lora: rank and targets.
    key: of the draws.

  Returns:
    layer ('layer_3', or 'layers' where they are stacked on a first axis) ->
    target -> {'a': `[*inputs, rank]`, 'b': `[rank, *outputs]`}, float32.
    Inputs are `[Hkv, G, F]` of the output, `[M]` of `down`, else `[D]`;
    outputs `[Hkv, G, F]` of the query, `[Hkv, F]` of key and value, `[M]` of
    gate and up, else `[D]`.

  Raises:
    ValueError: a base without layers, without one of the targets, or with a
      reward head, which would stay as it is.
  """
  if 'reward_head' in base:
    raise ValueError(
      'base: its reward head is no target of adapters and would not be '
      'trained; train all parameters'
    )
  keys = {
    target: jax.random.fold_in(key, index)
    for index, target in enumerate(TARGETS)
  }
  adapters = {}
  for name, layer in _layers(base).items():
    shapes = _shapes(layer)
    chosen = tuple(shapes) if lora.targets is None else lora.targets
    if not set(chosen) <= set(shapes):
      raise ValueError(
        f'targets must be among {tuple(shapes)}, which this model has, got '
        f'{chosen!r}'
      )
    places = _places(name, layer)
    adapters[name] = {
      target: _fresh(*shapes[target], lora.rank, keys[target], places)
      for target in shapes
      if target in chosen
    }
  return adapters


def merge(base: PyTree, adapters: PyTree, scale: float) -> PyTree:
  """The base with W + scale · a · b for every W; a tree like `base`.

  Weights that change become float32, whatever the base is stored in.

  Raises:
    ValueError: adapters of layers or targets that the base does not have.
  """

  def change(layer, module, weight, a, b):
    whole = layer[module][weight]
    times = jax.vmap(_times) if _stacked(layer) else _times
    return {weight: whole + scale * times(a, b)}

  return _changed(base, adapters, change)


def attach(base: PyTree, adapters: PyTree, scale: float) -> PyTree:
  """The base with the adapters beside its weights, for the low-rank path.

  Arrays of the base are taken over as they are. `attention` and `mlp` gain an
  entry `lora`, weight -> the `a` and scaled `b` of all its targets, that
  `low_rank` applies.

  Raises:
    ValueError: adapters of layers or targets that the base does not have.
  """

  def beside(layer, module, weight, a, b):
    before = layer[module].get('lora', {})
    return {'lora': {**before, weight: {'a': a, 'b': scale * b}}}

  return _changed(base, adapters, beside)


def low_rank(
  inputs: Array, part: Mapping[str, Array], matmul_dtype: str, axes: int = 1
) -> Array:
  """(inputs · a) · b.

  Args:
    inputs: `[..., *contracted]`.
    part: a and b of one weight, as `attach` leaves them.
    matmul_dtype: operands of the products.
    axes: how many axes are contracted.
  """
  low = matmul(inputs, part['a'], matmul_dtype, axes=axes)
  return matmul(low, part['b'], matmul_dtype)


PATHS = {'low_rank': attach, 'merged': merge}


def assembler(lora: Lora) -> Callable[[PyTree, Frozen], PyTree]:
  """(adapters, frozen) -> what the model applies; `frozen.models['base']`."""
  path = PATHS[lora.path]
  return lambda adapters, frozen: path(
    frozen.models['base'], adapters, lora.scale
  )


def _layers(base: PyTree) -> dict[str, PyTree]:
  """Name -> params of the layers of a transformer (one entry if stacked).

  Raises:
    ValueError: there are none: no transformer.
  """
  found = {
    name: layer
    for name, layer in base.items()
    if isinstance(layer, Mapping) and 'attention' in layer
  }
  if not found:
    raise ValueError(f'base: no layers to adapt, only {sorted(base)}')
  return found


def _stacked(layer: PyTree) -> bool:
  """Whether params of a layer are those of all layers on a first axis."""
  return len(layer['attention']['qkv'].shape) == 5


def _changed(base: PyTree, adapters: PyTree, change: Callable) -> PyTree:
  """The base with `change(layer, module, weight, a, b)` where adapters are."""
  whole, layers = dict(base), _layers(base)
  for name, own in adapters.items():
    if name not in layers or not set(own) <= set(_shapes(layers[name])):
      raise ValueError(
        f'adapters: {tuple(own)} of {name!r} have no place in a base with the '
        f'layers {tuple(layers)}'
      )
    layer = layers[name]
    whole[name] = dict(layer)
    for path, targets in FUSED.items():
      if set(targets) & set(own):
        module, _, weight = path.partition('/')
        a, b = _joined(layer, own, targets)
        new = change(whole[name], module, weight, a, b)
        whole[name][module] = {**whole[name][module], **new}
  return whole


def _times(a: Array, b: Array) -> Array:
  return matmul(a, b, 'float32')


def _joined(
  layer: PyTree, own: PyTree, targets: tuple[str, ...]
) -> tuple[Array, Array]:
  """a and b of all targets of one weight, b with the axes of the weight.

  Their ranks follow one another, and b is 0 but for blocks. One product with it
  multiplies zeros, which costs less than joining the products of each.
  """
  shapes = _shapes(layer)
  targets = tuple(target for target in targets if target in shapes)
  if targets[0] in ('output', 'down'):
    return own[targets[0]]['a'], own[targets[0]]['b']
  widths = [shapes[t][1][-2] if t == 'query' else 1 for t in targets]
  found_a, found_b, start = [], [], 0
  for target, width in zip(targets, widths, strict=True):
    if target in own:
      b = own[target]['b']
      b = b if target == 'query' else jnp.expand_dims(b, -2)
      padding = [(0, 0)] * b.ndim
      padding[-2] = (start, sum(widths) - start - width)
      found_a.append(own[target]['a'])
      found_b.append(jnp.pad(b, padding))
    start += width
  ranks = int(_stacked(layer))
  return jnp.concatenate(found_a, -1), jnp.concatenate(found_b, ranks)


def _shapes(layer: PyTree) -> dict[str, tuple[tuple[int, ...], ...]]:
  """Target -> (inputs, outputs) of one layer, those that the model has."""
  skip = int(_stacked(layer))
  width, heads, slots, features = layer['attention']['qkv'].shape[skip:]
  _, branches, hidden = layer['mlp']['gate_up'].shape[skip:]
  many, one = (heads, slots - 2, features), (heads, features)
  shapes = {
    'query': ((width,), many),
    'key': ((width,), one),
    'value': ((width,), one),
    'output': (many, (width,)),
    'gate': ((width,), (hidden,)),
    'up': ((width,), (hidden,)),
    'down': ((hidden,), (width,)),
  }
  if branches == 1:
    del shapes['gate']
  return shapes


def _places(name: str, layer: PyTree) -> Array:
  """Which of the layers these params are of: a number, or those stacked."""
  if _stacked(layer):
    return jnp.arange(layer['attention']['qkv'].shape[0])
  return jnp.asarray(int(name.removeprefix('layer_')))


def _fresh(
  inputs: tuple[int, ...],
  outputs: tuple[int, ...],
  rank: int,
  key: Array,
  places: Array,
) -> dict[str, Array]:
  size = math.prod(inputs)

  def draw(place: Array) -> Array:
    # Drawn flat: a draw with four axes compiles several times more slowly.
    drawn = jax.random.uniform(
      jax.random.fold_in(key, place), (size * rank,), jnp.float32, -1.0, 1.0
    )
    return drawn.reshape(*inputs, rank) * size**-0.5

  a = jax.vmap(draw)(places) if places.ndim else draw(places)
  return {'a': a, 'b': jnp.zeros((*places.shape, rank, *outputs), jnp.float32)}

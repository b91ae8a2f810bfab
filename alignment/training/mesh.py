"""Devices as a mesh, and where every array of a run lies on it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from alignment.training.step import check_rows
from alignment.types import Array, Batch, Frozen, PyTree, Step, TrainState

AXES = ('data', 'fsdp', 'tensor')
ROWS = PartitionSpec(('data', 'fsdp'))
"""Batches are split over both axes; parameters over fsdp and tensor."""

Rules = Sequence[tuple[str, PartitionSpec]]

TENSOR_RULES: Rules = (
  (r'attention/qkv$', PartitionSpec('tensor', None, None)),
  (r'attention/qkv_bias$', PartitionSpec('tensor', None, None)),
  (r'attention/output$', PartitionSpec('tensor', None, None, None)),
  (r'mlp/gate_up(_bias)?$', PartitionSpec('tensor')),
  (r'mlp/down$', PartitionSpec('tensor', None)),
  (r'(^|/)(embedding|head)$', PartitionSpec('tensor', None)),
  (r'query/b$', PartitionSpec('tensor', None, None)),
  (r'(key|value)/b$', PartitionSpec('tensor', None)),
  (r'(gate|up)/b$', PartitionSpec('tensor')),
  (r'output/a$', PartitionSpec('tensor', None, None, None)),
  (r'down/a$', PartitionSpec('tensor', None)),
)
"""Path pattern -> placement of the *last* dimensions, so that the same rule
serves layers stacked on a first axis."""


def make_mesh(spec: str = '') -> Mesh:
  """A mesh of `('data', 'fsdp', 'tensor')` from 'data=4,fsdp=2,tensor=1'.

  Axes left out are 1, one axis may be −1 and takes the devices that are left;
  '' is one device. In one process fewer devices than there are may be used;
  several processes must use all of theirs.

  Raises:
    ValueError: an unknown or repeated axis, a size that is no positive integer
      (or −1), or a product that the devices cannot serve.
  """
  sizes = dict.fromkeys(AXES, 1)
  seen = set()
  for part in filter(None, spec.replace(' ', '').split(',')):
    axis, _, size = part.partition('=')
    if axis not in AXES or axis in seen:
      raise ValueError(f'--mesh={spec}: want each of {AXES} at most once')
    if not re.fullmatch(r'-1|[1-9]\d*', size):
      raise ValueError(f'--mesh={spec}: {axis} must be ≥ 1 or -1, got {size!r}')
    seen.add(axis)
    sizes[axis] = int(size)
  devices = jax.devices()
  shape = _without_wildcard(spec, list(sizes.values()), len(devices))
  count = math.prod(shape)
  if count > len(devices) or (jax.process_count() > 1 and count < len(devices)):
    raise ValueError(
      f'--mesh={spec}: {count} devices asked for, {len(devices)} present'
    )
  # The default axis type is Explicit, which models written without sharding
  # annotations do not trace under.
  auto = (AxisType.Auto,) * len(AXES)
  grid = np.asarray(devices[:count]).reshape(shape)
  return Mesh(grid, AXES, axis_types=auto)


def state_shardings(
  state: TrainState,
  mesh: Mesh,
  *,
  rules: Rules = TENSOR_RULES,
  min_size: int = 2**16,
) -> TrainState:
  """Where every array of a state lies: a tree of `NamedSharding`.

  Parameters by `param_shardings`; arrays of the optimiser lie where the
  parameter of the same path and shape does; `extra` and the rest are
  replicated.
  """
  params = param_shardings(state.params, mesh, rules=rules, min_size=min_size)
  whole = NamedSharding(mesh, PartitionSpec())
  by_path = {
    _name(path): (leaf.shape, sharding)
    for (path, leaf), sharding in zip(
      jax.tree_util.tree_leaves_with_path(state.params),
      jax.tree.leaves(params),
      strict=True,
    )
  }

  def follow(path, leaf: Array) -> NamedSharding:
    for start in range(len(path)):
      shape, sharding = by_path.get(_name(path[start:]), (None, None))
      if shape == leaf.shape:
        return sharding
    return whole

  return TrainState(
    step=whole,
    params=params,
    opt_state=jax.tree_util.tree_map_with_path(follow, state.opt_state),
    extra=jax.tree.map(lambda _: whole, state.extra),
  )


def param_shardings(
  params: PyTree,
  mesh: Mesh,
  *,
  rules: Rules = TENSOR_RULES,
  min_size: int = 2**16,
) -> PyTree:
  """Where every parameter lies: path rules, then automatic FSDP.

  The first rule whose pattern is found in the path ('layer_0/mlp/down') places
  the last dimensions. Then, if the array has at least `min_size` elements, its
  largest dimension still free and divisible by the fsdp axis is split over it.
  A dimension that an axis does not divide stays whole.

  Args:
    params: arrays or their shapes.
    mesh: of `make_mesh`.
    rules: (pattern, placement of the last dimensions).
    min_size: elements below which FSDP is not worth a gather.
  """

  def place(path, leaf: Array) -> NamedSharding:
    name, ndim = _name(path), len(leaf.shape)
    axes = [None] * ndim
    for pattern, last in rules:
      if re.search(pattern, name):
        axes = [None] * (ndim - len(last)) + list(last)
        break
    axes = [
      axis if axis and size % mesh.shape[axis] == 0 else None
      for axis, size in zip(axes, leaf.shape, strict=True)
    ]
    free = [
      (size, -i)
      for i, size in enumerate(leaf.shape)
      if axes[i] is None and size and size % mesh.shape['fsdp'] == 0
    ]
    if free and math.prod(leaf.shape) >= min_size:
      axes[-max(free)[1]] = 'fsdp'
    return NamedSharding(mesh, PartitionSpec(*axes))

  return jax.tree_util.tree_map_with_path(place, params)


def jit_step(
  step: Step,
  mesh: Mesh | None = None,
  state_shardings: TrainState | None = None,
) -> Step:
  """The step, compiled for one device or for a mesh.

  The state given to it is donated: use the one it returns. Rows of the batch
  are split over (data, fsdp), metrics are replicated, and `frozen` is computed
  on where it lies (`place`).

  Args:
    step: of `make_step`.
    mesh: None runs where the arguments are.
    state_shardings: of the function of that name; None replicates the state.

  Raises:
    ValueError: `state_shardings` without a mesh. When called: rows that do not
      divide over data · fsdp.
  """
  if mesh is None:
    if state_shardings is not None:
      raise ValueError('state_shardings must be None without a mesh')
    return jax.jit(step, donate_argnums=0)
  whole = NamedSharding(mesh, PartitionSpec())
  rows = NamedSharding(mesh, ROWS)
  state = whole if state_shardings is None else state_shardings
  compiled = jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(state, None, rows, whole),
    out_shardings=(state, whole),
  )

  def checked(state: TrainState, frozen: Frozen, batch: Batch, key: Array):
    check_rows(batch, row_shards(mesh), 'data · fsdp of the mesh')
    return compiled(state, frozen, batch, key)

  return checked


def row_shards(mesh: Mesh) -> int:
  """How many parts the rows of a batch are split into."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def place(tree: PyTree, shardings: PyTree, *, copy: bool = True) -> PyTree:
  """Copies arrays that every process has whole to where they belong.

  Args:
    tree: arrays, equal on all processes.
    shardings: a prefix of the tree's structure.
    copy: False leaves arrays that lie there already, and may share memory with
      the rest: for what no step donates.
  """

  def put(sharding: NamedSharding, leaves: PyTree) -> PyTree:
    return jax.tree.map(lambda x: _put_whole(x, sharding, copy), leaves)

  return jax.tree.map(
    put, shardings, tree, is_leaf=lambda x: isinstance(x, NamedSharding)
  )


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
  """A batch on the mesh; each process gives the rows that its devices hold.

  Raises:
    ValueError: rows that do not divide over this process's share.
  """
  rows = NamedSharding(mesh, ROWS)
  shards = max(1, row_shards(mesh) // jax.process_count())
  check_rows(batch, shards, 'row shards of this process')
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)), batch
  )


def _put_whole(x: Array, sharding: NamedSharding, copy: bool) -> Array:
  if not copy and getattr(x, 'sharding', None) == sharding:
    return x
  if jax.process_count() == 1:
    return jax.device_put(x, sharding, may_alias=not copy)
  host = np.asarray(x)
  return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])


def _without_wildcard(spec: str, shape: list[int], present: int) -> list[int]:
  if shape.count(-1) > 1:
    raise ValueError(f'--mesh={spec}: at most one axis may be -1')
  if -1 in shape:
    rest = -math.prod(shape)
    if present % rest:
      raise ValueError(
        f'--mesh={spec}: {present} devices do not divide by {rest}'
      )
    shape[shape.index(-1)] = present // rest
  return shape


def _name(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')

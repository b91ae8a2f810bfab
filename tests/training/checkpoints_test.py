"""Checkpoints: what comes back, where it lands, and what is refused."""

import concurrent.futures
import os
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from alignment.training.checkpoints import CheckpointError, Checkpoints
from alignment.types import TrainState


def _tree(seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  params = {
    'head': {'kernel': jax.random.normal(keys[0], (16, 8))},
    'b.c/d': jax.random.normal(keys[1], (8,)).astype(jnp.bfloat16),
  }
  state = TrainState(
    step=jnp.int32(seed),
    params=params,
    opt_state=optax.adamw(1e-3).init(params),
    extra=(),
  )
  return {'state': state, 'key': keys[2], 'table': np.arange(5) + seed}


def _equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def checkpoints(tmp_path):
  made = Checkpoints(tmp_path / 'checkpoints')
  yield made
  made.close()


def test_a_directory_without_checkpoints_restores_nothing(checkpoints):
  assert checkpoints.restore(_tree()) is None
  assert checkpoints.steps() == []


def test_tree_and_metadata_come_back_as_they_were(checkpoints):
  metadata = {'seeds': [1, 2], 'loss': 'dpo', 'nested': {'epsilon': 0.2}}
  checkpoints.save(3, _tree(3), metadata)
  step, tree, restored = checkpoints.restore(_tree(0))
  assert step == 3 and restored == metadata
  _equal(tree, _tree(3))
  assert isinstance(tree['table'], np.ndarray)
  assert isinstance(tree['state'].step, jax.Array)
  # The key draws as before.
  assert jax.random.uniform(tree['key']) == jax.random.uniform(_tree(3)['key'])


def test_keys_of_another_kind_and_abstract_targets(checkpoints):
  keys = jax.random.split(jax.random.key(5, impl='rbg'), 3)
  checkpoints.save(0, {'keys': keys, 'x': jnp.ones((2, 3))})
  _, tree, _ = checkpoints.restore(
    jax.eval_shape(lambda: {'keys': keys, 'x': jnp.zeros((2, 3))})
  )
  _equal(tree, {'keys': keys, 'x': jnp.ones((2, 3))})
  assert jax.random.key_impl(tree['keys']) == 'rbg'


def test_the_newest_two_are_kept_and_a_new_object_sees_them(
  checkpoints, tmp_path
):
  for step in (1, 4, 9):
    checkpoints.save(step, _tree(step))
  checkpoints.wait()
  assert checkpoints.steps() == [4, 9]
  other = Checkpoints(tmp_path / 'checkpoints')
  assert other.restore(_tree())[0] == 9
  other.close()


def test_what_was_saved_may_be_donated_and_changed_at_once(checkpoints):
  tree = {'x': jnp.arange(200_000.0), 'y': np.arange(200_000)}
  expected = jax.tree.map(np.array, tree)
  checkpoints.save(1, tree)
  donating = jax.jit(
    lambda t: jax.tree.map(lambda a: a * 0, t), donate_argnums=0
  )
  donating({'x': tree['x']})
  tree['y'][:] = -1
  _equal(checkpoints.restore(expected)[1], expected)


def test_a_relative_directory_is_made_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  made = Checkpoints('relative')
  made.save(1, _tree(1))
  made.close()
  assert (tmp_path / 'relative' / '1').is_dir()


@pytest.mark.parametrize('step', [4, 5])
def test_a_step_that_is_not_newer_is_an_error(checkpoints, step):
  checkpoints.save(5, _tree(5))
  with pytest.raises(CheckpointError, match=rf'step {step} was not.*\[5\]'):
    checkpoints.save(step, _tree(5))


def test_a_restored_state_does_not_compile_again(checkpoints):
  step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state))
  state = {'x': jnp.zeros(3)}
  state = step(state)
  checkpoints.save(1, state)
  restored = checkpoints.restore(state)[1]
  step(restored)
  assert step._cache_size() == 1


def _sharded(tree, count):
  mesh = jax.make_mesh(
    (count,),
    ('fsdp',),
    axis_types=(AxisType.Auto,),
    devices=jax.devices()[:count],
  )
  specs = jax.tree.map(
    lambda x: PartitionSpec('fsdp') if x.ndim else PartitionSpec(), tree
  )
  return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


@pytest.mark.parametrize('counts', [(8, 1), (8, 2), (1, 2), (2, 8)])
def test_restore_on_another_device_count(checkpoints, counts):
  there, here = counts
  tree = {
    'kernel': jax.random.normal(jax.random.key(0), (16, 24)),
    'scale': jnp.float32(0.5),
    'keys': jax.random.split(jax.random.key(1), 8),
  }
  checkpoints.save(2, jax.device_put(tree, _sharded(tree, there)))
  shardings = _sharded(tree, here)
  target = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )
  restored = checkpoints.restore(target)[1]
  _equal(restored, tree)
  assert restored['kernel'].sharding == shardings['kernel']
  assert len(restored['kernel'].sharding.device_set) == here


def test_a_different_state_is_named_leaf_by_leaf(checkpoints):
  checkpoints.save(
    1, {'a': jnp.ones((2, 3)), 'b': jnp.ones(2), 'c': jnp.ones(1)}
  )
  target = {
    'a': jnp.ones((3, 2)),
    'b': jnp.ones(2, jnp.bfloat16),
    'd': jnp.ones(1),
  }
  with pytest.raises(ValueError) as error:
    checkpoints.restore(target)
  message = str(error.value)
  assert 'a: stored float32[2, 3], wanted float32[3, 2]' in message
  assert 'b: stored float32[2], wanted bfloat16[2]' in message
  assert 'd: not stored' in message and 'c: stored, not wanted' in message


@pytest.mark.parametrize(
  'tree, match',
  [
    ({'a': 'text'}, "leaf a is 'text', want an array"),
    ({'a': ()}, 'no leaves'),
    ({'a': {'b': np.ones(1)}, 'a/b': np.ones(1)}, 'two leaves are called a/b'),
  ],
)
def test_trees_that_cannot_be_saved(checkpoints, tree, match):
  with pytest.raises(ValueError, match=match):
    checkpoints.save(1, tree)


def test_keep_is_at_least_two(tmp_path):
  with pytest.raises(ValueError, match='keep must be ≥ 2, got 1'):
    Checkpoints(tmp_path, keep=1)


def _damage(step_directory: pathlib.Path, name: str, how) -> None:
  path = max(step_directory.rglob(name), key=lambda p: p.stat().st_size)
  path.write_bytes(how(path.read_bytes()))


def _flip(position):
  def flip(data):
    at = int(len(data) * position)
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

  return flip


# Large incompressible leaves: the file `d/<hash>` is mostly their bytes.
def _noise(seed):
  return {'x': jax.random.normal(jax.random.key(seed), (50_000,))}


@pytest.mark.parametrize(
  'name, how',
  [
    ('d/*', _flip(0.5)),
    ('d/*', _flip(0.3)),
    ('d/*', lambda data: data[: len(data) // 2]),
    ('d/*', lambda data: b''),
    ('record/metadata', lambda data: data.replace(b'0.25', b'0.35')),
    ('record/metadata', lambda data: data[:-20]),
    ('_METADATA', lambda data: data[: len(data) // 2]),
    ('tree/manifest.ocdbt', _flip(0.5)),
  ],
)
def test_damage_is_detected_and_the_step_before_restored(
  checkpoints, tmp_path, name, how
):
  directory = tmp_path / 'checkpoints'
  for step in (1, 2):
    checkpoints.save(step, _noise(step), {'rate': 0.25})
  checkpoints.wait()
  _damage(directory / '2', name, how)
  with pytest.warns(RuntimeWarning, match=r'/2: damaged \(.*to step 1'):
    step, tree, metadata = checkpoints.restore(_noise(0))
  assert step == 1 and metadata == {'rate': 0.25}
  _equal(tree, _noise(1))
  assert (directory / '2').is_dir()  # reading changed nothing
  checkpoints.save(2, _noise(7))  # the damaged step gives way
  assert checkpoints.restore(_noise(0))[0] == 2
  assert sorted(os.listdir(directory)) == ['1', '2', 'damaged-2']
  _equal(checkpoints.restore(_noise(0))[1], _noise(7))


def test_no_flipped_byte_of_the_values_goes_unnoticed(checkpoints, tmp_path):
  # Without the digest, Orbax returns wrong values for most positions.
  checkpoints.save(1, _noise(1))
  checkpoints.save(2, _noise(2))
  checkpoints.wait()
  files = [p for p in (tmp_path / 'checkpoints' / '2').rglob('d/*')]
  path = max(files, key=lambda p: p.stat().st_size)
  sound = path.read_bytes()
  for position in np.random.default_rng(0).uniform(size=12):
    path.write_bytes(_flip(position)(sound))
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      step, tree, _ = checkpoints.restore(_noise(0))
    # Right values of step 2 (the byte was in nobody's chunk) or of step 1.
    _equal(tree, _noise(step))
  path.write_bytes(sound)
  assert checkpoints.restore(_noise(0))[0] == 2


def test_when_nothing_restores_it_says_so_for_every_step(checkpoints, tmp_path):
  for step in (1, 2):
    checkpoints.save(step, _noise(step))
  checkpoints.wait()
  for step in ('1', '2'):
    _damage(tmp_path / 'checkpoints' / step, 'd/*', lambda data: b'')
  with pytest.raises(CheckpointError, match=r'step 2: .*step 1: .*move'):
    checkpoints.restore(_noise(0))


def test_threads_take_turns(tmp_path):
  """Overlapping saves of Orbax wait for each other's signals and fail."""

  def save_and_restore(number: int) -> list[float]:
    checkpoints = Checkpoints(tmp_path / str(number))
    tree = {f'leaf {i}': jnp.full(50, float(number + i)) for i in range(8)}
    for step in range(3):
      checkpoints.save(step, tree)
    found = checkpoints.restore(tree)[1]
    checkpoints.close()
    return [float(leaf[0]) - number for leaf in found.values()]

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for values in pool.map(save_and_restore, range(6)):
      assert values == list(range(8))

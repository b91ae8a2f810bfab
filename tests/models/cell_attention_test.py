"""Attention of padded cells gives what attention over all pairs gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.models import cell_attention
from alignment.models.attention import attend, sight
from tests.models.trees import random_batch

HEADS, PER_HEAD, FEATURES = 2, 3, 8


def _inputs(batch, seed=0):
  rng = np.random.default_rng(seed)
  shape = (*batch.tokens.shape, HEADS)
  query = rng.normal(size=(*shape, PER_HEAD, FEATURES))
  key, value = rng.normal(size=(2, *shape, FEATURES))
  return [jnp.asarray(x, jnp.float32) for x in (query, key, value)]


def _trees(batch):
  return batch.positions, batch.group, batch.branch


def _cells(batch, arrays, kernel, **options):
  """Through `cell_attend`, the kernels made to run here."""
  count = batch.completions.length.shape[-1]
  seen = cell_attention.cut_cells(*_trees(batch), count, kernel)
  return cell_attention.cell_attend(
    *arrays, seen, options.get('softcap'), options.get('window')
  )


@pytest.fixture(autouse=True)
def _here(monkeypatch):
  """cuDNN's arguments go to XLA in float32, splash is interpreted."""
  lengths, segments = cell_attention.by_lengths, cell_attention.by_segments
  monkeypatch.setattr(
    cell_attention,
    'by_lengths',
    lambda *a: lengths(*a, implementation='xla', dtype=jnp.float32),
  )
  monkeypatch.setattr(
    cell_attention, 'by_segments', lambda *a: segments(*a, interpret=True)
  )


@pytest.mark.parametrize(
  ('kernel', 'options'),
  [
    ('cudnn', {}),
    ('cudnn', {'window': 3}),
    pytest.param('splash', {}, marks=pytest.mark.slow),
    pytest.param(
      'splash', {'window': 3, 'softcap': 0.7}, marks=pytest.mark.slow
    ),
  ],
  ids=str,
)
def test_text_sees_what_it_sees_in_the_whole_row(kernel, options):
  _, batch = random_batch('padded')
  arrays = _inputs(batch)
  real = np.asarray(batch.group > 0)
  assert not real.all(axis=1).any()  # every row has padding
  cotangent = jnp.asarray(
    np.random.default_rng(1).normal(size=arrays[0].shape)
    * real[..., None, None, None],
    jnp.float32,
  )

  def dense(*arrays):
    seen = sight(*_trees(batch), attention='dense')
    return attend(*arrays, seen, scale=1.0, **options)

  wanted, pull = jax.vjp(dense, *arrays)
  got, pull_cells = jax.vjp(
    lambda *arrays: _cells(batch, arrays, kernel, **options), *arrays
  )
  np.testing.assert_allclose(
    np.asarray(got)[real], np.asarray(wanted)[real], rtol=1e-5, atol=1e-5
  )
  assert np.isfinite(got).all()
  for one, other in zip(pull_cells(cotangent), pull(cotangent), strict=True):
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('packing', ['shared', 'packed'])
def test_rows_of_trees_are_nan(packing):
  _, batch = random_batch(packing)
  seen = cell_attention.cut_cells(*_trees(batch), 1, 'cudnn')
  out = cell_attention.cell_attend(*_inputs(batch), seen, None, None)
  trees = np.asarray((batch.branch > 1).any(axis=1))
  assert trees.any()
  assert np.isnan(out)[trees].all()


def test_a_row_of_trees_is_nan_and_only_it():
  _, batch = random_batch('padded')
  branch = np.array(batch.branch)
  branch[0] *= 2
  out = _cells(batch.replace(branch=branch), _inputs(batch), 'cudnn')
  assert np.isnan(out[0]).all()
  assert np.isfinite(out[1:]).all()


def test_refusals_name_what_is_wrong():
  _, batch = random_batch('padded')
  with pytest.raises(ValueError, match="'splash': runs on tpu, this is cpu"):
    sight(*_trees(batch), cells=2, attention='splash')
  with pytest.raises(ValueError, match="are not 5 equal cells; .*'padded'"):
    cell_attention.cut_cells(
      *(x[:, : x.shape[1] // 5 * 5 - 1] for x in _trees(batch)), 5, 'cudnn'
    )
  arrays = _inputs(batch)
  with pytest.raises(ValueError, match='scan_layers must be False'):
    _cells(batch, arrays, 'splash', window=jnp.int32(3))
  with pytest.raises(ValueError, match='knows no attention_softcap'):
    _cells(batch, arrays, 'cudnn', softcap=3.0)

"""Bake-offs whose contestants train adapters of one start."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from alignment.models.config import plain_config
from alignment.models.lora import Lora
from alignment.models.transformer import transformer
from alignment.protocols import bakeoff
from alignment.protocols.bakeoff import Grid, Labels, tune
from alignment.protocols.contestants import Contestant
from alignment.protocols.kept_policies import whole
from alignment.training.mesh import make_mesh
from tests.protocols.arenas import STEPS, toy_arena
from tests.roles.worlds import VOCAB

MODEL = transformer(plain_config(VOCAB, width=8, depth=1, num_heads=2))
DPO = Contestant('dpo', None, 'mean', (('beta', 0.5),))
GRID = Grid((0.05,), (STEPS,))


def arena_of(path: str = 'low_rank'):
  lora = Lora(2, 4.0, ('query', 'up', 'down'), path=path)
  return toy_arena(row_multiple=4, model=MODEL, lora=lora)


@functools.cache
def tuned(path: str, spec: str | None = None):
  """The arena, and the adapters that were trained in it."""
  arena, kept = arena_of(path), []
  flips = np.random.default_rng(0).random(70) < 0.3
  tune(
    DPO,
    arena,
    Labels(flips[:40], flips[40:], np.ones(40)),
    GRID,
    keep=lambda stop, trained: kept.append(trained),
    mesh=make_mesh(spec) if spec else None,
  )
  return arena, kept[0]


def margins(arena, trained):
  params = whole(arena, trained)
  return bakeoff.margins(DPO, arena, arena.test, params)


def test_what_is_kept_are_adapters_of_an_untouched_start():
  arena, kept = tuned('low_rank')
  again = arena_of().start
  jax.tree.map(np.testing.assert_array_equal, arena.start, again)
  shapes = jax.tree.map(np.shape, arena.trained())
  assert jax.tree.map(np.shape, kept) == shapes
  assert set(kept['layer_0']) == {'query', 'up', 'down'}
  moved = [
    bool(part['b'].any()) and not np.array_equal(part['a'], start['a'])
    for part, start in zip(
      kept['layer_0'].values(), arena.trained()['layer_0'].values(), strict=True
    )
  ]
  assert all(moved)


@pytest.mark.parametrize(
  'other',
  [
    ('merged', None),
    pytest.param(
      ('low_rank', 'data=2,fsdp=2'),
      marks=pytest.mark.skipif(
        jax.device_count() < 8, reason='needs eight devices'
      ),
    ),
  ],
  ids=['merged', 'mesh'],
)
def test_paths_and_devices_come_to_the_same(other):
  wanted, found = margins(*tuned('low_rank')), margins(*tuned(*other))
  assert np.abs(wanted).max() > 0.1  # those of the start are 0
  # Six steps of Adam, which make much of roundings where gradients are small.
  np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_opening_loss_of_adapters_is_exact():
  measured, exact = bakeoff.opening_loss(DPO, arena_of())
  np.testing.assert_allclose([measured, exact], np.log(2), rtol=1e-5)


def test_seeds_draw_other_adapters():
  arenas = [toy_arena(seed, model=MODEL, lora=Lora(2, 4.0)) for seed in (0, 1)]
  a, b = (arena.trained()['layer_0']['query']['a'] for arena in arenas)
  assert not np.array_equal(a, b)

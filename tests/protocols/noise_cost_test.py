"""Variants of a step: they train, and each is what its name says."""

import jax
import numpy as np
import pytest

from alignment.data import pipeline
from alignment.data.layout import Group, fill_reference
from alignment.protocols.bakeoff import compiled_step, fresh_state
from alignment.protocols.noise_cost import PLAIN, SAME, step_variants
from alignment.types import Frozen
from tests.roles.worlds import MODEL, VOCAB


@pytest.mark.slow
def test_variants_take_the_same_steps_on_other_labels():
  variants = step_variants(width=8, depth=1, batch_size=8, length=6, steps=2)
  assert next(iter(variants)) == PLAIN
  found = {name: call() for name, call in variants.items()}
  losses = {name: float(m['loss'].mean()) for name, m in found.items()}
  assert all(np.isfinite(value) for value in losses.values())
  assert losses[SAME] == losses[PLAIN]
  assert len(set(losses.values())) == len(losses) - 1
  # A call goes on where the last one stopped: the work is done every time.
  again = {
    name: float(call()['loss'].mean()) for name, call in variants.items()
  }
  for name, value in again.items():
    assert value != losses[name], name
  jax.block_until_ready(found)


def _arithmetic(loss: str, batch) -> np.ndarray:
  """Operations and bytes of the compiled step, as the compiler counts them."""
  state = fresh_state(MODEL.init(jax.random.key(0)), 1e-3)
  lowered = compiled_step(MODEL, loss, 'mean').lower(
    state, Frozen(), batch, jax.random.key(0)
  )
  cost = lowered.compile().cost_analysis()
  return np.array([cost['flops'], cost['bytes accessed']])


@pytest.mark.slow
@pytest.mark.parametrize('loss', ['rdpo', 'forward', 'soft_label', 'gce'])
def test_robust_losses_add_a_few_operations_per_pair(loss):
  """Times are disturbed by the machine, the compiler's counts are not."""
  rng = np.random.default_rng(0)
  groups = [
    Group(
      rng.integers(1, VOCAB, 4).astype(np.int32),
      tuple(rng.integers(1, VOCAB, (2, 6)).astype(np.int32)),
      index,
    )
    for index in range(16)
  ]
  (batch,) = pipeline.batches(groups, batch_size=16, seed=0, num_epochs=1)
  batch = fill_reference(batch, np.full((16, 2), -9.0))
  plain, robust = _arithmetic(PLAIN, batch), _arithmetic(loss, batch)
  flops, moved = (robust - plain) / 16
  # A step of the smallest transformer takes 10⁶ per pair.
  assert flops < 1000 and moved < 10_000

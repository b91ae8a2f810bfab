"""Variants of a step: they train, and each is what its name says."""

import jax
import numpy as np

from alignment.protocols.noise_cost import PLAIN, step_variants


def test_variants_take_the_same_steps_on_other_labels():
  variants = step_variants(width=8, depth=1, batch_size=8, length=6, steps=2)
  assert next(iter(variants)) == PLAIN
  found = {name: call() for name, call in variants.items()}
  losses = {name: float(m['loss'].mean()) for name, m in found.items()}
  assert all(np.isfinite(value) for value in losses.values())
  assert len(set(losses.values())) == len(losses)
  # A call goes on where the last one stopped: the work is done every time.
  again = {
    name: float(call()['loss'].mean()) for name, call in variants.items()
  }
  for name, value in again.items():
    assert value != losses[name], name
  jax.block_until_ready(found)

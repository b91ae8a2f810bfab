"""Draws that belong to an example."""

import jax
import numpy as np
from scipy import stats

from alignment.noise.corruption import draws


def test_a_draw_depends_on_key_stream_and_index_alone():
  index = np.array([5, 2**32 - 1, 0, 77, 5])
  key = jax.random.key(3)
  here = draws.uniforms(key, draws.FLIPS, index)
  assert here[0] == here[4] and np.unique(here).size == 4
  for i in range(5):
    alone = draws.uniforms(key, draws.FLIPS, index[i : i + 1])
    assert alone[0] == here[i]
  others = [
    draws.uniforms(key, draws.ASSIGNMENT, index),
    draws.uniforms(key, draws.RELIABILITIES, index),
    draws.uniforms(jax.random.key(4), draws.FLIPS, index),
  ]
  for other in others:
    assert not np.any(other == here)
  assert draws.uniforms(key, draws.FLIPS, index[:0]).shape == (0,)


def test_draws_are_uniform_and_do_not_tie():
  index = np.arange(20_000)
  first = draws.uniforms(jax.random.key(0), draws.FLIPS, index)
  second = draws.uniforms(jax.random.key(1), draws.FLIPS, index)
  assert 0 <= first.min() and first.max() < 1
  # 24 random bits would tie a dozen times here.
  assert np.unique(first).size == 20_000
  assert stats.kstest(first, 'uniform').pvalue > 1e-4
  # Neighbours and seeds are uncorrelated: four standard errors.
  for other in (second, np.roll(first, 1)):
    assert abs(np.corrcoef(first, other)[0, 1]) < 4 / np.sqrt(20_000)
  # The low word counts too.
  assert stats.kstest(first * 2.0**27 % 1, 'uniform').pvalue > 1e-4

"""Triggers and budgets."""

import jax
import numpy as np
import pytest

from alignment.noise.corruption.attacks import adversarial, poisoned

_KEY = jax.random.key(14)


def test_only_what_carries_the_trigger_is_swapped():
  rng = np.random.default_rng(8)
  clean, carries = rng.random(2000) < 0.5, rng.random(2000) < 0.1
  index = np.arange(2000)
  every = poisoned(
    _KEY, clean, index=index, has_trigger=carries, poison_rate=1.0
  )
  np.testing.assert_array_equal(every.is_flipped, carries)
  part = poisoned(_KEY, clean, index=index, has_trigger=carries, flip_rate=0.04)
  np.testing.assert_allclose(
    part.flip_rate, np.where(carries, 0.04 / carries.mean(), 0), rtol=1e-6
  )
  with pytest.raises(ValueError, match=r'0.2 is out of reach'):
    poisoned(_KEY, clean, index=index, has_trigger=carries, flip_rate=0.2)
  with pytest.raises(ValueError, match='has_trigger has shape'):
    poisoned(
      _KEY, clean, index=index, has_trigger=carries.astype(int), flip_rate=0.01
    )


def test_a_budget_goes_to_the_largest_scores():
  rng = np.random.default_rng(9)
  clean, score = rng.random(300) < 0.5, rng.gumbel(size=300)
  labels = adversarial(
    _KEY, clean, index=rng.permutation(300), attack_score=score, flip_rate=0.29
  )
  assert labels.is_flipped.sum() == 87
  assert score[labels.is_flipped].min() > score[~labels.is_flipped].max()
  np.testing.assert_array_equal(labels.flip_rate, labels.is_flipped)


def test_the_key_decides_between_equal_scores_only():
  score = np.repeat([3.0, 1.0, 0.0], [5, 40, 55])
  flips = [
    adversarial(
      key,
      np.ones(100, bool),
      index=np.arange(100),
      attack_score=score,
      flip_rate=0.2,
    ).is_flipped
    for key in jax.random.split(_KEY, 2)
  ]
  for found in flips:
    assert found[:5].all() and found[5:45].sum() == 15 and not found[45:].any()
  assert (flips[0] != flips[1]).any()


def test_scores_must_be_numbers():
  with pytest.raises(ValueError, match='attack_score has shape'):
    adversarial(
      _KEY,
      np.ones(3, bool),
      index=np.arange(3),
      attack_score=[0.0, np.nan, 1.0],
      flip_rate=0.5,
    )

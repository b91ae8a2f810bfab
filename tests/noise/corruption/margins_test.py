"""Noise on the closest pairs only."""

import jax
import numpy as np
import pytest

from alignment.noise.corruption.margins import hard_only

_KEY = jax.random.key(12)


def _margins(size: int) -> np.ndarray:
  return np.random.default_rng(6).normal(size=size) ** 3


def test_exactly_the_closest_pairs_flip():
  margin = _margins(200)
  labels = hard_only(
    _KEY, margin > 0, index=np.arange(200), margin=margin, flip_rate=0.15
  )
  closest = np.argsort(np.abs(margin))[:30]
  assert set(np.flatnonzero(labels.is_flipped)) == set(closest)
  np.testing.assert_array_equal(labels.flip_rate, labels.is_flipped)


def test_a_count_that_is_not_whole_flips_the_last_in_part():
  margin = _margins(10)
  flips = []
  for key in jax.random.split(_KEY, 400):
    labels = hard_only(
      key, margin > 0, index=np.arange(10), margin=margin, flip_rate=0.27
    )
    flips.append(labels.is_flipped)
  share = np.mean(flips, axis=0)[np.argsort(np.abs(margin))]
  np.testing.assert_array_equal(share[:2], 1)
  assert share[2] == pytest.approx(0.7, abs=4 * 0.023)
  np.testing.assert_array_equal(share[3:], 0)


def test_close_pairs_may_be_coins():
  margin = _margins(4000)
  labels = hard_only(
    _KEY,
    margin > 0,
    index=np.arange(4000),
    margin=margin,
    flip_rate=0.2,
    rate=0.5,
  )
  close = np.abs(margin) <= np.quantile(np.abs(margin), 0.4)
  assert not labels.is_flipped[~close].any()
  assert labels.is_flipped[close].mean() == pytest.approx(0.5, abs=4 * 0.0125)
  given = hard_only(
    _KEY, margin > 0, index=np.arange(4000), margin=margin, threshold=0.3
  )
  np.testing.assert_array_equal(given.is_flipped, np.abs(margin) < 0.3)


def test_equal_margins_are_chosen_by_the_key():
  margin = np.repeat([1.0, -2.0], 50)
  flips = [
    hard_only(
      key, margin > 0, index=np.arange(100), margin=margin, flip_rate=0.1
    ).is_flipped
    for key in jax.random.split(_KEY, 2)
  ]
  assert [f.sum() for f in flips] == [10, 10]
  assert not any(f[50:].any() for f in flips) and (flips[0] != flips[1]).any()


@pytest.mark.parametrize(
  ('hyper', 'message'),
  [
    ({'flip_rate': 0.6, 'rate': 0.5}, 'flip_rate=0.6 is out of reach'),
    ({'flip_rate': 0.1, 'rate': 0.0}, 'rate=0.0 must lie in'),
    ({'threshold': -1.0}, 'threshold=-1.0 must be >= 0'),
    ({}, 'exactly one of flip_rate=None and threshold'),
  ],
)
def test_refusals(hyper, message):
  margin = _margins(20)
  with pytest.raises(ValueError, match=message):
    hard_only(_KEY, margin > 0, index=np.arange(20), margin=margin, **hyper)

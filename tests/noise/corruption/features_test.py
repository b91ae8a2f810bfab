"""A flip model of features."""

import jax
import numpy as np
import pytest

from alignment.noise.corruption.features import feature_logistic

_KEY = jax.random.key(13)


def _pairs(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  rng = np.random.default_rng(7)
  return rng.random(size) < 0.5, np.arange(size), rng.normal(size=(size, 3))


def test_rates_are_the_logistic_function():
  clean, index, features = _pairs(300)
  weights = np.array([0.7, -2.0, 0.1])
  rate = feature_logistic(
    _KEY, clean, index=index, features=features, bias=-1.2, weights=weights
  ).flip_rate
  expected = 1 / (1 + np.exp(1.2 - features @ weights))
  np.testing.assert_allclose(rate, expected, rtol=1e-6)


@pytest.mark.parametrize('shift', [0.0, 80.0, -300.0])
def test_the_bias_meets_the_target_and_spares_the_weights(shift):
  clean, index, features = _pairs(500)
  rate = feature_logistic(
    _KEY,
    clean,
    index=index,
    features=features + shift,
    weights=(0.5, -1.0, 0.2),
    flip_rate=0.3,
  ).flip_rate.astype(float)
  assert rate.mean() == pytest.approx(0.3, abs=1e-7)
  score = np.log(rate / (1 - rate)) - features @ [0.5, -1.0, 0.2]
  # One bias for all, to the rounding of float32 rates.
  np.testing.assert_allclose(score, score[0], atol=1e-4)


def test_one_weight_stands_for_all():
  clean, index, features = _pairs(100)
  one, three = (
    feature_logistic(
      _KEY, clean, index=index, features=features, flip_rate=0.2, weights=w
    ).flip_rate
    for w in (1.5, [1.5] * 3)
  )
  np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'weights': (1.0, 2.0)}, r'weights=\(1.0, 2.0\) must be one number or 3'),
    ({'weights': np.nan}, 'weights=nan and features must be finite'),
    ({'features': np.ones(100)}, r'features has shape \(100,\)'),
    ({'bias': 0.0}, 'exactly one of flip_rate=0.2 and bias'),
  ],
)
def test_refusals(change, message):
  clean, index, features = _pairs(100)
  given = {'features': features, 'flip_rate': 0.2} | change
  with pytest.raises(ValueError, match=message):
    feature_logistic(_KEY, clean, index=index, **given)

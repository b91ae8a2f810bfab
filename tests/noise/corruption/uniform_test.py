"""Rates by class, rates of one's own, and counts that are exact."""

import jax
import numpy as np
import pytest
from scipy import stats

from alignment.noise.corruption.catalogue import corrupt
from alignment.noise.corruption.uniform import (
  class_conditional,
  instance_dependent,
)

_KEY = jax.random.key(11)


def test_class_rates_keep_their_ratio_at_any_target():
  clean = np.random.default_rng(0).random(900) < 0.3
  index = np.arange(900)
  for target in (0.05, 0.2, 0.45):
    rate = class_conditional(
      _KEY, clean, index=index, flip_rate=target, ratio=0.25
    ).flip_rate.astype(float)
    (first,), (second,) = np.unique(rate[clean]), np.unique(rate[~clean])
    assert first / second == pytest.approx(0.25, rel=1e-6)
    share = clean.mean()
    assert share * first + (1 - share) * second == pytest.approx(target)
  reach = clean.mean() * 0.25 + 1 - clean.mean()
  with pytest.raises(ValueError, match=f'{reach:.4}'):
    class_conditional(_KEY, clean, index=index, flip_rate=0.9, ratio=0.25)


def test_class_rates_are_those_given():
  clean = np.random.default_rng(1).random(8000) < 0.5
  labels = class_conditional(
    _KEY, clean, index=np.arange(8000), rates=(0.1, 0.4)
  )
  for value, rate in ((True, 0.1), (False, 0.4)):
    # Four standard deviations of a share of 4,000.
    assert labels.is_flipped[clean == value].mean() == pytest.approx(
      rate, abs=4 * 0.008
    )


def test_own_rates_are_uniform_and_apart_from_the_flips():
  clean = np.random.default_rng(2).random(20_000) < 0.4
  labels = instance_dependent(
    _KEY, clean, index=np.arange(20_000), max_rate=0.6
  )
  rate = labels.flip_rate.astype(float)
  assert stats.kstest(rate / 0.6, 'uniform').pvalue > 1e-3
  # Within a band of rates the flips come at that rate.
  for low in (0.0, 0.2, 0.4):
    band = (rate >= low) & (rate < low + 0.2)
    assert labels.is_flipped[band].mean() == pytest.approx(
      rate[band].mean(), abs=4 * 0.006
    )


@pytest.mark.parametrize(
  ('name', 'hyper'),
  [
    ('symmetric', {}),
    ('class_conditional', {'ratio': 5.0}),
    ('margin_dependent', {'cap': 0.8}),
    ('instance_dependent', {}),
  ],
)
def test_an_exact_count_keeps_every_rate(name, hyper):
  rng = np.random.default_rng(3)
  clean = rng.random(50) < 0.5
  data = {'index': rng.permutation(200)[:50], 'margin': rng.normal(size=50)}
  runs = [
    corrupt(name, key, clean, data, exact=True, flip_rate=0.275, **hyper)
    for key in jax.random.split(_KEY, 300)
  ]
  assert all(run.is_flipped.sum() == 13 for run in runs)  # ⌊.275 · 50⌋
  flips = np.array([run.is_flipped for run in runs]).sum(axis=0)
  rate = np.array([run.flip_rate for run in runs]).sum(axis=0, dtype=float)
  # Fifty tests at a familywise level of about .001; a count of unequal
  # probabilities varies no more than a binomial one.
  z = (flips - rate) / np.sqrt(rate * (1 - rate / 300))
  assert np.abs(z).max() < 4.3
  order = rng.permutation(50)
  moved = {word: value[order] for word, value in data.items()}
  there = corrupt(
    name, _KEY, clean[order], moved, exact=True, flip_rate=0.275, **hyper
  )
  here = corrupt(name, _KEY, clean, data, exact=True, flip_rate=0.275, **hyper)
  np.testing.assert_array_equal(here.label[order], there.label)


def test_an_exact_count_of_given_rates_is_their_sum_rounded():
  clean = np.random.default_rng(4).random(41) < 0.5
  data = {'index': np.arange(41)}
  rates = (0.31, 0.13)
  total = np.where(clean, *rates).sum()
  counts = [
    corrupt(
      'class_conditional', key, clean, data, exact=True, rates=rates
    ).is_flipped.sum()
    for key in jax.random.split(_KEY, 200)
  ]
  assert set(counts) == {np.floor(total), np.ceil(total)}
  # Four standard deviations of the mean of 200 coins.
  assert np.mean(counts) == pytest.approx(total, abs=4 * 0.5 / np.sqrt(200))


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('exact_count', {'flip_rate': 0.2}, 'exact=True is not used by noise'),
    ('adversarial', {'flip_rate': 0.2}, 'exact=True is not used by noise'),
    ('teacher', {'flip_rate': 0.2, 'tie': 0.1}, 'ties or skips'),
  ],
)
def test_exact_is_refused_where_it_says_nothing(name, hyper, message):
  rng = np.random.default_rng(5)
  data = {
    'index': np.arange(30),
    'attack_score': rng.normal(size=30),
    'step_rewards': rng.normal(size=(30, 2, 1)),
  }
  clean = np.diff(data['step_rewards'][..., 0])[:, 0] < 0
  with pytest.raises(ValueError, match=message):
    corrupt(name, _KEY, clean, data, exact=True, **hyper)


def test_exact_needs_single_indices():
  data = {'index': np.arange(30) // 2}
  with pytest.raises(ValueError, match='index must not repeat'):
    corrupt(
      'symmetric', _KEY, np.ones(30, bool), data, exact=True, flip_rate=0.1
    )

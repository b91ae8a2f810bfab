"""Noise models against their claims: rates, coupling, direction, refusals."""

import jax
import numpy as np
import pytest
from scipy import special, stats

from alignment.noise.corruption.annotators import assign_annotators
from alignment.noise.corruption.catalogue import (
  EXACT,
  NOISE,
  corrupt,
  hyperparameters,
  inputs,
)

_KEY = jax.random.key(7)


def _pairs(size: int, seed: int = 0) -> tuple[np.ndarray, dict]:
  rng = np.random.default_rng(seed)
  margin = rng.gumbel(size=size) - 0.3
  index = rng.permutation(4 * size)[:size]
  rewards = rng.normal(size=(size, 2, 3)) + 0.5
  rewards[:, 0, -1] += margin + np.diff(rewards.sum(axis=2))[:, 0]
  data = {
    'index': index,
    'margin': margin,
    'lengths': rng.integers(1, 30, (size, 2)),
    'annotator_id': assign_annotators(jax.random.key(1), index, 13),
    'features': rng.normal(size=(size, 2)),
    # A judge that errs on the closest tenth or so.
    'judge_margin': margin + 0.2 * rng.normal(size=size),
    'step_rewards': rewards,
    'has_trigger': rng.random(size) < 0.6,
    'attack_score': np.abs(margin) - 0.1 * rng.normal(size=size),
  }
  return margin > 0, data


@pytest.mark.parametrize('name', NOISE)
def test_rate_is_calibrated_and_realised(name):
  clean, data = _pairs(3000)
  labels = corrupt(name, _KEY, clean, data, flip_rate=0.3)
  # float32 rates; the bisection itself is exact to 1e-12.
  assert np.mean(labels.flip_rate, dtype=np.float64) == pytest.approx(
    0.3, abs=1e-7
  )
  # Four standard deviations of a binomial share.
  assert np.mean(labels.is_flipped) == pytest.approx(0.3, abs=4 * 0.0084)
  np.testing.assert_array_equal(labels.label ^ labels.is_flipped, clean)


# A judge that is wrong by itself is right more often as it grows random.
@pytest.mark.parametrize('name', sorted(set(NOISE) - {'ai_judge'}))
def test_flips_are_nested_across_rates(name):
  clean, data = _pairs(2000)
  flips = [
    corrupt(name, _KEY, clean, data, flip_rate=rate).is_flipped
    for rate in (0.0, 0.1, 0.2, 0.4)
  ]
  assert not flips[0].any()
  for lower, higher in zip(flips, flips[1:], strict=False):
    assert np.all(lower <= higher)
    assert lower.sum() < higher.sum()


@pytest.mark.parametrize('name', NOISE)
def test_order_of_the_examples_does_not_matter(name):
  clean, data = _pairs(500)
  order = np.random.default_rng(3).permutation(500)
  moved = {word: value[order] for word, value in data.items()}
  here = corrupt(name, _KEY, clean, data, flip_rate=0.25)
  there = corrupt(name, _KEY, clean[order], moved, flip_rate=0.25)
  np.testing.assert_array_equal(here.label[order], there.label)
  # The mean of the calibration is summed in another order: a last bit.
  np.testing.assert_allclose(here.flip_rate[order], there.flip_rate, rtol=1e-6)


@pytest.mark.parametrize('name', sorted(set(NOISE) - set(EXACT)))
def test_flips_do_not_depend_on_the_company(name):
  """With the model's parameter fixed, half the examples flip as before."""
  clean, data = _pairs(400)
  half = {word: value[::2] for word, value in data.items()}
  hyper = {
    'symmetric': {'flip_rate': 0.3},
    'class_conditional': {'rates': (0.1, 0.5)},
    'instance_dependent': {'max_rate': 0.7},
    'bt_temperature': {'temperature': 1.3},
    'gaussian': {'scale': 1.3},
    'margin_dependent': {'tau': 1.3},
    'hard_only': {'threshold': 0.4, 'rate': 0.7},
    'length_biased': {'length_preference': 0.6},
    'feature_logistic': {'bias': -1.0, 'weights': (0.5, -1.5)},
    'per_annotator': {'reliabilities': np.linspace(0.4, 1, 13)},
    'teacher': {'mistake': 0.2, 'rationality': 1.5, 'myopia': 0.8},
    'ai_judge': {'temperature': 0.8, 'position_bias': 0.3},
    'poisoned': {'poison_rate': 0.8},
  }[name]
  whole = corrupt(name, _KEY, clean, data, **hyper)
  part = corrupt(name, _KEY, clean[::2], half, **hyper)
  assert whole.is_flipped.any()
  np.testing.assert_array_equal(whole.label[::2], part.label)
  np.testing.assert_array_equal(whole.flip_rate[::2], part.flip_rate)


@pytest.mark.parametrize('name', sorted(set(NOISE) - {'instance_dependent'}))
def test_per_example_rate_is_the_frequency_over_keys(name):
  clean, data = _pairs(40)
  data['annotator_id'] = data['index'] % 3
  hyper = {'flip_rate': 0.275}
  if name == 'per_annotator':
    # Drawn reliabilities change with the key; given ones do not.
    hyper = {'reliabilities': np.array([0.9, 0.7, 0.45])}
  runs = [
    corrupt(name, key, clean, data, **hyper)
    for key in jax.random.split(_KEY, 250)
  ]
  rate = runs[0].flip_rate.astype(np.float64)
  flips = np.sum([run.is_flipped for run in runs], axis=0)
  p = stats.binom.cdf(flips, 250, rate), stats.binom.sf(flips - 1, 250, rate)
  # Forty two-sided tests at a familywise level of about .001.
  assert np.minimum(*p).min() > 1e-5
  assert np.all(flips[rate == 0] == 0)


def test_exact_count_flips_the_smallest_draws_and_exactly_so_many():
  clean, data = _pairs(100)
  for rate in (0.07, 0.29, 0.5, 0.999, 1.0):
    labels = corrupt('exact_count', _KEY, clean, data, flip_rate=rate)
    assert labels.is_flipped.sum() == np.floor(100 * rate + 1e-9)
    assert labels.flip_rate[0] == np.float32(labels.is_flipped.mean())
  symmetric = corrupt('symmetric', _KEY, clean, data, flip_rate=0.3)
  count = symmetric.is_flipped.sum()
  exact = corrupt('exact_count', _KEY, clean, data, flip_rate=count / 100)
  np.testing.assert_array_equal(symmetric.is_flipped, exact.is_flipped)


def test_rates_are_the_stated_functions():
  clean, data = _pairs(300)
  clean = clean ^ (np.arange(300) % 5 == 0)  # some contradict their margin
  support = np.where(clean, 1, -1) * data['margin']
  expected = {
    ('bt_temperature', 'temperature'): special.expit(-support / 0.7),
    ('gaussian', 'scale'): stats.norm.cdf(-support / 0.7),
    ('margin_dependent', 'tau'): 0.5 * np.exp(-np.abs(support) / 0.7),
  }
  for (name, parameter), rate in expected.items():
    labels = corrupt(name, _KEY, clean, data, **{parameter: 0.7})
    np.testing.assert_allclose(labels.flip_rate, rate, rtol=1e-6)


def test_gaussian_labels_are_those_of_the_noisy_margin():
  """The share of flips in a bin of margins, against noise drawn here."""
  size = 20_000
  margin = np.random.default_rng(1).normal(size=size) + 0.2
  noise = np.random.default_rng(2).normal(size=size)
  labels = corrupt(
    'gaussian',
    _KEY,
    margin > 0,
    {'index': np.arange(size), 'margin': margin},
    scale=0.8,
  )
  direct = (margin + 0.8 * noise > 0) != (margin > 0)
  for low, high in ((0, 0.3), (0.3, 0.8), (0.8, 2)):
    near = (np.abs(margin) >= low) & (np.abs(margin) < high)
    # Two shares of about 5,000 draws: four standard deviations is .03.
    assert labels.is_flipped[near].mean() == pytest.approx(
      direct[near].mean(), abs=0.03
    )


@pytest.mark.parametrize(
  'name', ['bt_temperature', 'gaussian', 'margin_dependent']
)
def test_close_pairs_flip_more(name):
  clean, data = _pairs(500)
  rate = corrupt(name, _KEY, clean, data, flip_rate=0.2).flip_rate
  ordered = rate[np.argsort(np.abs(data['margin']))]
  assert np.all(np.diff(ordered) <= 0) and ordered[0] > ordered[-1]
  assert rate.max() <= 0.5


def test_margin_dependent_cap_may_exceed_half():
  clean, data = _pairs(500)
  labels = corrupt(
    'margin_dependent', _KEY, clean, data, flip_rate=0.4, cap=0.9
  )
  assert labels.flip_rate.max() > 0.6
  assert np.mean(labels.flip_rate) == pytest.approx(0.4, abs=1e-6)


def test_length_bias_turns_labels_to_the_longer_one_only():
  clean, data = _pairs(1000)
  labels = corrupt('length_biased', _KEY, clean, data, flip_rate=0.2)
  first, second = data['lengths'].T
  longer_first = first > second
  flipped = labels.is_flipped
  np.testing.assert_array_equal(labels.label[flipped], longer_first[flipped])
  assert not flipped[first == second].any()
  shorter_wins = (clean != longer_first) & (first != second)
  np.testing.assert_allclose(
    labels.flip_rate,
    np.where(shorter_wins, 0.2 / shorter_wins.mean(), 0),
    rtol=1e-6,
  )
  always = corrupt(
    'length_biased', _KEY, clean, data, length_preference=1.0
  ).label
  np.testing.assert_array_equal(
    always, np.where(first == second, clean, longer_first)
  )


def test_annotators_differ_and_keep_their_rate():
  clean, data = _pairs(2000)
  rate = corrupt(
    'per_annotator', _KEY, clean, data, flip_rate=0.3, concentration=4.0
  ).flip_rate
  rates = [np.unique(rate[data['annotator_id'] == a]) for a in range(13)]
  assert all(r.size == 1 for r in rates)
  assert np.std(np.concatenate(rates)) > 0.1
  # Given reliabilities: an adversary and an oracle.
  labels = corrupt(
    'per_annotator',
    _KEY,
    clean,
    data | {'annotator_id': data['index'] % 2},
    reliabilities=[0.0, 1.0],
  )
  np.testing.assert_array_equal(labels.is_flipped, data['index'] % 2 == 0)


def test_shared_index_flips_jointly():
  clean, data = _pairs(600)
  data['index'] = np.arange(600) // 3
  flips = corrupt('symmetric', _KEY, clean, data, flip_rate=0.4).is_flipped
  assert np.all(flips.reshape(200, 3) == flips[::3, None])
  with pytest.raises(ValueError, match='index must not repeat'):
    corrupt('exact_count', _KEY, clean, data, flip_rate=0.4)


def test_half_is_reachable_where_the_limit_is_a_coin():
  clean, data = _pairs(300)
  for name in ('symmetric', 'bt_temperature', 'gaussian', 'margin_dependent'):
    labels = corrupt(name, _KEY, clean, data, flip_rate=0.5)
    np.testing.assert_allclose(labels.flip_rate, 0.5, rtol=1e-6)


def test_bradley_terry_labels_can_be_drawn_again():
  """Clean labels that are themselves draws: the reach starts above 0."""
  _, data = _pairs(4000)
  uniform = np.random.default_rng(5).uniform(size=4000)
  clean = uniform < special.expit(data['margin'])
  contradicted = np.mean(clean != (data['margin'] > 0))
  labels = corrupt('bt_temperature', _KEY, clean, data, flip_rate=0.35)
  assert np.mean(labels.flip_rate) == pytest.approx(0.35, abs=1e-6)
  with pytest.raises(ValueError, match=f'{contradicted:.4g}'):
    corrupt('bt_temperature', _KEY, clean, data, flip_rate=contradicted / 2)


@pytest.mark.parametrize(
  ('name', 'hyper', 'message'),
  [
    ('symmetric', {'flip_rate': 1.2}, r'flip_rate=1.2 must lie in \[0, 1\]'),
    ('symmetric', {'flip_rate': -0.1}, r'flip_rate=-0.1 must lie in'),
    ('symmetric', {'flip_rate': float('nan')}, 'flip_rate=nan'),
    ('symmetric', {'flip_rate': 0.1, 'tau': 2.0}, 'tau=2.0 is not used'),
    ('exact_count', {'flip_rate': 1.01}, 'flip_rate=1.01'),
    ('bt_temperature', {}, 'exactly one of flip_rate=None and temperature'),
    ('bt_temperature', {'temperature': 0.0}, 'temperature=0.0 must be > 0'),
    ('bt_temperature', {'flip_rate': 0.6}, r'0.6 is out of reach.*0\.5\]'),
    ('gaussian', {'flip_rate': 0.51}, 'flip_rate=0.51 is out of reach'),
    ('gaussian', {'flip_rate': 0.1, 'scale': 1.0}, 'exactly one of'),
    ('margin_dependent', {'flip_rate': 0.31, 'cap': 0.3}, r'reach.*0\.3\]'),
    ('margin_dependent', {'flip_rate': 0.1, 'cap': 1.5}, 'cap=1.5'),
    ('length_biased', {'flip_rate': 0.9}, 'flip_rate=0.9 is out of reach'),
    ('length_biased', {'length_preference': 2.0}, 'length_preference=2.0'),
    ('per_annotator', {'reliabilities': [0.9]}, 'has no reliability'),
    ('per_annotator', {'reliabilities': [1.9] * 13}, 'reliabilities='),
    ('per_annotator', {'flip_rate': 0.1, 'concentration': 0}, 'concentration'),
    (
      'per_annotator',
      {'reliabilities': [0.9] * 13, 'concentration': 1.0},
      'concentration=1.0 must be None',
    ),
    ('unheard', {}, "noise='unheard' must be one of"),
  ],
)
def test_refusals(name, hyper, message):
  clean, data = _pairs(60)
  with pytest.raises(ValueError, match=message):
    corrupt(name, _KEY, clean, data, **hyper)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('index', np.arange(59), 'index has shape'),
    ('index', np.arange(60) - 1, 'index=-1..58'),
    ('index', np.arange(60.0), 'index has shape'),
    ('margin', np.ones((60, 1)), 'margin has shape'),
    ('margin', np.full(60, np.nan), 'margin has shape'),
    ('lengths', np.ones(60, int), 'lengths has shape'),
    ('annotator_id', np.full(60, -1), 'annotator_id=-1'),
    ('margin', None, 'needs margin'),
  ],
)
def test_refused_data(field, value, message):
  clean, data = _pairs(60)
  name = {
    'index': 'symmetric',
    'margin': 'gaussian',
    'lengths': 'length_biased',
    'annotator_id': 'per_annotator',
  }[field]
  with pytest.raises(ValueError, match=message):
    corrupt(name, _KEY, clean, data | {field: value}, flip_rate=0.1)
  with pytest.raises(ValueError, match='clean_label has shape'):
    corrupt(name, _KEY, clean.astype(int), data, flip_rate=0.1)


def test_signatures_speak_of_data_and_hyperparameters():
  assert hyperparameters('margin_dependent') == {
    'flip_rate': None,
    'tau': None,
    'cap': 0.5,
  }
  assert inputs('per_annotator') == ('index', 'annotator_id')
  for name in NOISE:
    assert 'flip_rate' in hyperparameters(name)
    assert 'index' in inputs(name)

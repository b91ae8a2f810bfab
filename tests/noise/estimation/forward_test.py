"""Forward likelihood: EM's fixed point, brute force, what is confounded."""

import numpy as np
import pytest
from scipy import optimize, special

from alignment.noise.estimation.forward import (
  forward_features_rate,
  forward_rate,
  linear_forward_rate,
)
from alignment.noise.estimation.forward_fit import MeanProfile, fit_forward
from alignment.noise.evidence import Evidence

_RNG = np.random.default_rng(0)


def _stated(rng, size, rate, scale=1.0, group=None, features=None):
  margin = 2 * rng.standard_normal(size)
  true = rng.random(size) < special.expit(scale * margin)
  label = true ^ (rng.random(size) < rate)
  names = () if features is None else ('first', 'second')
  return Evidence(
    label=label.astype(np.int32),
    num_classes=2,
    group=np.arange(size) if group is None else group,
    clean_margin=margin,
    features=features,
    feature_names=names,
  )


def _log_likelihood(label, margin, rate):
  clean = special.expit(margin)
  prob = (1 - rate) * clean + rate * (1 - clean)
  return np.sum(np.log(np.where(label == 1, prob, 1 - prob)))


def test_rate_and_ends_of_the_likelihood_by_grid():
  evidence = _stated(np.random.default_rng(1), 700, 0.17)
  found = forward_rate(evidence, _RNG)
  grid = np.linspace(0, 0.5, 20_001)
  value = np.array(
    [
      _log_likelihood(evidence.label, evidence.clean_margin, e)
      for e in grid[::20]
    ]
  )
  best = grid[::20][np.argmax(value)]
  assert found.rate == pytest.approx(best, abs=6e-4)
  inside = grid[::20][2 * (value.max() - value) <= 3.8415]
  assert found.low == pytest.approx(inside[0], abs=6e-4)
  assert found.high == pytest.approx(inside[-1], abs=6e-4)


def test_the_rate_is_the_fixed_point_of_em():
  evidence = _stated(np.random.default_rng(2), 900, 0.25)
  rate = forward_rate(evidence, _RNG).rate
  sign = 2 * evidence.label - 1
  right = (1 - rate) * special.expit(sign * evidence.clean_margin)
  wrong = rate * special.expit(-sign * evidence.clean_margin)
  assert np.mean(wrong / (right + wrong)) == pytest.approx(rate, abs=1e-8)


def test_margins_that_say_nothing_leave_everything_open():
  evidence = _stated(np.random.default_rng(3), 200, 0.1)
  flat = Evidence(
    label=evidence.label,
    num_classes=2,
    group=evidence.group,
    clean_margin=np.zeros(200),
  )
  found = forward_rate(flat, _RNG)
  assert (found.low, found.high) == (0, 0.5)


def test_rates_above_one_half_are_seen_and_flagged():
  found = forward_rate(_stated(np.random.default_rng(4), 800, 0.8), _RNG)
  assert found.low < 0.8 < found.high
  assert found.flags == ('above 1/2: labels say the opposite',)


def test_rows_in_groups_widen_the_interval():
  evidence = _stated(np.random.default_rng(5), 400, 0.2)
  once = forward_rate(evidence, _RNG)
  copies = Evidence(
    label=np.repeat(evidence.label, 4),
    num_classes=2,
    group=np.repeat(np.arange(400), 4),
    clean_margin=np.repeat(evidence.clean_margin, 4),
  )
  four = forward_rate(copies, _RNG)
  assert four.count == 400
  # Copies add nothing; t(399) for the normal, and G / (G − 1).
  assert four.low == pytest.approx(once.low, abs=2e-3)
  assert four.high == pytest.approx(once.high, abs=2e-3)


def test_single_labels_are_refused_without_a_law_whatever_a_model_says():
  evidence = _stated(np.random.default_rng(6), 300, 0.2)
  prob = special.expit(evidence.clean_margin)
  modelled = Evidence(
    label=evidence.label,
    num_classes=2,
    group=evidence.group,
    probs=np.stack([1 - prob, prob], axis=1),
  )
  found = forward_rate(modelled, _RNG)
  assert found.rate is None and found.low is None and found.high is None
  for remedy in ('clean_margin', 'second vote', 'known true classes'):
    assert remedy in found.refusal


def test_flips_and_smaller_margins_are_confounded():
  """Flips at .1 and margins × .745 differ by less than 1e-3 nats a pair."""
  margin = 2 * np.random.default_rng(7).standard_normal(200_000)
  flipped = 0.1 + 0.8 * special.expit(margin)
  shrunk = special.expit(0.745 * margin)
  kl = flipped * np.log(flipped / shrunk)
  kl += (1 - flipped) * np.log((1 - flipped) / (1 - shrunk))
  assert 0 < kl.mean() < 1e-2
  # So labels without one flip, under margins stated too large, give a rate.
  found = forward_rate(
    _stated(np.random.default_rng(8), 20_000, 0.0, 0.745), _RNG
  )
  assert found.low > 0.04


def _featured(rng, size, weights):
  features = rng.standard_normal((size, 2))
  evidence = _stated(rng, size, 0.0, features=features)
  rate = special.expit(weights[0] + features @ weights[1:])
  label = evidence.label ^ (rng.random(size) < rate)
  return (
    Evidence(
      label=label.astype(np.int32),
      num_classes=2,
      group=evidence.group,
      clean_margin=evidence.clean_margin,
      features=features,
      feature_names=('first', 'second'),
    ),
    rate,
  )


def test_flip_model_is_the_maximum_of_its_likelihood():
  evidence, _ = _featured(
    np.random.default_rng(9), 1500, np.array([-1.5, 0.9, -0.4])
  )
  design = np.concatenate([np.ones((1500, 1)), evidence.features], axis=1)

  def loss(weights):
    rate = special.expit(design @ weights)
    penalty = 0.05 * np.sum(weights[1:] ** 2)
    return penalty - _log_likelihood(
      evidence.label, evidence.clean_margin, rate
    )

  best = optimize.minimize(loss, np.array([-1.0, 0, 0]), tol=1e-10)
  fit = fit_forward(
    evidence.label,
    margin=evidence.clean_margin,
    flip_design=design,
    penalty=0.1,
  )
  np.testing.assert_allclose(fit.flip_weights, best.x, atol=2e-4)
  assert fit.value == pytest.approx(
    _log_likelihood(evidence.label, evidence.clean_margin, fit.flip_rate)
  )
  found = forward_features_rate(evidence, _RNG)
  assert found.rate == pytest.approx(fit.flip_rate.mean())


def test_profile_of_the_mean_against_a_constrained_optimiser():
  evidence, _ = _featured(
    np.random.default_rng(10), 600, np.array([-1.2, 0.8, 0.3])
  )
  design = np.concatenate([np.ones((600, 1)), evidence.features], axis=1)
  fit = fit_forward(
    evidence.label,
    margin=evidence.clean_margin,
    flip_design=design,
    penalty=0.1,
  )
  profile = MeanProfile(evidence.label, evidence.features, fit, 0.1)

  def loss(weights):
    rate = special.expit(design @ weights)
    penalty = 0.05 * np.sum(weights[1:] ** 2)
    return penalty - _log_likelihood(
      evidence.label, evidence.clean_margin, rate
    )

  for mean in (0.15, 0.35):
    held = {
      'type': 'eq',
      'fun': lambda w, mean=mean: special.expit(design @ w).mean() - mean,
    }
    best = optimize.minimize(
      loss, fit.flip_weights, constraints=[held], method='SLSQP'
    )
    assert profile(mean) == pytest.approx(-best.fun, abs=2e-3)


def test_features_tell_where_flips_are():
  rng = np.random.default_rng(11)
  evidence, rate = _featured(rng, 6000, np.array([-2.0, 1.2, 0.0]))
  found = forward_features_rate(evidence, rng)
  assert found.low <= rate.mean() <= found.high
  design = np.concatenate([np.ones((6000, 1)), evidence.features], axis=1)
  fit = fit_forward(
    evidence.label, margin=evidence.clean_margin, flip_design=design
  )
  # Slopes have standard errors of about .09.
  np.testing.assert_allclose(fit.flip_weights[1:], [1.2, 0.0], atol=0.36)
  assert np.corrcoef(fit.flip_rate, rate)[0, 1] > 0.95


def test_features_seldom_invent_flips():
  rng = np.random.default_rng(12)
  found = [
    forward_features_rate(
      _stated(rng, 400, 0.0, features=rng.standard_normal((400, 2))), rng
    )
    for _ in range(40)
  ]
  # Of 40 at .05, 7 or more have probability .003.
  assert sum(estimate.low > 0 for estimate in found) <= 6
  assert all(0 < estimate.high < 0.15 for estimate in found)


def test_linear_margins_by_a_general_optimiser():
  rng = np.random.default_rng(13)
  design = np.concatenate(
    [np.ones((1500, 1)), rng.standard_normal((1500, 2))], axis=1
  )
  clean = special.expit(design @ [0.3, 2.5, -1.5])
  label = ((rng.random(1500) < clean) ^ (rng.random(1500) < 0.15)).astype(int)

  def loss(x):
    return -_log_likelihood(label, design @ x[1:], special.expit(x[0]))

  best = optimize.minimize(loss, np.array([-2.0, 0.2, 2, -1]), tol=1e-10)
  found = linear_forward_rate(label, design, np.arange(1500))
  assert found.rate == pytest.approx(special.expit(best.x[0]), abs=5e-4)
  at_low = optimize.minimize(
    lambda w: -_log_likelihood(label, design @ w, found.low), best.x[1:]
  )
  assert 2 * (at_low.fun - best.fun) == pytest.approx(3.8415, abs=5e-3)


@pytest.mark.parametrize(
  'label, size', [(np.arange(400) % 2, 400), (np.zeros(2000, int), 2000)]
)
def test_too_little_for_a_linear_law_is_refused(label, size):
  found = linear_forward_rate(label, np.ones((size, 1)), np.arange(size))
  assert found.rate is None and 'rows' in found.refusal


def test_what_is_to_be_fitted_must_be_said():
  label = np.arange(10) % 2
  with pytest.raises(ValueError, match='margin and design'):
    fit_forward(label, flip_rate=0.1)
  with pytest.raises(ValueError, match='flip_rate and flip_design'):
    fit_forward(label, margin=np.zeros(10))

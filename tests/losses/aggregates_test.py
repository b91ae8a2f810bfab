"""Aggregates: values, limits, multiplicities, empty slots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import aggregates
from alignment.losses.aggregates import AGGREGATES

_RNG = np.random.default_rng(5)
Z = _RNG.normal(scale=2.0, size=13)
LOSSES, SWAPPED = np.logaddexp(0, -Z), np.logaddexp(0, Z)
ONES = np.ones(13)
COUNTS = np.asarray([1, 2, 0, 1, 3, 1, 0, 1, 1, 2, 1, 1, 4], np.float64)


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _value(name, losses, weights, swapped=SWAPPED, **hyper):
  extra = {'swapped_losses': swapped} if name == 'wdpo' else {}
  term = AGGREGATES[name](
    jnp.asarray(losses), jnp.asarray(weights), **extra, **hyper
  )
  return term.value()


@pytest.mark.parametrize('name', AGGREGATES)
def test_weight_is_multiplicity(name):
  repeats = COUNTS.astype(int)
  expanded = [np.repeat(x, repeats) for x in (LOSSES, SWAPPED)]
  np.testing.assert_allclose(
    _value(name, LOSSES, COUNTS),
    _value(name, expanded[0], np.ones(len(expanded[0])), expanded[1]),
    rtol=1e-10,
  )


@pytest.mark.parametrize('name', AGGREGATES)
def test_order_does_not_matter(name):
  order = _RNG.permutation(13)
  np.testing.assert_allclose(
    _value(name, LOSSES, COUNTS),
    _value(name, LOSSES[order], COUNTS[order], SWAPPED[order]),
    rtol=1e-12,
  )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -1e30])
@pytest.mark.parametrize('name', AGGREGATES)
def test_empty_slots_are_ignored_whatever_stands_there(name, poison):
  is_empty = COUNTS == 0
  losses = np.where(is_empty, poison, LOSSES)
  swapped = np.where(is_empty, poison, SWAPPED)
  value, gradient = jax.value_and_grad(
    lambda x: _value(name, x, COUNTS, swapped)
  )(jnp.asarray(losses))
  np.testing.assert_allclose(value, _value(name, LOSSES, COUNTS), rtol=1e-12)
  assert np.isfinite(gradient).all() and not gradient[is_empty].any()


@pytest.mark.parametrize('name', AGGREGATES)
def test_an_empty_batch_is_0_with_gradient_0(name):
  value, gradient = jax.jit(
    jax.value_and_grad(lambda x: _value(name, x, np.zeros(13)))
  )(jnp.asarray(LOSSES))
  assert value == 0 and not gradient.any()


@pytest.mark.parametrize('name', AGGREGATES)
def test_equal_losses_are_a_fixed_point(name):
  # kldpo's factors are 1, nothing is trimmed apart, no gain is positive.
  constant = np.full(13, 0.7)
  np.testing.assert_allclose(
    _value(name, constant, COUNTS, constant), 0.7, rtol=1e-10
  )


@pytest.mark.parametrize('name', AGGREGATES)
def test_extreme_losses_stay_finite_in_float32(name):
  losses = jnp.asarray([1e4, 0.0, 3.0, 1e4], jnp.float32)
  value, gradient = jax.value_and_grad(
    lambda x: _value(
      name, x, jnp.ones(4, jnp.float32), jnp.float32([0, 1e4, 0.05, 0])
    )
  )(losses)
  assert value.dtype == jnp.float32
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_mean_is_the_weighted_mean():
  np.testing.assert_allclose(
    _value('mean', LOSSES, COUNTS), np.average(LOSSES, weights=COUNTS)
  )


def test_dr_dpo_runs_from_the_smallest_loss_to_the_mean():
  def at(beta):
    return _value('dr_dpo', LOSSES, COUNTS, beta_prime=beta)

  kept = LOSSES[COUNTS > 0]
  np.testing.assert_allclose(at(1e6), _value('mean', LOSSES, COUNTS), rtol=1e-6)
  np.testing.assert_allclose(at(1e-4), kept.min(), atol=1e-3)
  assert at(1e-4) < at(0.3) < at(1.0) < at(30.0)


def test_dr_dpo_gradient_is_a_softmax_over_the_batch():
  weights = COUNTS / 2
  gradient = jax.grad(lambda x: _value('dr_dpo', x, weights, beta_prime=0.7))(
    jnp.asarray(LOSSES)
  )
  expected = weights * np.exp(-LOSSES / 0.7)
  np.testing.assert_allclose(gradient, expected / expected.sum(), rtol=1e-10)


def test_dr_dpo_forgets_an_isolated_flip():
  losses = np.append(LOSSES, 40.0)  # −log σ(−40)
  gradient = jax.grad(lambda x: _value('dr_dpo', x, np.ones(14)))(
    jnp.asarray(losses)
  )
  assert gradient[-1] < 1e-15


def test_kldpo_weights_large_losses_more_and_carry_no_gradient():
  factors = np.minimum(np.exp((LOSSES - LOSSES.mean()) / 0.5), 3.0)
  value, gradient = jax.value_and_grad(
    lambda x: _value('kldpo', x, ONES, tau=0.5, ceiling=3.0)
  )(jnp.asarray(LOSSES))
  np.testing.assert_allclose(value, np.mean(factors * LOSSES))
  np.testing.assert_allclose(gradient, factors / 13)
  assert factors.max() == 3.0  # the ceiling is used


@pytest.mark.parametrize('quantile', [0.0, 0.3, 0.85, 0.9, 1.0])
def test_weighted_quantile_is_that_of_the_expanded_sample(quantile):
  expanded = np.repeat(LOSSES, COUNTS.astype(int))
  np.testing.assert_allclose(
    aggregates.weighted_quantile(LOSSES, COUNTS, quantile),
    np.quantile(expanded, quantile),
    rtol=1e-12,
  )


def test_winsor_caps_losses_and_their_gradient():
  limit = np.quantile(LOSSES, 0.8)
  value, gradient = jax.value_and_grad(
    lambda x: _value('winsor', x, ONES, quantile=0.8)
  )(jnp.asarray(LOSSES))
  np.testing.assert_allclose(value, np.minimum(LOSSES, limit).mean())
  np.testing.assert_allclose(gradient, (limit >= LOSSES) / 13)


def test_trimmed_drops_the_largest_losses_the_last_in_part():
  # A fifth of 13 is 2.6: two whole losses and .6 of the third.
  order = np.argsort(-LOSSES)
  kept = np.ones(13)
  kept[order[:3]] = 0, 0, 0.4
  value, gradient = jax.value_and_grad(
    lambda x: _value('trimmed', x, ONES, fraction=0.2)
  )(jnp.asarray(LOSSES))
  np.testing.assert_allclose(value, np.sum(kept * LOSSES) / 10.4)
  np.testing.assert_allclose(gradient, kept / 10.4, atol=1e-12)


def _simplex_projection(scores):
  """argmin ‖a − scores‖ on the simplex, the threshold found by bisection."""
  low, high = scores.min() - 1, scores.max()
  for _ in range(200):
    middle = (low + high) / 2
    if np.maximum(scores - middle, 0).sum() > 1:
      low = middle
    else:
      high = middle
  return np.maximum(scores - low, 0)


@pytest.mark.parametrize('scale', [0.05, 1.0, 20.0])
def test_sparsemax_is_the_projection_on_the_simplex(scale):
  scores = scale * Z
  mass = aggregates.sparsemax(scores, ONES)
  np.testing.assert_allclose(mass, _simplex_projection(scores), atol=1e-12)
  np.testing.assert_allclose(mass.sum(), 1.0)


def test_sparsemax_counts_repeated_entries():
  mass = aggregates.sparsemax(jnp.asarray(Z), jnp.asarray(COUNTS))
  expanded = _simplex_projection(np.repeat(Z, COUNTS.astype(int)))
  np.testing.assert_allclose(
    np.repeat(mass, COUNTS.astype(int)), expanded, atol=1e-12
  )
  assert not mass[COUNTS == 0].any()


@pytest.mark.parametrize('budget', [0.05, 0.1, 0.6])
def test_flip_shares_stay_within_the_budget_and_hit_only_gains(budget):
  shares = np.asarray(aggregates.flip_shares(-Z, ONES, budget, 0.3))
  assert (shares >= 0).all() and (shares <= 1).all()
  assert shares.sum() <= budget * 13 + 1e-9
  assert not shares[Z > 0].any() and shares[np.argmin(Z)] > 0


def test_nothing_is_flipped_when_every_label_fits():
  shares = aggregates.flip_shares(-np.abs(Z), ONES, 0.3, 1.0)
  np.testing.assert_array_equal(shares, 0.0)


def _wdpo_step_by_step(z, budget, tau, quantile, floor, ceiling, sharpness):
  """wDPO spelled out for a small batch with the logistic link."""
  n = len(z)
  loss, swapped = np.logaddexp(0, -z), np.logaddexp(0, z)
  gain = np.maximum(loss - swapped, 0)
  mass = _simplex_projection(gain / tau)
  share = np.minimum(budget * n * mass, 1)
  rest, free = budget * n - share.sum(), share < 1
  if rest > 0 and free.any():
    share[free] += rest * mass[free] / max(mass[free].sum(), 1e-12)
  share = np.minimum(share, 1)
  mixed = (1 - share) * loss + share * swapped
  limit = np.quantile(mixed, quantile)
  doubt = np.mean(1 / (1 + np.exp(z / np.mean(np.abs(z)))))
  severity = np.maximum(mixed - limit, 0) ** sharpness
  total = n * (floor + (ceiling - floor) * doubt)
  pulled = np.minimum(total * severity / severity.sum(), 1)
  value = np.mean((1 - pulled) * mixed + pulled * limit)
  gate = (1 - share) * -1 / (1 + np.exp(z)) + share / (1 + np.exp(-z))
  return value, (1 - pulled) * gate / n


@pytest.mark.parametrize(
  'setting', [(0.1, 1.0, 0.85, 0.02, 0.2, 1.0), (0.3, 0.2, 0.7, 0.0, 0.1, 2.0)]
)
def test_wdpo_value_and_gradient_in_the_margin(setting):
  names = (
    'flip_budget',
    'tau',
    'quantile',
    'winsor_floor',
    'winsor_ceiling',
    'sharpness',
  )
  hyper = dict(zip(names, setting, strict=True))

  def value(z):
    return _value(
      'wdpo', jax.nn.softplus(-z), ONES, jax.nn.softplus(z), **hyper
    )

  expected = _wdpo_step_by_step(Z, *setting)
  np.testing.assert_allclose(value(jnp.asarray(Z)), expected[0], rtol=1e-10)
  np.testing.assert_allclose(
    jax.grad(value)(jnp.asarray(Z)), expected[1], rtol=1e-9, atol=1e-14
  )


def test_wdpo_without_budgets_is_the_mean():
  value = _value(
    'wdpo', LOSSES, COUNTS, flip_budget=0, winsor_floor=0, winsor_ceiling=0
  )
  np.testing.assert_allclose(value, _value('mean', LOSSES, COUNTS))


@pytest.mark.parametrize(
  'name, hyper',
  [
    ('dr_dpo', {'beta_prime': 0.0}),
    ('kldpo', {'tau': -1.0}),
    ('winsor', {'quantile': 1.1}),
    ('trimmed', {'fraction': 1.0}),
    ('wdpo', {'flip_budget': 1.5}),
    ('wdpo', {'tau': 0.0}),
  ],
)
def test_bad_values_are_refused(name, hyper):
  (argument,) = hyper
  with pytest.raises(ValueError, match=f'{argument} = .* is outside'):
    _value(name, LOSSES, ONES, **hyper)


@pytest.mark.parametrize('name', [n for n in AGGREGATES if n != 'mean'])
def test_hyperparameters_may_be_traced(name):
  parameter = {
    'dr_dpo': 'beta_prime',
    'kldpo': 'tau',
    'winsor': 'quantile',
    'trimmed': 'fraction',
    'wdpo': 'flip_budget',
  }[name]
  traced = jax.jit(lambda x: _value(name, LOSSES, COUNTS, **{parameter: x}))
  np.testing.assert_allclose(
    traced(0.31), _value(name, LOSSES, COUNTS, **{parameter: 0.31}), rtol=1e-12
  )

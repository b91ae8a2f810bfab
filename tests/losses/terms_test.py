"""The likelihood and centring terms and the on-policy weights."""

import jax
import jax.numpy as jnp
import numpy as np

from alignment.losses import terms

LOGPS = np.asarray([-6.0, -2.5, -9.0])
LENGTHS = np.asarray([4, 1, 10])


def test_nll_counts_tokens_or_completions():
  weights = np.asarray([1.0, 2.0, 1.0])
  np.testing.assert_allclose(
    terms.nll_per_token(LOGPS, LENGTHS, weights).value(), 20.0 / 16.0
  )
  np.testing.assert_allclose(
    terms.nll_per_completion(LOGPS, LENGTHS, weights).value(),
    (1.5 + 2 * 2.5 + 0.9) / 4.0,
    rtol=1e-6,
  )


def test_empty_slots_are_ignored_whatever_stands_there():
  logps = np.asarray([-6.0, np.nan, -9.0])
  lengths, weights = np.asarray([4, 0, 10]), np.asarray([1.0, 0.0, 1.0])
  for term in (terms.nll_per_token, terms.nll_per_completion):
    value, gradient = jax.value_and_grad(
      lambda x, term=term: term(x, lengths, weights).value()
    )(jnp.asarray(logps))
    expected = term(LOGPS[[0, 2]], LENGTHS[[0, 2]], np.ones(2)).value()
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.isfinite(gradient).all() and gradient[1] == 0


def test_centring_is_the_mean_square_of_the_sum_over_real_pairs():
  chosen = np.asarray([1.5, np.nan, -2.0])
  rejected = np.asarray([0.5, 3.0, 0.3])
  weights = np.asarray([1.0, 0.0, 2.0])

  def value(chosen):
    return terms.centring(chosen, rejected, weights, 0.1).value()

  found, pull = jax.value_and_grad(value)(jnp.asarray(chosen))
  np.testing.assert_allclose(found, 0.1 * (4 + 2 * 1.7**2) / 3, rtol=1e-6)
  np.testing.assert_allclose(
    pull, [0.1 * 2 * 2 / 3, 0, 0.1 * 2 * 2 * -1.7 / 3], rtol=1e-6
  )


def test_wpo_weights_are_products_of_mean_token_ratios():
  rng = np.random.default_rng(2)
  sums = -rng.uniform(1.0, 9.0, (4, 5))
  chosen_lengths, rejected_lengths = rng.integers(1, 7, (2, 5))
  expected = np.exp(
    (sums[0] - sums[2]) / chosen_lengths
    + (sums[1] - sums[3]) / rejected_lengths
  )
  weights = terms.wpo_weights(*sums, chosen_lengths, rejected_lengths)
  np.testing.assert_allclose(weights, expected, rtol=2e-5)


def test_wpo_weights_carry_no_gradient():
  ones = jnp.ones(2)
  gradient = jax.grad(
    lambda x: jnp.sum(terms.wpo_weights(x, -ones, -ones, -ones, ones, ones))
  )(-2 * ones)
  np.testing.assert_array_equal(gradient, 0.0)

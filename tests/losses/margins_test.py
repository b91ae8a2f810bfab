"""Margins: values, antisymmetry, clamps and ranks."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import margins

_RNG = np.random.default_rng(11)
PC, PR, RC, RR = (-_RNG.uniform(0.5, 40.0, (4, 6))).astype(np.float32)
LC, LR = _RNG.integers(1, 20, (2, 6))

DIFFERENCES = (
  margins.logratio_difference,
  margins.per_token_logratio_difference,
  margins.normalised_logratio_difference,
  margins.clamped_reward_difference,
  margins.policy_difference,
  margins.reward_difference,
  margins.per_token_difference,
  margins.alpha_reward_difference,
  margins.log_odds_difference,
)


def _call(margin, swap=False, **extra):
  logps = [PR, PC, RR, RC] if swap else [PC, PR, RC, RR]
  lengths = (LR, LC) if swap else (LC, LR)
  parameters = inspect.signature(margin).parameters
  keywords = {
    key: value
    for key, value in zip(
      ('chosen_lengths', 'rejected_lengths'), lengths, strict=True
    )
    if key in parameters
  }
  is_free = 'reference_chosen_logps' not in parameters
  return margin(*logps[: 2 if is_free else 4], **keywords, **extra)


@pytest.mark.parametrize('margin', DIFFERENCES, ids=lambda m: m.__name__)
def test_exchanging_chosen_and_rejected_changes_the_sign(margin):
  # Sums of float32 numbers of order 40.
  np.testing.assert_allclose(
    _call(margin), -_call(margin, swap=True), rtol=1e-6, atol=2e-5
  )


def test_values_in_float64():
  u, v = PC.astype(np.float64) - RC, PR.astype(np.float64) - RR
  c, r = PC / LC.astype(np.float64), PR / LR.astype(np.float64)
  expected = {
    margins.logratio_difference: u - v,
    margins.per_token_logratio_difference: u / LC - v / LR,
    margins.clamped_reward_difference: np.clip(0.1 * u, -10, 10)
    - np.clip(0.1 * v, -10, 10),
    margins.policy_difference: PC.astype(np.float64) - PR,
    margins.per_token_difference: c - r,
    margins.alpha_reward_difference: (np.exp(-r / 4) - np.exp(-c / 4)) * 4,
    margins.log_odds_difference: np.log(np.exp(c) / (1 - np.exp(c)))
    - np.log(np.exp(r) / (1 - np.exp(r))),
  }
  for margin, value in expected.items():
    np.testing.assert_allclose(_call(margin), value, rtol=2e-5, atol=2e-5)


def test_normalisation_is_said_by_name():
  mean, total = (
    _call(margins.normalised_logratio_difference, normalisation=name)
    for name in ('mean', 'sum')
  )
  np.testing.assert_array_equal(
    mean, _call(margins.per_token_logratio_difference)
  )
  np.testing.assert_array_equal(total, _call(margins.logratio_difference))
  with pytest.raises(ValueError, match="normalisation = 'median' is not"):
    _call(margins.normalised_logratio_difference, normalisation='median')
  with pytest.raises(ValueError, match='chosen_lengths or rejected_lengths'):
    margins.normalised_logratio_difference(PC, PR, RC, RR)


def test_an_empty_completion_is_not_divided_by_zero():
  assert np.isfinite(margins.per_token(jnp.zeros(2), jnp.asarray([0, 3]))).all()


def test_rewards_outside_the_clamp_get_no_gradient():
  def total(chosen):
    zero = jnp.zeros(3)
    return jnp.sum(
      margins.clamped_reward_difference(chosen, zero, zero, zero, beta=0.5)
    )

  gradient = jax.grad(total)(jnp.asarray([-30.0, 4.0, 21.0]))
  np.testing.assert_array_equal(gradient, [0.0, 0.5, 0.0])


def test_alpha_reward_tends_to_the_log_probability():
  np.testing.assert_array_equal(margins.alpha_reward(PC, 0.0), PC)
  np.testing.assert_allclose(margins.alpha_reward(PC, 1e-6), PC, rtol=1e-4)
  assert np.isfinite(margins.alpha_reward(jnp.float32(-1e4), 0.25))


def test_length_desensitised_weighs_only_the_tail():
  shared, tail = np.asarray([-3.0, -4.0]), np.asarray([-2.0, 0.0])
  np.testing.assert_allclose(
    margins.length_desensitised(shared, tail, 0.25), [-3.5, -4.0]
  )
  with pytest.raises(ValueError, match='ld_alpha = 1.5 is outside'):
    margins.length_desensitised(shared, tail, 1.5)


_SCORES = {
  'reverse_kl': lambda u: u,
  'forward_kl': lambda u: 1 - np.exp(-u),
  'js': lambda u: np.log(2 / (1 + np.exp(-u))),
  'alpha': lambda u: (1 - np.exp(-u / 2)) * 2,
}


@pytest.mark.parametrize('name', margins.DIVERGENCES)
def test_divergence_scores(name):
  u = np.asarray([-6.0, -0.2, 0.0, 0.4, 9.0])
  score = margins.divergence_score(jnp.asarray(u, jnp.float32), name)
  np.testing.assert_allclose(score, _SCORES[name](u), rtol=1e-5, atol=1e-6)
  # All are increasing with slope 1 at π = π_ref, but for js, where it is ½.
  slope = jax.grad(lambda x: margins.divergence_score(x, name))(0.0)
  np.testing.assert_allclose(slope, 0.5 if name == 'js' else 1.0)


@pytest.mark.parametrize('name', margins.DIVERGENCES)
@pytest.mark.parametrize('u', [-1e5, -200.0, 200.0, 1e5])
def test_divergence_scores_are_finite(name, u):
  value, gradient = jax.value_and_grad(
    lambda x: margins.divergence_score(x, name)
  )(jnp.float32(u))
  assert np.isfinite(value) and np.isfinite(gradient)


def test_the_alpha_family_joins_reverse_and_forward_kl():
  u = jnp.asarray([-2.0, 0.3, 1.5])
  for alpha, name in ((1.0, 'reverse_kl'), (0.0, 'forward_kl')):
    np.testing.assert_allclose(
      margins.divergence_score(u, 'alpha', alpha),
      margins.divergence_score(u, name),
      rtol=1e-6,
    )


def test_unknown_divergence_is_refused():
  with pytest.raises(ValueError, match="divergence = 'chi' is none of"):
    margins.divergence_score(jnp.zeros(1), 'chi')


@pytest.mark.parametrize(
  'margin, sides',
  [
    (margins.sorted_policy_reference_difference, (PC - PR, RC - RR)),
    (margins.sorted_logratio_difference, (PC - RC, PR - RR)),
  ],
)
def test_sorted_margins_pair_by_rank_and_keep_places(margin, sides):
  result = margin(PC, PR, RC, RR)
  order = np.argsort(sides[0])
  np.testing.assert_allclose(
    np.asarray(result)[order], np.sort(sides[0]) - np.sort(sides[1]), rtol=1e-6
  )


@pytest.mark.parametrize(
  'margin',
  [
    margins.sorted_policy_reference_difference,
    margins.sorted_logratio_difference,
  ],
)
def test_empty_slots_take_no_rank_whatever_stands_there(margin):
  mask = np.asarray([True, False, True, True, False, True, True, True])
  rows = np.full((4, 8), np.nan, np.float32)
  rows[:, mask] = PC, PR, RC, RR
  result = margin(*rows, mask=mask)
  np.testing.assert_array_equal(result[mask], margin(PC, PR, RC, RR))
  np.testing.assert_array_equal(result[~mask], 0.0)
  gradient = jax.grad(lambda x: jnp.sum(margin(x, *rows[1:], mask=mask) ** 2))(
    rows[0]
  )
  assert np.isfinite(gradient).all() and not gradient[~mask].any()

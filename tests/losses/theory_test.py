"""What noise does to each loss, where theory fixes the answer.

Losses are minimised to convergence, in float64, over the exact expectation of
the flips, so no tuning and no luck enters; one test repeats it with a sample.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from alignment.losses.preference import METHODS, grad_weight


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _loss(name, z, **hyper):
  """The method at margin z (beta 1, rewards ±z/2)."""
  zero = jnp.zeros_like(z)
  return METHODS[name](z / 2, -z / 2, zero, zero, beta=1.0, **hyper)


def _minimise(risk, start):
  value_and_gradient = jax.jit(jax.value_and_grad(risk))

  def both(x):
    value, gradient = value_and_gradient(jnp.asarray(x))
    return float(value), np.asarray(gradient)

  return scipy.optimize.minimize(
    both,
    start,
    jac=True,
    method='L-BFGS-B',
    options={'ftol': 1e-16, 'gtol': 1e-10, 'maxiter': 2000, 'maxfun': 4000},
  )


# --- Low capacity: infinitely many pairs, two parameters -------------------

# One pair with a large margin, one that pulls, two that are penalised: with
# `GAP` small, a linear scorer separates them, but a convex loss cannot afford
# to once a few labels are flipped (Long and Servedio, Random Classification
# Noise Defeats All Convex Potential Boosters, 2010).
GAP = 0.03
DIFFERENCES = np.asarray([[1.0, 0.0], [GAP, 5 * GAP], [GAP, -GAP], [GAP, -GAP]])
FLIP_RATE = 0.1


def _noisy_risk(name, weights, **hyper):
  """E over flips of the loss on chosen − rejected features."""
  z = DIFFERENCES @ weights
  kept, flipped = _loss(name, z, **hyper), _loss(name, -z, **hyper)
  return jnp.mean((1 - FLIP_RATE) * kept + FLIP_RATE * flipped)


def _clean_accuracy(name, start=(0.0, 0.0), **hyper):
  risk = partial(_noisy_risk, name, **hyper)
  fit = _minimise(risk, np.asarray(start))
  return float(np.mean(DIFFERENCES @ fit.x > 0)), fit


def test_plain_dpo_errs_on_half_of_separable_pairs():
  accuracy, fit = _clean_accuracy('dpo')
  assert accuracy == 0.5
  # The risk is convex and this is its minimum, not an early stop.
  assert np.abs(fit.jac).max() < 1e-6
  far, _ = _clean_accuracy('dpo', start=(-5.0, 9.0))
  assert far == 0.5


@pytest.mark.parametrize(
  'name, hyper',
  [
    ('rdpo', {'label_smoothing': FLIP_RATE}),
    ('forward', {'label_smoothing': FLIP_RATE}),
    ('sympo', {'bound': np.inf}),
  ],
)
def test_robust_losses_get_every_pair_right(name, hyper):
  accuracy, _ = _clean_accuracy(name, **hyper)
  assert accuracy == 1.0


def test_smoothing_the_label_does_not_help_low_capacity():
  accuracy, fit = _clean_accuracy('cdpo', label_smoothing=FLIP_RATE)
  assert accuracy == 0.5 and np.abs(fit.jac).max() < 1e-6


def test_without_flips_plain_dpo_is_right():
  clean = lambda w: jnp.mean(_loss('dpo', DIFFERENCES @ w))  # noqa: E731
  fit = _minimise(clean, np.zeros(2))
  assert (DIFFERENCES @ fit.x > 0).all()


# --- Bradley-Terry labels: which logit each loss converges to ---------------

LOGITS = np.asarray([-2.0, -0.4, 0.0, 0.9, 2.5])
EPS = 0.2


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _noisy_share(logits=LOGITS):
  """P(labelled first) after flips of Bradley-Terry labels."""
  p = _sigmoid(logits)
  return (1 - EPS) * p + EPS * (1 - p)


def _root(name, share, **hyper):
  """Where the expected pull is 0; the pull falls through it once."""

  def pull(z):
    kept, flipped = grad_weight(name, np.asarray([z, -z]), **hyper)
    return float(share * kept - (1 - share) * flipped)

  return scipy.optimize.brentq(pull, -6.0, 6.0, xtol=1e-12)


def _logit(p):
  return np.log(p / (1 - p))


_CONVERGES_TO = {
  ('rdpo', EPS): LOGITS,
  ('forward', EPS): LOGITS,
  ('dpo', None): _logit(_noisy_share()),
  ('cdpo', EPS): _logit(
    (1 - EPS) * _noisy_share() + EPS * (1 - _noisy_share())
  ),
}


@pytest.mark.parametrize('case', _CONVERGES_TO, ids=lambda c: c[0])
def test_population_minimiser(case):
  name, flip = case
  hyper = {} if flip is None else {'label_smoothing': flip}
  found = [_root(name, share, **hyper) for share in _noisy_share()]
  np.testing.assert_allclose(found, _CONVERGES_TO[case], atol=1e-8)


def test_plain_dpo_shrinks_every_logit_towards_0():
  shrunken = _CONVERGES_TO['dpo', None]
  is_sure = LOGITS != 0
  assert (np.abs(shrunken[is_sure]) < 0.85 * np.abs(LOGITS[is_sure])).all()


def test_ipo_shrinks_by_1_minus_2_eps_and_ripo_undoes_it():
  # Deterministic labels, so the clean target of z is ½.
  share = 1 - EPS
  np.testing.assert_allclose(_root('ipo', share), 0.5 * (1 - 2 * EPS))
  np.testing.assert_allclose(_root('ripo', share, label_smoothing=EPS), 0.5)


def test_a_wrong_assumed_rate_is_a_bias_of_known_size():
  """Backward with ε′ ≠ ε settles at the logit of (q̃ − ε′)/(1 − 2ε′)."""
  for assumed in (0.1, 0.18):
    found = [
      _root('rdpo', share, label_smoothing=assumed)
      for share in _noisy_share()[1:4]
    ]
    expected = _logit((_noisy_share()[1:4] - assumed) / (1 - 2 * assumed))
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize('name', ['dpo', 'rdpo', 'forward'])
def test_a_large_sample_of_flips_lands_within_its_standard_error(name):
  rng = np.random.default_rng(0)
  count = 400_000
  share = rng.binomial(count, _noisy_share()) / count
  hyper = {} if name == 'dpo' else {'label_smoothing': EPS}
  found = np.asarray([_root(name, each, **hyper) for each in share])
  limit = _CONVERGES_TO[name, None if name == 'dpo' else EPS]
  # Delta method: the logit of a clean probability p = (q̃ − ε)/(1 − 2ε).
  scale = 1.0 if name == 'dpo' else 1 - 2 * EPS
  error = np.sqrt(_noisy_share() * (1 - _noisy_share()) / count)
  error /= scale * _sigmoid(limit) * _sigmoid(-limit)
  assert (np.abs(found - limit) < 5 * error).all()
  # Small enough to tell the shrunken from the clean logit.
  others = LOGITS if name == 'dpo' else _CONVERGES_TO['dpo', None]
  is_sure = LOGITS != 0
  assert (np.abs(found - others)[is_sure] > 5 * error[is_sure]).all()


# --- The same through a policy ----------------------------------------------

BETA = 0.5


def _policy_risk(name, scores, reference, rewards, **hyper):
  """Expected loss over all ordered pairs and flips; uniform pairs."""
  policy = jax.nn.log_softmax(scores)
  first, second = np.nonzero(~np.eye(len(rewards), dtype=bool))
  share = _noisy_share(rewards[first] - rewards[second])
  losses = METHODS[name](
    policy[first],
    policy[second],
    reference[first],
    reference[second],
    beta=BETA,
    **hyper,
  )
  return jnp.mean(share * losses)


@pytest.mark.parametrize('name', ['rdpo', 'forward', 'dpo'])
def test_the_policy_converges_to_the_tilted_reference_or_not(name):
  """π* ∝ π_ref·exp(r/β), reached from flipped labels by the two corrections."""
  rng = np.random.default_rng(1)
  rewards = rng.normal(size=6)
  reference = np.asarray(jax.nn.log_softmax(rng.normal(size=6)))
  hyper = {} if name == 'dpo' else {'label_smoothing': EPS}
  fit = _minimise(
    lambda x: _policy_risk(name, x, reference, rewards, **hyper), reference
  )
  best = jax.nn.softmax(reference + rewards / BETA)
  distance = 0.5 * np.abs(jax.nn.softmax(fit.x) - best).sum()
  if name == 'dpo':
    assert distance > 0.1
  else:
    assert distance < 1e-5

"""Reward-model losses: equations, pulls, flips, margins, refusals."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from alignment.losses.aggregates import mean
from alignment.losses.reward import REWARD, hyperparameters, per_pair

_RNG = np.random.default_rng(11)
CHOSEN, REJECTED = _RNG.normal(scale=2.0, size=(2, 9))
H = CHOSEN - REJECTED
SMOOTH = _RNG.uniform(0.02, 0.4, 9)
LABEL_PROB = _RNG.uniform(0, 1, 9)
GAMMA = _RNG.uniform(-0.5, 1.5, 9)
DATA = {
  'margin': GAMMA,
  'label_smoothing': SMOOTH,
  'label_prob': LABEL_PROB,
}
HYPER = {
  'q': 0.6,
  'threshold': 0.35,
  'forward_weight': 0.7,
  'reverse_weight': 2.5,
  'gamma': 0.8,
}


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _softplus(x):
  return np.logaddexp(0, x)


def _keywords(name):
  numbers = {k: v for k, v in HYPER.items() if k in hyperparameters(name)}
  return {**numbers, **{key: DATA[key] for key in per_pair(name)}}


P, N = _sigmoid(H), _sigmoid(-H)
WIN, LOSE = _softplus(GAMMA - H), _softplus(GAMMA + H)
EQUATIONS = {
  'bradley_terry': WIN,
  'conservative': (1 - SMOOTH) * WIN + SMOOTH * LOSE,
  'backward': ((1 - SMOOTH) * WIN - SMOOTH * LOSE) / (1 - 2 * SMOOTH),
  'forward': -np.log((1 - SMOOTH) * P + SMOOTH * N),
  'soft_label': LABEL_PROB * WIN + (1 - LABEL_PROB) * LOSE,
  'symmetric': N,
  'gce': (1 - P**0.6) / 0.6,
  'truncated_gce': (1 - np.maximum(P, 0.35) ** 0.6) / 0.6,
  'sce': 0.7 * _softplus(-H) + 2.5 * N,
  'holder': -1.8 * P**0.8 + 0.8 * P**1.8,
}


@pytest.mark.parametrize('name', REWARD)
def test_equation(name):
  losses = REWARD[name](CHOSEN, REJECTED, **_keywords(name))
  assert losses.dtype == jnp.float64 and losses.shape == (9,)
  np.testing.assert_allclose(losses, EQUATIONS[name], rtol=1e-9)


@pytest.mark.parametrize(
  'link, expected',
  [('unhinged', 1 - H), ('ramp', np.clip(0.5 - H / 2, 0, 1))],
)
def test_other_symmetric_links(link, expected):
  losses = REWARD['symmetric'](CHOSEN, REJECTED, link=link)
  np.testing.assert_allclose(losses, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('name', REWARD)
def test_only_the_difference_counts_and_float32_stays_finite(name):
  keywords = _keywords(name)
  shifted = REWARD[name](CHOSEN + 3.7, REJECTED + 3.7, **keywords)
  np.testing.assert_allclose(
    shifted, REWARD[name](CHOSEN, REJECTED, **keywords), rtol=1e-9
  )
  far = np.asarray([-1e4, 1e4, 0.0], np.float32)
  data = {'label_prob': np.float32(0.7)} if 'label_prob' in keywords else {}

  def total(chosen):
    losses = REWARD[name](chosen, np.zeros(3, np.float32), **data)
    assert losses.dtype == jnp.float32
    return jnp.sum(losses)

  value, pull = jax.value_and_grad(total)(far)
  assert np.isfinite(value) and np.isfinite(pull).all()


# --- Influence: −∂loss/∂h against closed forms ------------------------------

Z = np.asarray([-30.0, -6.0, -1.3, -0.4, 0.0, 0.2, 2.7, 8.0, 30.0])
EPS, SHIFT = 0.15, 0.6
PZ, NZ = _sigmoid(Z), _sigmoid(-Z)
CURVES = {
  ('bradley_terry', 'margin', SHIFT): _sigmoid(SHIFT - Z),
  ('conservative', 'label_smoothing', EPS): NZ - EPS,
  ('backward', 'label_smoothing', EPS): NZ + EPS / (1 - 2 * EPS),
  ('forward', 'label_smoothing', EPS): (1 - 2 * EPS)
  * PZ
  * NZ
  / (EPS + (1 - 2 * EPS) * PZ),
  ('soft_label', 'label_prob', 0.8): 0.8 - PZ,
  ('symmetric', 'link', 'sigmoid'): PZ * NZ,
  ('symmetric', 'link', 'unhinged'): np.ones(9),
  ('gce', 'q', 0.7): PZ**0.7 * NZ,
  ('truncated_gce', 'threshold', 0.3): np.where(PZ > 0.3, PZ**0.7 * NZ, 0),
  ('sce', 'reverse_weight', 4.0): 0.1 * NZ + 4 * PZ * NZ,
  ('holder', 'gamma', 2.0): 6 * PZ**2 * NZ**2,
}


def _pull(name, h, **keywords):
  h = jnp.asarray(h)
  return -jax.grad(
    lambda x: jnp.sum(REWARD[name](x, jnp.zeros_like(x), **keywords))
  )(h)


@pytest.mark.parametrize(
  'case', CURVES, ids=lambda case: '-'.join(map(str, case))
)
def test_pull(case):
  name, key, value = case
  np.testing.assert_allclose(
    _pull(name, Z, **{key: value}), CURVES[case], rtol=1e-7, atol=1e-11
  )


REDESCENDING = {'forward', 'symmetric', 'gce', 'truncated_gce', 'holder'}


@pytest.mark.parametrize('name', REWARD)
def test_which_losses_let_go_of_a_label_that_contradicts_them(name):
  data = {'label_prob': 0.9} if 'label_prob' in per_pair(name) else {}
  far, near = np.abs(_pull(name, np.asarray([-200.0, 0.0]), **data))
  assert (far < 1e-3 * near) == (name in REDESCENDING)


# --- Flips ------------------------------------------------------------------


def test_backward_is_unbiased_with_a_margin_of_the_pair():
  """E over flips: what the label pays plus what the swapped pair pays."""
  keywords = {'margin': GAMMA, 'label_smoothing': SMOOTH}
  kept = REWARD['backward'](CHOSEN, REJECTED, **keywords)
  flipped = REWARD['backward'](REJECTED, CHOSEN, **keywords)
  expected = (1 - SMOOTH) * kept + SMOOTH * flipped
  np.testing.assert_allclose(
    expected, REWARD['bradley_terry'](CHOSEN, REJECTED, margin=GAMMA)
  )
  plain = (1 - SMOOTH) * WIN + SMOOTH * LOSE
  assert np.abs(plain - WIN).max() > 0.1


@pytest.mark.parametrize('link', ['sigmoid', 'unhinged', 'ramp'])
def test_flips_only_rescale_a_symmetric_loss(link):
  kept = REWARD['symmetric'](CHOSEN, REJECTED, link=link)
  flipped = REWARD['symmetric'](REJECTED, CHOSEN, link=link)
  both = np.asarray(kept + flipped)
  np.testing.assert_allclose(both, both[0], rtol=1e-12)


# What flips at rate ε make of a pair whose clean label is Bernoulli(σ(LOGIT)):
# losses minimised over h on the exact expectation, so no luck enters.
LOGIT = 1.4
FIXED = {
  'bradley_terry': 'noisy',
  'conservative': 'flatter',
  'backward': 'clean',
  'forward': 'clean',
}


@pytest.mark.parametrize('name', FIXED)
def test_which_logit_a_loss_converges_to(name):
  share = (1 - EPS) * _sigmoid(LOGIT) + EPS * _sigmoid(-LOGIT)
  hyper = {} if name == 'bradley_terry' else {'label_smoothing': EPS}

  def pull(h):
    won, lost = _pull(name, np.asarray([h, -h]), **hyper)
    return float(share * won - (1 - share) * lost)

  found = scipy.optimize.brentq(pull, -10, 10, xtol=1e-10)
  smoothed = (1 - EPS) * share + EPS * (1 - share)
  expected = {
    'clean': LOGIT,
    'noisy': np.log(share / (1 - share)),
    'flatter': np.log(smoothed / (1 - smoothed)),
  }
  np.testing.assert_allclose(found, expected[FIXED[name]], rtol=1e-6)


def test_low_capacity_needs_a_robust_loss():
  """Two parameters, ten per cent flips, infinitely many separable pairs.

  Long and Servedio, Random Classification Noise Defeats All Convex Potential
  Boosters, 2010.
  """
  gap, rate = 0.03, 0.1
  features = np.asarray([[1, 0], [gap, 5 * gap], [gap, -gap], [gap, -gap]])

  def accuracy(name, **hyper):
    def risk(w):
      h = features @ w
      zero = jnp.zeros_like(h)
      kept, flipped = (REWARD[name](s * h, zero, **hyper) for s in (1, -1))
      return jnp.mean((1 - rate) * kept + rate * flipped)

    slope = jax.jit(jax.value_and_grad(risk))
    fit = scipy.optimize.minimize(
      lambda w: tuple(np.asarray(x, np.float64) for x in slope(w)),
      np.zeros(2),
      jac=True,
      method='L-BFGS-B',
      options={'ftol': 1e-16, 'gtol': 1e-10, 'maxiter': 2000},
    )
    return np.mean(features @ fit.x > 0)

  assert accuracy('bradley_terry') == 0.5
  assert accuracy('conservative', label_smoothing=rate) == 0.5
  assert accuracy('backward', label_smoothing=rate) == 1.0
  assert accuracy('forward', label_smoothing=rate) == 1.0
  assert accuracy('symmetric') == 1.0


# --- Weights, keywords ------------------------------------------------------


def test_weights_are_multiplicities():
  counts = np.asarray([1, 0, 3, 2, 1, 0, 1, 4, 1])
  losses = REWARD['forward'](CHOSEN, REJECTED, label_smoothing=SMOOTH)
  repeated = np.repeat(EQUATIONS['forward'], counts)
  np.testing.assert_allclose(
    mean(losses, jnp.asarray(counts, float)).value(), repeated.mean()
  )


def test_keywords_are_read_from_the_signatures():
  assert hyperparameters('soft_label') == {'margin': 0.0}
  assert per_pair('soft_label') == ('margin', 'label_prob')
  assert hyperparameters('symmetric') == {'link': 'sigmoid'}
  assert per_pair('gce') == ()
  for name, loss in REWARD.items():
    first = list(inspect.signature(loss).parameters)[:2]
    assert first == ['chosen_rewards', 'rejected_rewards'], name


@pytest.mark.parametrize(
  'name, keywords, error, message',
  [
    ('forward', {'margin': 0.3}, TypeError, 'margin'),
    ('symmetric', {'margin': 0.3}, TypeError, 'margin'),
    ('symmetric', {'link': 'logistic'}, ValueError, "'logistic' is none of"),
    ('bradley_terry', {'beta': 0.1}, TypeError, 'beta'),
    ('backward', {'label_smoothing': 0.5}, ValueError, r'outside \[0, 0.5\)'),
    ('soft_label', {}, TypeError, 'label_prob'),
    ('soft_label', {'label_prob': 1.2}, ValueError, r'outside \[0, 1\]'),
  ],
)
def test_refusals(name, keywords, error, message):
  with pytest.raises(error, match=message):
    REWARD[name](CHOSEN, REJECTED, **keywords)


def test_unknown_loss_is_refused():
  for ask in (hyperparameters, per_pair):
    with pytest.raises(ValueError, match="reward loss = 'dpo' is none of"):
      ask('dpo')

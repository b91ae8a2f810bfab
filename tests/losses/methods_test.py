"""Every method against its equation, written out once more in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.preference import METHODS
from tests.losses.random_batch import BATCH, HYPER, hyper, inputs


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _softplus(x):
  return np.logaddexp(0, x)


def _equations():
  """Every loss once more, in float64, straight from its equation."""
  b = BATCH
  pc, pr = b['policy_chosen_logps'], b['policy_rejected_logps']
  rc, rr = b['reference_chosen_logps'], b['reference_rejected_logps']
  lc, lr, label = b['chosen_lengths'], b['rejected_lengths'], b['label_prob']
  h = HYPER
  beta, eps = h['beta'], h['label_smoothing']
  u, v = pc - rc, pr - rr
  z = beta * (u - v)
  p, n = _sigmoid(z), _sigmoid(-z)
  mean_gap, target = u / lc - v / lr, 1 / (2 * beta)
  win, lose = _softplus(-z), _softplus(z)
  gate = _sigmoid(z / h['tau'])
  clipped = np.clip(beta * u, -4, 4) - np.clip(beta * v, -4, 4)
  radius = np.sqrt(h['rho'] * label * (1 - label))
  worst = [np.clip(label + s * radius, 0, 1) for s in (-1, 1)]
  odds = [np.exp(x) / (1 - np.exp(x)) for x in (pc / lc, pr / lr)]
  reward = [(1 - np.exp(-0.2 * x)) / 0.2 for x in (pc / lc, pr / lr)]
  simpo = beta * (pc / lc - pr / lr) - h['gamma']
  alphapo = beta * (reward[0] - reward[1]) - h['gamma']
  free = beta * (pc - pr)
  ranks = [np.argsort(np.argsort(x)) for x in (pc - pr, u)]
  aot = beta * (pc - pr - np.sort(rc - rr)[ranks[0]])
  aot_unpaired = beta * (u - np.sort(v)[ranks[1]])

  def smooth(x):
    return (1 - eps) * _softplus(-x) + eps * _softplus(x)

  ropo = 4 * h['alpha'] / (1 + h['alpha']) ** 2
  return {
    'dpo': win,
    'cdpo': smooth(z),
    'rdpo': ((1 - eps) * win - eps * lose) / (1 - 2 * eps),
    'ipo': (mean_gap - target) ** 2,
    'ripo': (
      (1 - eps) * (mean_gap - target) ** 2 - eps * (mean_gap + target) ** 2
    )
    / (1 - 2 * eps),
    'hinge': np.maximum(0, 1 - z),
    'exo': p * np.log(p / (1 - eps)) + n * np.log(n / eps),
    'nca': _softplus(-beta * u)
    + _softplus(beta * u) / 2
    + _softplus(beta * v) / 2,
    'bco_pair': _softplus(0.4 - beta * u) + _softplus(beta * v - 0.4),
    'sppo_hard': (u - target) ** 2 + (v + target) ** 2,
    'aot': smooth(aot),
    'aot_unpaired': smooth(aot_unpaired),
    'apo_zero': 1 - _sigmoid(beta * u) + _sigmoid(beta * v),
    'apo_down': _sigmoid(beta * u) + 1 - p,
    'discopop': win * (1 - gate) + np.exp(-z) * gate,
    'sigmoid_norm': _softplus(-beta * mean_gap),
    'simpo': smooth(simpo),
    'cpo': smooth(free),
    'orpo': beta * _softplus(np.log(odds[1]) - np.log(odds[0])),
    'alphapo': smooth(alphapo),
    'forward': -np.log((1 - eps) * p + eps * n),
    'sympo': _sigmoid(-clipped),
    'gce': (1 - p**0.6) / 0.6,
    'truncated_gce': (1 - np.maximum(p, 0.35) ** 0.6) / 0.6,
    'sce': 0.7 * win + 1.2 * 3.0 * n,
    'ropo': ropo * win + ropo * h['alpha'] * n,
    'holder_dpo': -1.6 * p**0.6 + 0.6 * p**1.6,
    'dpo_pro': np.maximum(
      worst[0] * win + (1 - worst[0]) * lose,
      worst[1] * win + (1 - worst[1]) * lose,
    ),
    'soft_label': label * win + (1 - label) * lose,
  }


EQUATIONS = _equations()


@pytest.mark.parametrize('name', METHODS)
def test_equation(name):
  with jax.enable_x64(True):
    losses = METHODS[name](**inputs(name), **hyper(name))
    assert losses.dtype == jnp.float64 and losses.shape == (9,)
    np.testing.assert_allclose(losses, EQUATIONS[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
  'keywords, expected',
  [
    ({'link': 'unhinged'}, lambda z: 1 - z),
    ({'link': 'ramp'}, lambda z: np.clip((1 - z) / 2, 0, 1)),
  ],
)
def test_other_links_of_sympo(keywords, expected):
  b = BATCH
  u = b['policy_chosen_logps'] - b['reference_chosen_logps']
  v = b['policy_rejected_logps'] - b['reference_rejected_logps']
  z = np.clip(0.1 * u, -10, 10) - np.clip(0.1 * v, -10, 10)
  losses = METHODS['sympo'](**inputs('sympo'), **keywords)
  np.testing.assert_allclose(losses, expected(z), rtol=1e-5, atol=1e-6)


def test_ipo_over_sums():
  b = BATCH
  gap = b['policy_chosen_logps'] - b['reference_chosen_logps']
  gap = gap - b['policy_rejected_logps'] + b['reference_rejected_logps']
  losses = METHODS['ipo'](**inputs('ipo'), beta=0.17, normalisation='sum')
  np.testing.assert_allclose(losses, (gap - 1 / 0.34) ** 2, rtol=1e-4)

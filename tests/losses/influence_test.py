"""What an observed label pulls, −∂loss/∂z, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.preference import METHODS, grad_weight, reads

Z = np.asarray([-30.0, -6.0, -1.3, -0.4, 0.0, 0.2, 2.7, 8.0, 30.0])
EPS = 0.15
BETA = 0.3


def _s(z):
  return 1 / (1 + np.exp(-z))


P, N = _s(Z), _s(-Z)
MIXED = EPS + (1 - 2 * EPS) * P

CURVES = {
  ('dpo',): N,
  ('cdpo', 'label_smoothing', EPS): N - EPS,
  ('rdpo', 'label_smoothing', EPS): N + EPS / (1 - 2 * EPS),
  ('forward', 'label_smoothing', EPS): (1 - 2 * EPS) * P * N / MIXED,
  ('soft_label', 'label_prob', 0.8): 0.8 - P,
  # Per reward ±Z/2, so the clamp at ±10 does not touch |z| < 20.
  ('sympo',): np.where(np.abs(Z) < 20, P * N, 0.0),
  ('sympo', 'bound', np.inf): P * N,
  ('gce', 'q', 0.7): P**0.7 * N,
  ('gce', 'q', 1.0): P * N,
  ('truncated_gce', 'threshold', 0.3): np.where(P > 0.3, P**0.7 * N, 0.0),
  ('holder_dpo', 'gamma', 2.0): 6 * P**2 * N**2,
  ('ropo', 'alpha', 14.0): 4 * 14 / 225 * N * (1 + 14 * P),
  ('sce', 'log_zero', -4.0): 0.1 * N + 4 * P * N,
  ('hinge',): (Z < 1) * 1.0,
  ('ipo', 'beta', BETA): 2 * (0.5 - Z) / BETA**2,
  ('ipo', 'normalisation', 'sum'): 2 * (0.5 - Z) / 0.01,
  ('ripo', 'label_smoothing', EPS): 2 * (0.5 / (1 - 2 * EPS) - Z) / 0.01,
  ('aot',): N,
  ('aot_unpaired',): N,
  ('cpo',): N,
  ('sigmoid_norm',): N,
  ('simpo', 'gamma', 0.7): _s(0.7 - Z),
  ('alphapo', 'alpha', 0.0): _s(1 - Z),
  ('orpo', 'beta', BETA): BETA * N,
  ('apo_zero',): _s(Z / 2) * _s(-Z / 2),
  ('bco_pair',): _s(-Z / 2),
  ('nca',): 0.75 * _s(-Z / 2) - 0.25 * _s(Z / 2),
  ('exo', 'label_smoothing', EPS): -P * N * (Z - np.log((1 - EPS) / EPS)),
  ('apo_down',): P * N - _s(Z / 2) * _s(-Z / 2) / 2,
  ('sppo_hard', 'beta', BETA): 2 * (0.5 - Z / 2) / BETA**2,
}


def _identity(case):
  return '-'.join(map(str, case))


@pytest.mark.parametrize('case', CURVES, ids=_identity)
def test_curve(case):
  name, *pair = case
  hyper = {pair[0]: pair[1]} if pair else {}
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      grad_weight(name, Z, **hyper), CURVES[case], rtol=1e-7, atol=1e-11
    )


def test_the_symmetric_ramp_and_the_unhinged_link():
  z = np.asarray([-3.0, -0.5, 0.4, 2.0])
  np.testing.assert_allclose(
    grad_weight('sympo', z, link='ramp'), [0, 0.5, 0.5, 0]
  )
  np.testing.assert_allclose(grad_weight('sympo', z, link='unhinged'), 1.0)


def test_every_method_has_a_finite_curve_of_the_right_shape():
  z = jnp.asarray([[-1e4, -3.0, 0.0], [0.1, 50.0, 1e4]])
  for name in METHODS:
    data = {'label_prob': 0.9} if 'label_prob' in reads(name) else {}
    weights = grad_weight(name, z, **data)
    assert weights.shape == z.shape and weights.dtype == jnp.float32
    assert np.isfinite(weights).all(), name


REDESCENDING = {
  'forward', 'sympo', 'gce', 'truncated_gce', 'holder_dpo', 'exo', 'apo_zero',
  'apo_down',
}  # fmt: skip


@pytest.mark.parametrize('name', METHODS)
def test_which_methods_let_go_of_a_label_that_contradicts_them(name):
  data = {'label_prob': 0.9} if 'label_prob' in reads(name) else {}
  far, near = np.abs(grad_weight(name, np.asarray([-200.0, 0.0]), **data))
  assert (far < 1e-3 * near) == (name in REDESCENDING)


def test_ropo_pulls_at_most_1_where_its_formula_says():
  alpha = 14.0
  z = np.linspace(-8, 8, 4001)
  weights = np.asarray(grad_weight('ropo', z, alpha=alpha))
  np.testing.assert_allclose(weights.max(), 1.0, rtol=1e-5)
  np.testing.assert_allclose(
    z[weights.argmax()], -np.log((alpha + 1) / (alpha - 1)), atol=0.02
  )


def test_holder_pulls_most_at_gamma_over_gamma_plus_2():
  z = np.linspace(-8, 8, 4001)
  for gamma in (0.5, 2.0):
    top = z[np.asarray(grad_weight('holder_dpo', z, gamma=gamma)).argmax()]
    np.testing.assert_allclose(_s(top), gamma / (gamma + 2), atol=2e-3)


def test_discopop_pushes_the_wrong_way_at_its_default_gate():
  """Near z = 0 the gate's own slope dominates: the loss rises with z."""
  slope = 0.25 + (5.0 * np.log(2)) - 5.0 + 0.5
  np.testing.assert_allclose(grad_weight('discopop', 0.0), slope, rtol=1e-5)
  assert slope < 0


def test_unknown_method_is_refused():
  with pytest.raises(ValueError, match="loss = 'nope' is none of"):
    grad_weight('nope', 0.0)

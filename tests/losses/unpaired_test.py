"""Losses of completions labelled good or bad, and what they keep beside."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import pointwise, unpaired
from alignment.losses.unpaired import UNPAIRED

RNG = np.random.default_rng(41)
SIZE = 8
POLICY, REFERENCE = -RNG.uniform(2, 40, (2, SIZE))
LABEL = RNG.random(SIZE) < 0.5
PROB = RNG.random(SIZE)
BETA, POINT, DELTA, GOOD, BAD = 0.17, 1.3, 0.4, 0.12, 0.27
NAMES = list(UNPAIRED)
KEYWORDS = {
  'beta': BETA,
  'reference_point': POINT,
  'delta': DELTA,
  'desirable_weight': 0.8,
  'undesirable_weight': 1.5,
  'label_smoothing_good': GOOD,
  'label_smoothing_bad': BAD,
}


def taken(name):
  function = UNPAIRED[name]
  known = (
    *pointwise.needs(function),
    *pointwise.hyperparameters(function),
  )
  return {key: KEYWORDS[key] for key in known}


def losses(name, label=LABEL, policy=POLICY, **changed):
  keywords = {**taken(name), **changed}
  return UNPAIRED[name](policy, REFERENCE, label, **keywords)


def _s(x):
  return 1 / (1 + np.exp(-x))


def _equations():
  z = BETA * (POLICY - REFERENCE)
  k, m = z - BETA * POINT, z - DELTA
  costs = {
    'kto': (0.8 * _s(-k), 1.5 * _s(k)),
    'bco': (-np.log(_s(m)), -np.log(_s(-m))),
    'apo_zero_unpaired': (_s(-z), _s(z)),
  }
  matrix = np.asarray([[1 - GOOD, GOOD], [BAD, 1 - BAD]])
  inverse = np.linalg.inv(matrix)
  place = np.where(LABEL, 0, 1)
  found = {
    'forward_bco': -np.log(np.stack([_s(m), _s(-m)], axis=1) @ matrix[:, :])[
      np.arange(SIZE), place
    ]
  }
  for name, pair in costs.items():
    both = np.stack(pair, axis=1)
    found[name] = both[np.arange(SIZE), place]
    found[f'conservative_{name}'] = (matrix[place] * both).sum(axis=1)
    found[f'backward_{name}'] = (inverse[place] * both).sum(axis=1)
  return found


EQUATIONS = _equations()


def test_every_loss_has_its_equation_here():
  assert set(EQUATIONS) == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_against_the_equation(name):
  np.testing.assert_allclose(
    losses(name), EQUATIONS[name], rtol=2e-5, atol=1e-6
  )


@pytest.mark.parametrize('name', NAMES)
def test_a_label_may_be_a_probability(name):
  good, bad = (losses(name, np.full(SIZE, side)) for side in (True, False))
  np.testing.assert_allclose(
    losses(name, PROB), PROB * good + (1 - PROB) * bad, rtol=1e-4, atol=1e-6
  )


@pytest.mark.parametrize('name', NAMES)
def test_finite_up_to_1e4_with_finite_gradients(name):
  sizes = (0.0, 1e-3, 1.0, 20.0, 88.0, 105.0, 1e3, 1e4)
  z = np.asarray([s * x for s, x in itertools.product((-1, 1), sizes)] * 2)
  label = np.arange(len(z)) < len(z) // 2

  def total(policy):
    values = UNPAIRED[name](policy, jnp.zeros(len(z)), label, **taken(name))
    return jnp.sum(values), values

  gradient, values = jax.grad(total, has_aux=True)(
    jnp.asarray(z / BETA, jnp.float32)
  )
  assert values.dtype == jnp.float32
  assert np.isfinite(values).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize('name', NAMES)
def test_the_expected_loss_over_class_conditional_flips(name):
  """P(labelled good | good) = 1 − GOOD, P(labelled good | bad) = BAD."""
  base = name.removeprefix('conservative_').removeprefix('backward_')
  base = 'bco' if name == 'forward_bco' else base
  shown = np.where(LABEL, 1 - GOOD, BAD)
  gap = np.abs(losses(name, shown) - losses(base)).max()
  if name.startswith('backward'):
    assert gap < 1e-5
  else:
    assert gap > 0.02


def test_forward_is_consistent_where_plain_bco_is_not():
  """The mean gradient over flips vanishes where σ(m) is the clean share."""
  share = RNG.uniform(0.05, 0.95, SIZE)
  u = (np.log(share / (1 - share)) + DELTA) / BETA
  shown = share * (1 - GOOD) + (1 - share) * BAD

  def slope(name):
    return jax.grad(lambda p: jnp.sum(losses(name, shown, p)))(
      jnp.asarray(u + REFERENCE)
    )

  assert np.abs(slope('forward_bco')).max() < 1e-6
  assert np.abs(slope('bco')).max() > 1e-2


@pytest.mark.parametrize('name', ['kto', 'apo_zero_unpaired'])
def test_flips_of_one_rate_only_rescale_the_symmetric_ones(name):
  equal = {'desirable_weight': 1.0, 'undesirable_weight': 1.0}
  equal = equal if name == 'kto' else {}
  eps = 0.3
  np.testing.assert_allclose(
    losses(name, np.where(LABEL, 1 - eps, eps), **equal),
    (1 - 2 * eps) * losses(name, **equal) + eps,
    rtol=1e-5,
  )


def test_flips_of_one_rate_move_the_optimum_of_bco():
  eps = 0.3
  flipped = losses('bco', np.where(LABEL, 1 - eps, eps))
  rest = flipped - (1 - 2 * eps) * losses('bco')
  assert float(np.ptp(rest)) > 0.05


def test_the_symmetric_form_of_bco_is_kto():
  z = BETA * (POLICY - REFERENCE) - DELTA
  expected = np.where(LABEL, _s(-z), _s(z))
  kto = UNPAIRED['kto'](
    POLICY, REFERENCE, LABEL, beta=BETA, reference_point=DELTA / BETA
  )
  np.testing.assert_allclose(kto, expected, rtol=1e-5)


def test_no_gradient_flows_into_reference_point_and_delta():
  for name, key in (('kto', 'reference_point'), ('forward_bco', 'delta')):
    slope = jax.grad(lambda x, n=name, k=key: jnp.sum(losses(n, **{k: x})))(0.7)
    assert slope == 0.0


def test_reference_point_is_a_clamped_mean_over_what_is_there():
  weights = np.asarray([1.0, 2.0, 0.0])
  policy = np.asarray([-3.0, -5.0, np.nan])
  reference = np.asarray([-4.0, -7.0, np.nan])
  value, gradient = jax.value_and_grad(
    lambda p: unpaired.reference_point(p, reference, weights)
  )(jnp.asarray(policy))
  np.testing.assert_allclose(value, (1 + 2 * 2) / 3, rtol=1e-6)
  np.testing.assert_array_equal(gradient, 0.0)
  assert unpaired.reference_point(reference, policy, weights) == 0.0
  assert unpaired.reference_point(policy, reference, weights * 0) == 0.0


def test_running_mean_is_the_mean_of_all_batches():
  mean, count, values, weights = 0.0, 0.0, [], []
  for size in (3, 1, 5):
    batch, weight = RNG.normal(2, 3, size), RNG.uniform(0, 2, size)
    mean, count = unpaired.running_mean(mean, count, batch, weight)
    values, weights = np.append(values, batch), np.append(weights, weight)
    np.testing.assert_allclose(
      mean, np.average(values, weights=weights), rtol=1e-5
    )
  np.testing.assert_allclose(count, weights.sum(), rtol=1e-6)
  same = unpaired.running_mean(mean, count, np.full(2, np.nan), np.zeros(2))
  np.testing.assert_allclose(same, (mean, count))
  assert unpaired.running_mean(0.0, 0.0, np.ones(2), np.zeros(2))[0] == 0.0


REFUSED = [
  ('kto', {'desirable_weight': -1.0}, 'desirable_weight = -1'),
  ('kto', {'beta': 0.0}, 'beta = 0'),
  ('backward_bco', {'label_smoothing_good': -0.1}, 'label_smoothing_good'),
  ('conservative_kto', {'label_smoothing_bad': 1.0}, 'label_smoothing_bad = 1'),
  (
    'forward_bco',
    {'label_smoothing_good': 0.6, 'label_smoothing_bad': 0.4},
    r'label_smoothing_good \+ label_smoothing_bad = 1 is outside \[0, 1\)',
  ),
  ('bco', {'label': PROB + 0.5}, 'label = .* is outside'),
]


@pytest.mark.parametrize('name, changed, complaint', REFUSED)
def test_values_out_of_range_are_refused(name, changed, complaint):
  with pytest.raises(ValueError, match=complaint):
    losses(name, **changed)


@pytest.mark.parametrize('name', NAMES)
def test_a_hyperparameter_that_is_not_used_is_refused(name):
  unused = sorted(set(KEYWORDS) - set(taken(name)))
  for key in unused:
    with pytest.raises(TypeError, match=key):
      losses(name, **{key: KEYWORDS[key]})


LETS_GO = {n for n in NAMES if 'kto' in n or 'apo' in n} | {'forward_bco'}


@pytest.mark.parametrize('name', NAMES)
def test_which_losses_let_go_of_a_label_that_contradicts_them(name):
  def loss(u):
    policy = u[None]
    good = np.ones(1, bool)
    return UNPAIRED[name](policy, jnp.zeros(1), good, **taken(name))[0]

  margins = jnp.asarray([-60.0, 0.0]) / BETA
  far, near = np.abs(jax.vmap(jax.grad(loss))(margins))
  assert (far < 1e-3 * near) == (name in LETS_GO)

"""Losses of C classes: equations, symmetries, expectations over noise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.classification import CLASSIFICATION
from alignment.noise.corruption.classes import symmetric_matrix

RNG = np.random.default_rng(31)
SIZE, CLASSES = 9, 4
LOGITS = RNG.normal(0.0, 2.0, (SIZE, CLASSES))
LABEL = RNG.integers(0, CLASSES, SIZE)
SOFT = RNG.dirichlet(np.ones(CLASSES) * 0.7, SIZE)
_MASS = RNG.uniform(0.05, 1.0, (CLASSES, CLASSES)) + 2.0 * np.eye(CLASSES)
TRANSITION = _MASS / _MASS.sum(axis=1, keepdims=True)
DATA = {
  'forward': {'transition': TRANSITION},
  'backward': {'transition': TRANSITION},
  'elr': {'running_target': RNG.dirichlet(np.ones(CLASSES), SIZE) * 0.8},
  'peer': {
    'peer_logits': RNG.normal(0.0, 2.0, (SIZE, CLASSES)),
    'peer_label': RNG.integers(0, CLASSES, SIZE),
  },
}
NAMES = list(CLASSIFICATION)


def losses(name, logits=LOGITS, label=LABEL, **hyper):
  return CLASSIFICATION[name](logits, label, **DATA.get(name, {}), **hyper)


def _equations():
  """Every loss once more, in float64, straight from its equation."""
  probs = np.exp(LOGITS)
  probs /= probs.sum(axis=1, keepdims=True)
  rows = np.arange(SIZE)
  own = probs[rows, LABEL]
  logs = np.log(probs)
  eps, b = 0.23, 0.7
  onehot = np.eye(CLASSES)[LABEL]
  other_logits = (LOGITS.sum(axis=1) - LOGITS[rows, LABEL]) / (CLASSES - 1)
  target = DATA['elr']['running_target']
  rival = np.exp(DATA['peer']['peer_logits'])
  rival /= rival.sum(axis=1, keepdims=True)
  smooth = (1 - eps) * onehot + eps * (1 - onehot) / (CLASSES - 1)
  return {
    'cross_entropy': ({}, -np.log(own)),
    'conservative': ({'label_smoothing': eps}, -(smooth * logs).sum(axis=1)),
    'forward': ({}, -np.log((probs @ TRANSITION)[rows, LABEL])),
    'backward': ({}, -(np.linalg.inv(TRANSITION)[LABEL] * logs).sum(axis=1)),
    'gce': ({'q': 0.4}, (1 - own**0.4) / 0.4),
    'truncated_gce': (
      {'q': 0.4, 'threshold': 0.2},
      (1 - np.maximum(own, 0.2) ** 0.4) / 0.4,
    ),
    'sce': (
      {'forward_weight': 0.3, 'reverse_weight': 1.4, 'log_zero': -5.0},
      -0.3 * np.log(own) + 1.4 * 5 * (1 - own),
    ),
    'mae': ({}, np.abs(probs - onehot).sum(axis=1)),
    'unhinged': ({}, 1 - LOGITS[rows, LABEL] + other_logits),
    'bootstrap_soft': (
      {'label_weight': b},
      -((b * onehot + (1 - b) * probs) * logs).sum(axis=1),
    ),
    'bootstrap_hard': (
      {'label_weight': b},
      -b * np.log(own) - (1 - b) * logs.max(axis=1),
    ),
    'elr': (
      {'strength': 2.5},
      -np.log(own) + 2.5 * np.log(1 - (target * probs).sum(axis=1)),
    ),
    'peer': (
      {'alpha': 0.6},
      -np.log(own) + 0.6 * np.log(rival[rows, DATA['peer']['peer_label']]),
    ),
  }


EQUATIONS = _equations()


def test_every_loss_has_its_equation_here():
  assert list(EQUATIONS) == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_against_the_equation(name):
  hyper, expected = EQUATIONS[name]
  np.testing.assert_allclose(
    losses(name, **hyper), expected, rtol=2e-5, atol=1e-6
  )


@pytest.mark.parametrize('name', NAMES)
def test_soft_labels_are_mixtures_of_hard_ones(name):
  each = np.stack(
    [losses(name, label=np.full(SIZE, c)) for c in range(CLASSES)], axis=1
  )
  np.testing.assert_allclose(
    losses(name, label=SOFT), (SOFT * each).sum(axis=1), rtol=2e-5, atol=1e-5
  )
  onehot = np.eye(CLASSES)[LABEL]
  np.testing.assert_allclose(
    losses(name, label=onehot), losses(name), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('name', NAMES)
def test_finite_up_to_1e4_with_finite_gradients(name):
  far = np.asarray([0.0, 1e-3, 1.0, 20.0, 88.0, 105.0, 1e3, 1e4])
  logits = np.asarray(list(itertools.product([-1e4, 0.0, 1e4], far, -far)))
  label = np.arange(len(logits)) % 3
  third = {
    'forward': {'transition': symmetric_matrix(3, 0.0)},
    'backward': {'transition': symmetric_matrix(3, 0.3)},
    'elr': {'running_target': np.eye(3)[label]},
    'peer': {'peer_logits': logits[::-1], 'peer_label': label[::-1]},
  }

  def total(logits):
    values = CLASSIFICATION[name](logits, label, **third.get(name, {}))
    return jnp.sum(values), values

  gradient, values = jax.jit(jax.grad(total, has_aux=True))(
    jnp.asarray(logits, jnp.float32)
  )
  assert values.dtype == jnp.float32 and values.shape == (len(logits),)
  assert np.isfinite(values).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize('name', NAMES)
def test_examples_do_not_mix_and_a_shift_of_logits_changes_nothing(name):
  moved = LOGITS + 9.0 * (np.arange(SIZE) == 3)[:, None] * np.eye(CLASSES)[1]
  gap = np.asarray(losses(name, moved) - losses(name))
  np.testing.assert_array_equal(gap != 0, np.arange(SIZE) == 3)
  shift = RNG.normal(0, 5, (SIZE, 1))
  np.testing.assert_allclose(
    losses(name, LOGITS + shift), losses(name), rtol=1e-4, atol=1e-5
  )


SYMMETRIC = {'mae': 2.0 * (CLASSES - 1), 'unhinged': float(CLASSES)}


@pytest.mark.parametrize('name', NAMES)
def test_which_losses_sum_to_a_constant_over_the_labels(name):
  total = sum(
    np.asarray(losses(name, label=np.full(SIZE, c))) for c in range(CLASSES)
  )
  spread = float(np.ptp(total))
  assert (spread < 1e-4) == (name in SYMMETRIC)
  if name in SYMMETRIC:
    np.testing.assert_allclose(total, SYMMETRIC[name], rtol=1e-5)


@pytest.mark.parametrize('name', SYMMETRIC)
def test_symmetric_flips_only_rescale_a_symmetric_loss(name):
  eps = 0.3
  noisy = symmetric_matrix(CLASSES, eps)[LABEL]
  slope = 1 - eps * CLASSES / (CLASSES - 1)
  np.testing.assert_allclose(
    losses(name, label=noisy),
    slope * losses(name) + eps / (CLASSES - 1) * SYMMETRIC[name],
    rtol=1e-4,
    atol=1e-5,
  )


def test_backward_is_unbiased_and_forward_and_plain_are_not():
  clean = np.asarray(losses('cross_entropy'))
  noisy = TRANSITION[LABEL]  # a soft label is the mean over draws
  np.testing.assert_allclose(
    losses('backward', label=noisy), clean, rtol=1e-4, atol=1e-5
  )
  for name in ('cross_entropy', 'forward', 'conservative'):
    assert np.abs(losses(name, label=noisy) - clean).max() > 0.1


@pytest.mark.parametrize('name', ['forward', 'backward', 'cross_entropy'])
def test_whose_population_minimiser_is_the_clean_posterior(name):
  """At logits = log of the clean posterior the noisy gradient is 0."""
  clean = SOFT * 0.9 + 0.1 / CLASSES
  gradient = jax.grad(lambda x: jnp.sum(losses(name, x, clean @ TRANSITION)))(
    jnp.log(clean)
  )
  assert (np.abs(gradient).max() < 1e-5) == (name != 'cross_entropy')


def test_peer_loss_is_affine_in_the_clean_one_by_enumeration():
  """Flips that do not look at where they come from; peers are all pairs."""
  rates = np.asarray([0.1, 0.25, 0.05, 0.2])
  matrix = np.tile(rates, (CLASSES, 1)) + np.eye(CLASSES) * (1 - rates.sum())
  onehot = np.eye(CLASSES)[LABEL]

  def population(label):
    """Mean over examples i, peers (j, k): label of i, logits j, label k."""
    own = CLASSIFICATION['cross_entropy'](LOGITS, label)
    j, k = np.meshgrid(range(SIZE), range(SIZE))
    peers = CLASSIFICATION['cross_entropy'](LOGITS[j.ravel()], label[k.ravel()])
    direct = CLASSIFICATION['peer'](
      LOGITS,
      label,
      peer_logits=LOGITS,
      peer_label=np.tile(label.mean(axis=0), (SIZE, 1)),
    )
    np.testing.assert_allclose(
      np.mean(own) - np.mean(peers), np.mean(direct), rtol=1e-4, atol=1e-5
    )
    return float(np.mean(direct))

  with jax.enable_x64(True):
    clean, noisy = population(onehot), population(matrix[LABEL])
    np.testing.assert_allclose(noisy, (1 - rates.sum()) * clean, rtol=1e-9)
  assert abs(clean) > 0.01


def test_peer_loss_of_two_classes_under_any_two_rates():
  logits, label = LOGITS[:, :2], LABEL % 2
  matrix = np.asarray([[0.9, 0.1], [0.35, 0.65]])

  def population(label, alpha):
    prior = np.tile(label.mean(axis=0), (SIZE, 1))
    return float(
      np.mean(
        CLASSIFICATION['peer'](
          logits, label, peer_logits=logits, peer_label=prior, alpha=alpha
        )
      )
    )

  with jax.enable_x64(True):
    clean = population(np.eye(2)[label], 1.0)
    noisy = population(matrix[label], 1.0)
    np.testing.assert_allclose(noisy, (1 - 0.1 - 0.35) * clean, rtol=1e-9)
    gap = population(matrix[label], 0.5) - 0.55 * population(
      np.eye(2)[label], 0.5
    )
    costs = [
      np.mean(CLASSIFICATION['cross_entropy'](logits, np.full(SIZE, c)))
      for c in (0, 1)
    ]
    # (1 − alpha)·Σ_j e_j·E[cost of label j], e_j = P(written j | not j)
    expected = 0.5 * (0.35 * costs[0] + 0.1 * costs[1])
    np.testing.assert_allclose(gap, expected, rtol=1e-9)


def test_peer_loss_of_equally_frequent_classes_is_the_unhinged_loss():
  even = np.full((SIZE, CLASSES), 1 / CLASSES)
  peers = CLASSIFICATION['peer'](
    LOGITS, LABEL, peer_logits=LOGITS, peer_label=even
  )
  share = (CLASSES - 1) / CLASSES
  np.testing.assert_allclose(
    peers, share * (losses('unhinged') - 1), rtol=1e-4, atol=1e-5
  )


def test_soft_bootstrapping_with_a_held_target_would_be_no_defence():
  b = 0.7

  def held(logits):
    probs = jax.lax.stop_gradient(jax.nn.softmax(logits))
    target = b * jax.nn.one_hot(LABEL, CLASSES) + (1 - b) * probs
    return -jnp.sum(target * jax.nn.log_softmax(logits))

  logits = jnp.asarray(LOGITS, jnp.float32)
  plain = jax.grad(lambda x: jnp.sum(losses('cross_entropy', x)))(logits)
  np.testing.assert_allclose(
    jax.grad(held)(logits), b * plain, rtol=1e-4, atol=1e-6
  )
  real = jax.grad(
    lambda x: jnp.sum(losses('bootstrap_soft', x, label_weight=b))
  )(logits)
  probs = np.asarray(jax.nn.softmax(logits))
  entropy = -(probs * np.log(probs)).sum(axis=1, keepdims=True)
  # ∂H/∂logit_c = −p_c·(log p_c + H)
  expected = b * plain - (1 - b) * probs * (np.log(probs) + entropy)
  np.testing.assert_allclose(real, expected, rtol=1e-4, atol=1e-6)
  assert np.abs(real - b * plain).max() > 0.05


def test_elr_pulls_towards_its_target_without_a_gradient_into_it():
  hyper = DATA['elr']

  def total(target, strength):
    return jnp.sum(
      CLASSIFICATION['elr'](
        LOGITS, LABEL, running_target=target, strength=strength
      )
    )

  gradient = jax.grad(total)(jnp.asarray(hyper['running_target']), 3.0)
  np.testing.assert_array_equal(gradient, 0.0)
  np.testing.assert_allclose(
    losses('elr', strength=0.0), losses('cross_entropy'), rtol=1e-6
  )
  assert total(np.eye(CLASSES)[LOGITS.argmax(1)], 3.0) < total(
    np.eye(CLASSES)[LOGITS.argmin(1)], 3.0
  )


def test_limits_of_the_families():
  plain = losses('cross_entropy')
  for name, hyper in (
    ('gce', {'q': 0.0}),
    ('conservative', {'label_smoothing': 0.0}),
    ('sce', {'forward_weight': 1.0, 'reverse_weight': 0.0}),
    ('bootstrap_soft', {'label_weight': 1.0}),
    ('bootstrap_hard', {'label_weight': 1.0}),
    ('peer', {'alpha': 0.0}),
    ('truncated_gce', {'q': 0.0, 'threshold': 1e-9}),
  ):
    np.testing.assert_allclose(losses(name, **hyper), plain, rtol=1e-5)
  np.testing.assert_allclose(2 * losses('gce', q=1.0), losses('mae'), rtol=1e-5)


# What the observed label pulls, −∂loss/∂(its logit), two classes, at p → 0.
REDESCENDING = {'forward', 'gce', 'truncated_gce', 'mae'}


@pytest.mark.parametrize('name', NAMES)
def test_which_losses_let_go_of_a_label_that_contradicts_them(name):
  data = {
    'forward': {'transition': symmetric_matrix(2, 0.2)},
    'backward': {'transition': symmetric_matrix(2, 0.2)},
    'elr': {'running_target': np.asarray([[0.5, 0.3]])},
    'peer': {'peer_logits': np.zeros((1, 2)), 'peer_label': np.asarray([1])},
  }.get(name, {})

  def loss(z):
    logits = jnp.stack([jnp.zeros(()), z])[None]
    return CLASSIFICATION[name](logits, np.asarray([1]), **data)[0]

  far, near = np.abs(jax.vmap(jax.grad(loss))(jnp.asarray([-60.0, 0.0])))
  assert (far < 1e-3 * near) == (name in REDESCENDING)


BAD = {
  'one class': (LOGITS[:, :1], LABEL, r'logits has shape \(9, 1\)'),
  'flat': (LOGITS[0], LABEL, r'must be \[B, C\]'),
  'too large': (LOGITS, LABEL + 1, r'label\[.\] = 4 must be in \[0, 4\)'),
  'negative': (LOGITS, LABEL - 1, r'= -1 must be in'),
  'too few': (LOGITS, LABEL[:3], r'label of shape \(3,\)'),
  'floats': (LOGITS, LABEL * 1.0, 'type float'),
  'no sum': (LOGITS, SOFT * 0.9, r'label\[0\] = .* sum to 1'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_labels_are_refused(name):
  logits, label, complaint = BAD[name]
  with pytest.raises(ValueError, match=complaint):
    CLASSIFICATION['gce'](logits, label)


@pytest.mark.parametrize('bad', [-1, CLASSES])
def test_a_traced_label_outside_the_classes_gives_nan(bad):
  label = np.where(np.arange(SIZE) == 2, bad, LABEL)
  values = jax.jit(CLASSIFICATION['cross_entropy'])(LOGITS, label)
  np.testing.assert_array_equal(np.isnan(values), np.arange(SIZE) == 2)


RANGES = [
  ('conservative', 'label_smoothing', 0.75),
  ('gce', 'q', 1.1),
  ('truncated_gce', 'q', -0.1),
  ('truncated_gce', 'threshold', 1.0),
  ('sce', 'log_zero', 0.0),
  ('bootstrap_soft', 'label_weight', 1.2),
  ('bootstrap_hard', 'label_weight', -0.1),
]


@pytest.mark.parametrize('name, key, value', RANGES)
def test_hyperparameters_outside_their_range_are_refused(name, key, value):
  with pytest.raises(ValueError, match=f'{key} = .* is outside'):
    losses(name, **{key: value})


@pytest.mark.parametrize('name', NAMES)
def test_a_hyperparameter_that_is_not_used_is_refused(name):
  with pytest.raises(TypeError, match='tau'):
    losses(name, tau=1.0)


def test_one_smoothing_per_example():
  eps = RNG.uniform(0, 0.7, SIZE)
  each = [
    losses('conservative', LOGITS[[b]], LABEL[[b]], label_smoothing=eps[b])[0]
    for b in range(SIZE)
  ]
  np.testing.assert_allclose(
    losses('conservative', label_smoothing=eps), each, rtol=1e-5
  )

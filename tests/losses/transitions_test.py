"""Corrections by a transition matrix, `[C, C]` or one per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import transitions

RNG = np.random.default_rng(21)
SIZE, CLASSES = 7, 4


def stochastic(*shape):
  """Random rows that lean to the diagonal, so that the matrix is invertible."""
  mass = RNG.uniform(0.05, 1.0, (*shape, CLASSES, CLASSES))
  mass += 2.0 * np.eye(CLASSES)
  return mass / mass.sum(axis=-1, keepdims=True)


SHARED, OWN = stochastic(), stochastic(SIZE)
COSTS = RNG.normal(1.0, 2.0, (SIZE, CLASSES))


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _log_probs():
  logits = RNG.normal(0.0, 3.0, (SIZE, CLASSES))
  return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.mark.parametrize('matrix', [SHARED, OWN], ids=['one', 'per example'])
def test_backward_is_the_inverse_applied_to_each_example(matrix):
  mine = transitions.backward(COSTS, matrix)
  for b in range(SIZE):
    own = matrix if matrix.ndim == 2 else matrix[b]
    np.testing.assert_allclose(
      mine[b], np.linalg.inv(own) @ COSTS[b], rtol=1e-9
    )


@pytest.mark.parametrize('matrix', [SHARED, OWN], ids=['one', 'per example'])
def test_backward_is_unbiased_for_any_costs(matrix):
  mine = np.asarray(transitions.backward(COSTS, matrix))
  expected = np.einsum(
    'bij,bj->bi', np.broadcast_to(matrix, (SIZE, CLASSES, CLASSES)), mine
  )
  np.testing.assert_allclose(expected, COSTS, rtol=1e-9)


@pytest.mark.parametrize('matrix', [SHARED, OWN], ids=['one', 'per example'])
def test_forward_is_the_likelihood_of_the_noisy_label(matrix):
  log_probs = _log_probs()
  mine = transitions.forward(log_probs, matrix)
  for b in range(SIZE):
    own = matrix if matrix.ndim == 2 else matrix[b]
    np.testing.assert_allclose(
      mine[b], -np.log(np.exp(log_probs[b]) @ own), rtol=1e-9
    )


def test_forward_by_the_identity_is_the_clean_likelihood_far_out():
  log_probs = jax.nn.log_softmax(
    jnp.asarray([[1e4, -1e4, 0.0], [3.0, 2.0, -1e4]], jnp.float32)
  )
  costs = transitions.forward(log_probs, np.eye(3))
  np.testing.assert_array_equal(costs, -log_probs)


def test_zero_entries_have_a_finite_gradient():
  pair_flip = jnp.asarray([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]])
  log_probs = jnp.asarray(_log_probs()[:, :3])
  for argument in (0, 1):
    gradient = jax.grad(lambda *a: jnp.sum(transitions.forward(*a)), argument)(
      log_probs, pair_flip
    )
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


REFUSED = {
  'shape': (np.eye(3), r'transition has shape \(3, 3\), must be \(4, 4\) or'),
  'batch': (OWN[:3], r'\(3, 4, 4\), must be \(4, 4\) or \(7, 4, 4\)'),
  'sum': (SHARED * 0.9, r'transition\[..., 0, :\] = .* sum to 1'),
  'columns': (SHARED.T, 'must be probabilities that sum to 1'),
  'negative': (
    np.eye(4) + [[0.2, -0.2, 0, 0]] + np.zeros((4, 1)),
    r'transition\[..., 0, :\]',
  ),
  'nan': (SHARED * np.nan, 'must be probabilities'),
}


@pytest.mark.parametrize('correct', [transitions.forward, transitions.backward])
@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_transition_is_refused(name, correct):
  matrix, complaint = REFUSED[name]
  with pytest.raises(ValueError, match=complaint):
    correct(COSTS, matrix)


def test_a_rank_deficient_matrix_is_refused_backward_only():
  blind = SHARED.copy()
  blind[2] = blind[1]
  with pytest.raises(ValueError, match='rank below 4'):
    transitions.backward(COSTS, blind)
  with pytest.raises(ValueError, match='rank below 4'):
    transitions.backward(COSTS, np.stack([SHARED] * 6 + [blind]))
  assert np.isfinite(transitions.forward(_log_probs(), blind)).all()


def test_a_label_that_nothing_becomes_has_no_likelihood():
  never = np.asarray(
    [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 1, 0], [0.5, 0, 0.5, 0]]
  )
  with pytest.raises(ValueError, match='no class is ever written as 3'):
    transitions.forward(_log_probs(), never)


@pytest.mark.parametrize('correct', [transitions.forward, transitions.backward])
def test_a_known_matrix_is_checked_under_jit_and_a_traced_one_passes(correct):
  with pytest.raises(ValueError, match='sum to 1'):
    jax.jit(lambda costs: correct(costs, SHARED * 0.9))(COSTS)
  assert np.isfinite(jax.jit(correct)(COSTS, SHARED * 0.9)).all()

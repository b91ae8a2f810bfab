"""Labels of steps: where they stand, what they weigh, whose loss it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import steps
from alignment.losses.classification import CLASSIFICATION

RNG = np.random.default_rng(61)
SIZE, STEPS, TOKENS, VOCABULARY = 3, 4, 11, 9
COUNTS = np.asarray([4, 1, 2])
REAL = np.arange(STEPS) < COUNTS[:, None]
LOGITS = RNG.normal(0, 2, (SIZE, STEPS, 2))
LABEL = RNG.integers(0, 2, (SIZE, STEPS))
WEIGHTS = REAL * RNG.uniform(0.5, 2.0, (SIZE, STEPS))


def _by_hand(label_loss, weights):
  """Σ over real steps, one at a time."""
  total = sum(
    weights[b, s] * label_loss(b, s)
    for b in range(SIZE)
    for s in range(COUNTS[b])
  )
  return total / weights.sum()


def test_logits_of_the_class_tokens_where_steps_are_judged():
  tokens = RNG.normal(size=(SIZE, TOKENS, VOCABULARY))
  positions = RNG.integers(0, TOKENS, (SIZE, STEPS))
  found = steps.step_logits(tokens, positions, [7, 2])
  for b in range(SIZE):
    for s in range(STEPS):
      np.testing.assert_allclose(
        found[b, s], tokens[b, positions[b, s]][[7, 2]], rtol=1e-6
      )


def test_cross_entropy_counts_every_step_of_the_batch_alike():
  def loss(b, s):
    return np.logaddexp(*LOGITS[b, s]) - LOGITS[b, s, LABEL[b, s]]

  term = steps.step_term('cross_entropy', LOGITS, LABEL, REAL * 1.0)
  np.testing.assert_allclose(term.value(), _by_hand(loss, REAL * 1.0), 1e-5)
  assert term.normaliser == COUNTS.sum()
  weighted = steps.step_term('cross_entropy', LOGITS, LABEL, WEIGHTS)
  np.testing.assert_allclose(weighted.value(), _by_hand(loss, WEIGHTS), 1e-5)


def test_soft_labels():
  prob = RNG.random((SIZE, STEPS))
  soft = np.stack([1 - prob, prob], axis=-1)

  def loss(b, s):
    return np.logaddexp(*LOGITS[b, s]) - soft[b, s] @ LOGITS[b, s]

  term = steps.step_term('cross_entropy', LOGITS, soft, WEIGHTS)
  np.testing.assert_allclose(term.value(), _by_hand(loss, WEIGHTS), 1e-5)


def test_equal_weight_for_every_solution_is_a_matter_of_weights():
  per_step = np.asarray(
    CLASSIFICATION['gce'](LOGITS.reshape(-1, 2), LABEL.reshape(-1))
  ).reshape(SIZE, STEPS)
  by_solution = np.mean([per_step[b, :n].mean() for b, n in enumerate(COUNTS)])
  term = steps.step_term('gce', LOGITS, LABEL, REAL / COUNTS[:, None])
  np.testing.assert_allclose(term.value(), by_solution, rtol=1e-5)


def _random_transitions(*shape):
  return RNG.dirichlet([1.0, 1.0], (*shape, 2)) * 0.4 + 0.6 * np.eye(2)


@pytest.mark.parametrize('name', ['forward', 'backward'])
@pytest.mark.parametrize(
  'matrix',
  [_random_transitions(), _random_transitions(SIZE, STEPS)],
  ids=['one', 'per step'],
)
def test_corrections_by_a_transition_for_all_or_for_each_step(name, matrix):
  def loss(b, s):
    own = matrix if matrix.ndim == 2 else matrix[b, s]
    return CLASSIFICATION[name](
      LOGITS[b, s][None], LABEL[b, s][None], transition=own
    )[0]

  term = steps.step_term(name, LOGITS, LABEL, WEIGHTS, transition=matrix)
  np.testing.assert_allclose(term.value(), _by_hand(loss, WEIGHTS), rtol=1e-4)


def test_two_by_two_by_two_is_no_transition_per_step():
  """B = S = C: the matrix for all keeps its shape."""
  matrix = np.asarray([[0.9, 0.1], [0.2, 0.8]])
  logits, label = LOGITS[:2, :2], LABEL[:2, :2]
  term = steps.step_term(
    'backward', logits, label, np.ones((2, 2)), transition=matrix
  )
  expected = CLASSIFICATION['backward'](
    logits.reshape(4, 2), label.reshape(4), transition=matrix
  )
  np.testing.assert_allclose(term.value(), np.mean(expected), rtol=1e-5)


def test_padding_holds_anything_and_coefficients_are_no_weights():
  scale = RNG.uniform(0.5, 2.0, (SIZE, STEPS))
  poisoned = np.where(REAL[:, :, None], LOGITS, np.nan)
  label = np.where(REAL, LABEL, 99)
  smoothing = np.where(REAL, 0.2, np.nan)

  def value(logits):
    return steps.step_term(
      'conservative', logits, label, WEIGHTS, scale, label_smoothing=smoothing
    ).value()

  found, gradient = jax.value_and_grad(value)(jnp.asarray(poisoned))

  def loss(b, s):
    return scale[b, s] * np.asarray(
      CLASSIFICATION['conservative'](
        LOGITS[b, s][None], LABEL[b, s][None], label_smoothing=0.2
      )[0]
    )

  np.testing.assert_allclose(found, _by_hand(loss, WEIGHTS), rtol=1e-5)
  assert np.isfinite(gradient).all() and np.all(gradient[~REAL] == 0)


def test_unknown_losses_are_refused():
  with pytest.raises(ValueError, match="classification loss = 'prm'"):
    steps.step_term('prm', LOGITS, LABEL, WEIGHTS)

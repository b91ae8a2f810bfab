"""ELR's table: updates by index, and what it remembers of noisy training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.classification import CLASSIFICATION
from alignment.metrics.auroc import auroc
from alignment.noise.detection import elr


def test_update_touches_the_batch_only():
  rng = np.random.default_rng(0)
  targets = rng.dirichlet(np.ones(3), 6).astype(np.float32) * 0.8
  probs = rng.dirichlet(np.ones(3), 3).astype(np.float32)
  index, weights = np.array([4, 1, 0]), np.array([1.0, 2.0, 0.0])
  found = jax.jit(elr.update)(targets, index, probs, weights, momentum=0.6)
  want = targets.copy()
  want[[4, 1]] = 0.6 * targets[[4, 1]] + 0.4 * probs[:2]
  np.testing.assert_allclose(found, want, rtol=1e-5)
  # The empty slot carries index 0, which stays as it was.
  np.testing.assert_array_equal(found[0], targets[0])


def test_empty_slots_do_not_reset_a_real_row():
  targets = elr.start(2, 2)
  found = elr.update(
    targets,
    jnp.array([0, 0, 0]),
    jnp.array([[0.9, 0.1], [jnp.nan, jnp.nan], [0.5, 0.5]]),
    jnp.array([1.0, 0.0, 0.0]),
  )
  np.testing.assert_allclose(found, [[0.27, 0.03], [0, 0]], rtol=1e-6)
  with pytest.raises(ValueError, match='momentum'):
    elr.update(
      targets, jnp.array([0]), jnp.ones((1, 2)), jnp.ones(1), momentum=2
    )


def test_the_mass_of_a_row_tells_how_often_it_was_seen():
  targets = elr.start(1, 4)
  for _ in range(5):
    targets = elr.update(
      targets, jnp.array([0]), jnp.full((1, 4), 0.25), jnp.ones(1)
    )
  assert float(targets.sum()) == pytest.approx(1 - 0.7**5, rel=1e-5)


def test_it_remembers_what_was_learnt_before_memorising():
  """60 rows in 200 dimensions can be fitted whatever their labels.

  After training the model agrees with every label; the table, averaged over
  the early steps, still tells the flipped from the others.
  """
  rng = np.random.default_rng(1)
  truth = rng.integers(0, 2, 60)
  x = rng.normal(0, 1, (60, 200)) + 0.45 * (2 * truth - 1)[:, None]
  wrong = np.arange(60) % 5 == 0
  label = np.where(wrong, 1 - truth, truth)

  @jax.jit
  def step(w, targets):
    def loss(w):
      logits = x @ w
      return jnp.mean(CLASSIFICATION['cross_entropy'](logits, label)), logits

    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(w)
    targets = elr.update(
      targets,
      jnp.arange(60),
      jax.nn.softmax(logits),
      jnp.ones(60),
      momentum=0.95,
    )
    return w - 0.05 * gradient, targets

  w, early = jnp.zeros((200, 2)), elr.start(60, 2)
  for number in range(400):
    w, targets = step(w, early)
    early = targets if number < 20 else early
  assert np.mean((x @ w).argmax(axis=1) == label) == 1
  found = elr.suspicion(early, label)
  assert auroc(found, wrong) > 0.95


def test_suspicion_of_rows_never_seen():
  targets = np.array([[0.2, 0.6], [0.0, 0.0]])
  np.testing.assert_allclose(
    elr.suspicion(targets, np.array([0, 1])), [0.75, 0.5]
  )

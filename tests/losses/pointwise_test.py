"""Terms of single examples: weights are copies, empty slots hold anything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.pointwise import (
  CLASSIFICATION,
  UNPAIRED,
  classification_term,
  hyperparameters,
  needs,
  unpaired_term,
)
from alignment.noise.corruption.classes import symmetric_matrix

RNG = np.random.default_rng(51)
SIZE, CLASSES = 6, 3
WEIGHTS = np.asarray([1.0, 2.0, 1.0, 3.0, 1.0, 1.0])
SCALE = RNG.uniform(0.2, 2.0, SIZE)
PER_EXAMPLE = {
  'transition': RNG.dirichlet(np.ones(CLASSES), (SIZE, CLASSES)) * 0.3
  + 0.7 * np.eye(CLASSES),
  'running_target': RNG.dirichlet(np.ones(CLASSES), SIZE),
  'peer_logits': RNG.normal(0, 2, (SIZE, CLASSES)),
  'peer_label': RNG.dirichlet(np.ones(CLASSES), SIZE),
  'label_smoothing': RNG.uniform(0, 0.5, SIZE),
  'reference_point': 0.7,
  'delta': 0.2,
  'label_smoothing_good': RNG.uniform(0, 0.4, SIZE),
  'label_smoothing_bad': RNG.uniform(0, 0.4, SIZE),
}
# Terms know nothing of a loss but what it reads: one of every kind.
CASES = [
  (name, CLASSIFICATION)
  for name in ('gce', 'conservative', 'forward', 'backward', 'elr', 'peer')
] + [(name, UNPAIRED) for name in ('kto', 'forward_bco')]


def _inputs(name, losses):
  function = losses[name]
  known = (*needs(function), *hyperparameters(function))
  inputs = {key: PER_EXAMPLE[key] for key in known if key in PER_EXAMPLE}
  if losses is UNPAIRED:
    logps = -RNG.uniform(2, 30, (2, SIZE))
    inputs |= {'policy_logps': logps[0], 'reference_logps': logps[1]}
    return inputs | {'label': RNG.random(SIZE)}
  inputs['logits'] = RNG.normal(0, 2, (SIZE, CLASSES))
  return inputs | {'label': RNG.dirichlet(np.ones(CLASSES), SIZE)}


def _term(name, losses, inputs, weights, scale):
  term = unpaired_term if losses is UNPAIRED else classification_term
  return term(name, weights=weights, coefficient=scale, **inputs)


def _rows(inputs, rows):
  return {
    key: value[rows] if np.ndim(value) else value
    for key, value in inputs.items()
  }


@pytest.mark.parametrize('name, losses', CASES)
def test_a_weight_is_so_many_copies(name, losses):
  inputs = _inputs(name, losses)
  rows = np.repeat(np.arange(SIZE), WEIGHTS.astype(int))
  ones = np.ones(len(rows))
  np.testing.assert_allclose(
    _term(name, losses, inputs, WEIGHTS, SCALE).value(),
    _term(name, losses, _rows(inputs, rows), ones, SCALE[rows]).value(),
    rtol=1e-5,
  )


@pytest.mark.parametrize('name, losses', CASES)
def test_a_coefficient_multiplies_and_is_no_weight(name, losses):
  inputs = _inputs(name, losses)
  plain = losses[name](**inputs)
  expected = np.sum(WEIGHTS * SCALE * plain) / np.sum(WEIGHTS)
  value = _term(name, losses, inputs, WEIGHTS, SCALE).value()
  np.testing.assert_allclose(value, expected, rtol=1e-5)


TRACED = [(n, losses, True) for n, losses in CASES if n in ('backward', 'kto')]


@pytest.mark.parametrize(
  'name, losses, is_traced', [(*case, False) for case in CASES] + TRACED
)
def test_what_stands_in_empty_slots_is_never_read(name, losses, is_traced):
  inputs = _inputs(name, losses)
  weights = WEIGHTS * (np.arange(SIZE) != 2)
  scale = np.where(weights > 0, SCALE, np.nan)
  poisoned = {
    key: np.where(
      (weights > 0).reshape(-1, *[1] * (np.ndim(value) - 1)), value, np.nan
    )
    if np.ndim(value)
    else value
    for key, value in inputs.items()
  }
  model = 'policy_logps' if losses is UNPAIRED else 'logits'

  def value(x, given):
    return _term(name, losses, {**given, model: x}, weights, scale).value()

  slope = jax.value_and_grad(value)
  slope = jax.jit(slope) if is_traced else slope
  found, gradient = slope(jnp.asarray(poisoned[model]), poisoned)
  kept = weights > 0
  expected = _term(
    name, losses, _rows(inputs, kept), weights[kept], SCALE[kept]
  ).value()
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert np.isfinite(gradient).all() and np.all(gradient[2] == 0)


def test_an_empty_batch_is_worth_0():
  term = classification_term(
    'gce', np.ones((2, 3)), np.asarray([0, 1]), np.zeros(2)
  )
  assert term.value() == 0.0 and term.normaliser == 0.0


def test_one_transition_for_all_stays_one():
  """Also where there are as many examples as classes."""
  matrix = symmetric_matrix(2, 0.3)
  logits, label = RNG.normal(size=(2, 2)), np.asarray([0, 1])
  term = classification_term(
    'backward', logits, label, np.asarray([0.0, 1.0]), transition=matrix
  )
  alone = CLASSIFICATION['backward'](logits[1:], label[1:], transition=matrix)
  np.testing.assert_allclose(term.value(), alone[0], rtol=1e-5)


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match="classification loss = 'dpo' is none"):
    classification_term('dpo', np.ones((1, 2)), np.zeros(1, int), np.ones(1))
  with pytest.raises(ValueError, match="unpaired loss = 'dpo' is none of"):
    unpaired_term('dpo', np.ones(1), np.ones(1), [True], np.ones(1))

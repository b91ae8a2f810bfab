"""Best-of-n against enumeration, simulation and its closed forms."""

import itertools

import numpy as np
import pytest
from scipy import special

from alignment.metrics.best_of_n import best_of_n


def _enumerated(scores, probs, n):
  """Every sequence of n draws, its probability, an equal share for ties."""
  found = np.zeros(len(scores))
  for draws in itertools.product(range(len(scores)), repeat=n):
    top = [c for c in draws if scores[c] == max(scores[list(draws)])]
    for c in top:
      found[c] += np.prod(probs[list(draws)]) / len(top)
  return found


@pytest.mark.parametrize('n', [1, 2, 4])
def test_every_sequence_of_draws(n):
  rng = np.random.default_rng(n)
  probs = rng.dirichlet(np.ones(5), size=3)
  # The second row has ties.
  scores = np.array([rng.normal(size=5), [2, 1, 2, 0, 1], rng.normal(size=5)])
  found = best_of_n(scores, probs, [n])
  for row in range(3):
    np.testing.assert_allclose(
      found[0, row], _enumerated(scores[row], probs[row], n), atol=1e-12
    )


def test_limits_and_impossible_completions():
  probs = np.array([0.5, 0.0, 0.3, 0.2])
  scores = np.array([0.0, 9.0, 1.0, -1.0])
  one, many = best_of_n(scores, probs, [1, 10_000])
  np.testing.assert_allclose(one, probs)
  np.testing.assert_allclose(many, [0, 0, 1, 0], atol=1e-12)


def test_divergence_is_below_its_bound_and_near_it_for_many_completions():
  rng = np.random.default_rng(0)
  probs = rng.dirichlet(np.ones(4000))
  counts = [2, 16, 64]
  best = best_of_n(rng.random(4000), probs, counts)
  found = special.rel_entr(best, probs).sum(axis=-1)
  bound = np.log(counts) - 1 + 1 / np.array(counts)
  assert (found < bound).all()
  np.testing.assert_allclose(found, bound, rtol=0.02)


def test_mean_score_agrees_with_drawing():
  rng = np.random.default_rng(5)
  probs, scores = rng.dirichlet(np.ones(30)), rng.normal(size=30)
  exact = best_of_n(scores, probs, [8])[0] @ scores
  drawn = scores[rng.choice(30, (40_000, 8), p=probs)].max(axis=1)
  # Four standard errors of the mean.
  assert abs(drawn.mean() - exact) < 4 * drawn.std() / 200


@pytest.mark.parametrize(
  'scores, probs, counts, message',
  [
    (np.ones(3), np.ones(4) / 4, [1], 'both must be'),
    (np.ones(2), np.array([0.5, 0.6]), [1], 'sum to 1'),
    (np.ones(2), np.array([1.5, -0.5]), [1], 'sum to 1'),
    (np.ones(2), np.array([0.5, 0.5]), [0], 'counts'),
    (np.ones(2), np.array([0.5, 0.5]), [], 'counts'),
  ],
)
def test_refusals(scores, probs, counts, message):
  with pytest.raises(ValueError, match=message):
    best_of_n(scores, probs, counts)

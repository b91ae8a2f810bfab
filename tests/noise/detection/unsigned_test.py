"""Posteriors from votes nobody signed, against Bayes by hand and simulation."""

import numpy as np
import pytest

from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.unsigned import (
  equal_posterior,
  varying_posterior,
)


def table(labels, num_classes):
  """One row of labels per task, worker by column."""
  rows, votes = np.shape(labels)
  return VoteTable(
    np.repeat(np.arange(rows), votes),
    np.tile(np.arange(votes), rows),
    np.ravel(labels),
    rows,
    votes,
    num_classes,
  )


def test_one_rate_is_bayes_by_hand():
  votes = table([[0, 2, 2], [1, 1, 1]], 3)
  found = equal_posterior(votes, 0.3)
  likelihood = np.array(
    [
      [0.7 * 0.15**2, 0.15**3, 0.15 * 0.7**2],
      [0.15**3, 0.7**3, 0.15**3],
    ]
  )
  wanted = likelihood / likelihood.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(found, wanted, rtol=1e-12)
  with pytest.raises(ValueError, match='rate=1.2 must lie'):
    equal_posterior(votes, 1.2)


def drawn(rng, rows, votes, a, b):
  truth = rng.integers(0, 2, rows)
  rate = rng.beta(a, b, rows) / 2
  wrong = rng.random((rows, votes)) < rate[:, None]
  return truth, rate, table(truth[:, None] ^ wrong, 2)


def test_rates_that_vary_are_calibrated_where_one_rate_is_too_sure():
  rng = np.random.default_rng(0)
  truth, rate, votes = drawn(rng, 20_000, 5, 0.7, 1.1)
  posterior, mean = varying_posterior(votes)
  # The mean is that of the law: its error is that of the fit, about .01.
  assert mean == pytest.approx(rate.mean(), abs=0.02)
  naive = equal_posterior(votes, 0.17)
  total = votes.counts.sum(axis=1)
  for lead in (1, 3, 5):
    rows = np.abs(np.diff(votes.counts, axis=1)[:, 0]) == lead
    best = votes.counts[rows].argmax(axis=1)
    wrong = np.mean(best != truth[rows])
    of_law = 1 - posterior[rows].max(axis=1).mean()
    of_one = 1 - naive[rows].max(axis=1).mean()
    # 3,000 rows and more in a cell: a standard error of .008 at most.
    assert of_law == pytest.approx(wrong, abs=0.025)
    assert of_one < wrong - 0.02 or lead == 5
  assert total.min() == 5


def test_ties_say_nothing_and_few_votes_are_refused():
  rng = np.random.default_rng(1)
  _, _, votes = drawn(rng, 500, 4, 2.0, 3.0)
  posterior, _ = varying_posterior(votes)
  tied = votes.counts[:, 0] == 2
  np.testing.assert_allclose(posterior[tied], 0.5, atol=1e-12)
  _, _, three = drawn(rng, 500, 3, 2.0, 3.0)
  with pytest.raises(ValueError, match='four on some row'):
    varying_posterior(three)

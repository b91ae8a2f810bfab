"""Pools with spammers and adversaries, and the votes they cast."""

import jax
import numpy as np
import pytest

from alignment.noise.corruption.annotators import (
  beta_rates,
  per_annotator,
  simulate_votes,
)

_KEY = jax.random.key(16)


def _pool(size: int, num: int) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(13)
  return rng.random(size) < 0.5, np.minimum(rng.geometric(0.05, size), num) - 1


def test_shares_of_spammers_and_adversaries_are_exact():
  _, who = _pool(5000, 40)
  rates = beta_rates(
    _KEY,
    who,
    flip_rate=0.3,
    concentration=20.0,
    spammers=0.2,
    adversaries=0.1,
  )
  assert len(rates) == 40
  assert (rates == 1).sum() == 4 and (rates == 0.5).sum() == 8
  assert rates[who].mean() == pytest.approx(0.3, abs=1e-9)
  lower = beta_rates(
    _KEY,
    who,
    flip_rate=0.28,
    concentration=20.0,
    spammers=0.2,
    adversaries=0.1,
  )
  assert np.all(lower <= rates)
  np.testing.assert_array_equal(lower == 0.5, rates == 0.5)


def test_what_the_pool_alone_gets_wrong_is_out_of_reach():
  clean, who = _pool(2000, 20)
  given = {'index': np.arange(2000), 'annotator_id': who}
  with pytest.raises(ValueError, match='flip_rate=0.1 is out of reach'):
    per_annotator(_KEY, clean, flip_rate=0.1, adversaries=0.5, **given)
  with pytest.raises(ValueError, match='spammers=0.8 and adversaries=0.3'):
    per_annotator(
      _KEY, clean, flip_rate=0.1, spammers=0.8, adversaries=0.3, **given
    )
  with pytest.raises(ValueError, match='spammers=0.1 must be None where'):
    per_annotator(
      _KEY, clean, reliabilities=np.full(20, 0.8), spammers=0.1, **given
    )


def test_votes_are_as_reliable_as_their_workers():
  clean = np.random.default_rng(14).random(6000) < 0.4
  skill = np.array([0.95, 0.7, 0.5, 0.2])
  who = np.tile([0, 1, 2, 3], (6000, 1))
  who[::3, 1] = -1
  votes = simulate_votes(
    _KEY, clean, index=np.arange(6000), annotator_id=who, reliabilities=skill
  )
  assert len(votes) == 4 * 6000 - 2000 and votes.num_tasks == 6000
  right = (votes.label == 0) == clean[votes.task]
  for worker in range(4):
    # Four standard deviations of a share of at least 4,000.
    assert right[votes.worker == worker].mean() == pytest.approx(
      skill[worker], abs=4 * 0.008
    )
  both = right[votes.worker == 0] * 1.0, right[votes.worker == 3] * 1.0
  # Errors of two workers on the same pairs are uncorrelated.
  assert abs(np.corrcoef(*both)[0, 1]) < 4 / np.sqrt(6000)
  with pytest.raises(ValueError, match='annotator_id has shape'):
    simulate_votes(
      _KEY,
      clean,
      index=np.arange(6000),
      annotator_id=who[:, 0],
      reliabilities=skill,
    )

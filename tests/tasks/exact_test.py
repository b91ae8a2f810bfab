"""Exact sums against sampling, brute force, and optimality."""

import numpy as np
import pytest

from alignment.tasks import exact


@pytest.fixture(name='case', scope='module')
def _case():
  rng = np.random.default_rng(41)
  raw = rng.normal(size=(5, 30)) * 2 - 4
  rewards = np.round(rng.normal(size=(5, 30)), 1)
  return raw, rewards


def test_renormalise_reports_the_mass_inside(case):
  raw, _ = case
  logps, mass = exact.renormalise(raw.astype(np.float32))
  np.testing.assert_allclose(np.exp(logps).sum(axis=1), 1, rtol=1e-12)
  np.testing.assert_allclose(mass, np.exp(raw).sum(axis=1), rtol=1e-5)
  # Far below what exp can hold.
  logps, mass = exact.renormalise(np.array([[-900.0, -901.0]]))
  np.testing.assert_allclose(logps[0, 0], -np.log(1 + np.exp(-1)), rtol=1e-12)
  assert mass[0] == 0


def test_expectation_and_kl_agree_with_sampling(case):
  raw, rewards = case
  logps, _ = exact.renormalise(raw)
  other, _ = exact.renormalise(raw[::-1] + 0.3 * rewards)
  rng = np.random.default_rng(0)
  for row in range(len(raw)):
    drawn = rng.choice(30, 40_000, p=np.exp(logps[row]))
    for sample, value in (
      (rewards[row, drawn], exact.expected_reward(logps, rewards)[row]),
      ((logps - other)[row, drawn], exact.kl(logps, other)[row]),
    ):
      # Five standard errors of the mean.
      assert abs(sample.mean() - value) < 5 * sample.std() / np.sqrt(40_000)


def test_kl_is_0_for_the_same_and_skips_what_is_impossible(case):
  logps, _ = exact.renormalise(case[0])
  np.testing.assert_array_equal(exact.kl(logps, logps), 0)
  one = np.array([[0.0, -np.inf]])
  half = np.log([[0.5, 0.5]])
  assert exact.kl(one, half)[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize('beta', [0.05, 0.5, 3.0])
def test_the_optimum_is_optimal(case, beta):
  raw, rewards = case
  reference, _ = exact.renormalise(raw)

  def objective(logps):
    gold = exact.expected_reward(logps, rewards)
    return gold - beta * exact.kl(logps, reference)

  best = exact.optimal_logps(reference, rewards, beta)
  np.testing.assert_allclose(np.exp(best).sum(axis=1), 1, rtol=1e-12)
  rng = np.random.default_rng(2)
  for scale in (1e-3, 0.1, 2.0):
    for _ in range(20):
      nearby, _ = exact.renormalise(best + scale * rng.normal(size=best.shape))
      assert (objective(nearby) < objective(best)).all()
  # The maximum is β log Σ π_ref exp(r / β).
  value = beta * np.log((np.exp(reference + rewards / beta)).sum(axis=1))
  np.testing.assert_allclose(objective(best), value, rtol=1e-10)


def test_the_curve_runs_from_the_reference_to_the_best(case):
  raw, rewards = case
  reference, _ = exact.renormalise(raw)
  curve = exact.optimal_curve(reference, rewards, np.geomspace(1e-3, 1e4, 40))
  assert curve.gold.shape == curve.kl.shape == (40, 5)
  # β falls from the last to the first: gold and KL rise together.
  assert (np.diff(curve.gold, axis=0) <= 1e-12).all()
  assert (np.diff(curve.kl, axis=0) <= 1e-12).all()
  np.testing.assert_allclose(curve.gold[0], rewards.max(axis=1), atol=1e-6)
  start = exact.expected_reward(reference, rewards)
  np.testing.assert_allclose(curve.gold[-1], start, atol=1e-3)
  with pytest.raises(ValueError, match='beta=0'):
    exact.optimal_logps(reference, rewards, 0)


@pytest.mark.parametrize('weighted', [False, True])
def test_ranking_accuracy_counts_every_pair(case, weighted):
  raw, rewards = case
  scores = np.round(raw + rewards, 0)
  probs = np.exp(exact.renormalise(raw)[0]) if weighted else None
  got = exact.ranking_accuracy(scores, rewards, probs)
  for row in range(len(raw)):
    right = total = 0.0
    for i in range(30):
      for j in range(30):
        if rewards[row, i] <= rewards[row, j]:
          continue
        weight = probs[row, i] * probs[row, j] if weighted else 1.0
        total += weight
        if scores[row, i] > scores[row, j]:
          right += weight
        elif scores[row, i] == scores[row, j]:
          right += weight / 2
    assert got[row] == pytest.approx(right / total, rel=1e-12)
  assert np.isnan(exact.ranking_accuracy(raw, np.zeros_like(raw))).all()


def test_pair_accuracy_scores_right_wrong_and_tied():
  scores = np.array([[0.0, 2.0, 2.0], [5.0, -1.0, 3.0]])
  got = exact.pair_accuracy(
    scores,
    prompt=np.array([0, 0, 0, 1, 1]),
    first=np.array([0, 1, 1, 0, 1]),
    second=np.array([1, 0, 2, 2, 2]),
    label=np.array([True, True, True, True, False]),
  )
  assert got.tolist() == [0, 1, 0.5, 1, 1]

"""Flip posteriors: Bayes by hand, calibrated where promised, mute at chance."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from alignment.metrics.calibration import expected_calibration_error
from alignment.noise.crowd.dawid_skene import dawid_skene
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.posterior import (
  class_posterior,
  crowd_of,
  flip_posterior,
  is_informative,
)
from alignment.noise.evidence import Evidence
from tests.noise.detection.worlds import one_label, voted


@pytest.mark.parametrize('rate', [0.1, 0.3])
def test_one_label_is_bayes_on_the_true_margin(rate):
  """The model's log-odds are .4 of the true ones; the posterior undoes it."""
  evidence, _ = one_label(1, rows=20_000, rate=rate)
  p = special.expit(special.logit(evidence.probs[:, 0]) / 0.4)
  own = np.where(evidence.label == 0, p, 1 - p)
  want = rate * (1 - own) / (rate * (1 - own) + (1 - rate) * own)
  found = flip_posterior(evidence, rate)
  # Only the scale is estimated: standard error 3 % at .1, 5 % at .3.
  np.testing.assert_allclose(found, want, atol=0.05)


@pytest.mark.parametrize('rate', [0.05, 0.2, 0.4])
def test_one_label_is_calibrated(rate):
  """Error by chance alone is about .3·√(15/20,000) = .008."""
  evidence, truth = one_label(2, rows=20_000, rate=rate)
  found = flip_posterior(evidence, rate)
  wrong = evidence.label != truth
  assert found.mean() == pytest.approx(wrong.mean(), abs=0.01)
  assert expected_calibration_error(found, wrong) < 0.02
  assert found.std() > 0.05


def test_votes_are_calibrated_and_know_more():
  evidence, truth = voted(3, rows=6000, rate=0.2)
  wrong = evidence.label != truth
  rate = wrong.mean()
  single = dataclasses.replace(evidence, votes=None)
  alone, together = (flip_posterior(e, rate) for e in (single, evidence))
  assert expected_calibration_error(together, wrong) < 0.03
  # Brier scores: .116 against .070 over these seeds.
  assert np.mean((together - wrong) ** 2) < 0.8 * np.mean((alone - wrong) ** 2)


def test_votes_without_a_model_are_dawid_and_skenes():
  """Twelve workers of 375 votes each are worth telling apart."""
  evidence, _ = voted(4)
  without = dataclasses.replace(evidence, probs=None)
  fit = dawid_skene(evidence.votes)
  # An even model in place of the prior: the posterior odds less the prior odds.
  want = fit.task_probs / fit.prior
  want /= want.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(class_posterior(without, 0.2), want, rtol=1e-6)


def test_workers_of_few_votes_are_taken_for_one():
  """400 workers of 11 votes, all right .8 of the time: 1 parameter, not 800."""
  rng = np.random.default_rng(10)
  truth = rng.integers(0, 2, 1500)
  said = np.where(
    rng.random((1500, 3)) < 0.8, truth[:, None], 1 - truth[:, None]
  )
  votes = VoteTable(
    np.repeat(np.arange(1500), 3),
    rng.integers(0, 400, 4500),
    said.reshape(-1),
    1500,
    400,
    2,
  )
  fit = crowd_of(votes)
  assert fit.skill.shape == (1,)
  # The standard error of the skill is about .008.
  assert fit.skill[0] == pytest.approx(0.8, abs=0.03)
  np.testing.assert_array_equal(fit.label, said.sum(axis=1) > 1.5)


def test_it_is_too_sure_where_close_pairs_are_flipped_more():
  """The assumption fails: the same mean rate, all of it on small margins."""
  rng = np.random.default_rng(5)
  evidence, truth = one_label(5, rows=20_000, rate=0.0)
  margin = special.logit(evidence.probs[:, 0]) / 0.4
  rate = np.where(np.abs(margin) < np.median(np.abs(margin)), 0.4, 0.0)
  flips = rng.random(20_000) < rate
  label = np.where(flips, 1 - truth, truth).astype(np.int32)
  noisy = dataclasses.replace(evidence, label=label)
  uniform = flip_posterior(noisy, 0.2)
  assert expected_calibration_error(uniform, flips) > 0.05
  known = flip_posterior(noisy, rate)
  assert expected_calibration_error(known, flips) < 0.02


def test_without_knowledge_every_row_is_at_the_rate():
  evidence, _ = one_label(6, rate=0.25)
  blank = dataclasses.replace(evidence, probs=None)
  np.testing.assert_allclose(flip_posterior(blank, 0.25), 0.25)
  even = dataclasses.replace(evidence, probs=np.full((3000, 2), 0.5))
  np.testing.assert_allclose(flip_posterior(even, 0.25), 0.25)


def test_a_sure_model_at_chance_flips_nothing():
  """Noise passes for knowledge in 1 of 40 data sets, 7 of 120 at the most."""
  claims = 0
  for seed in range(120):
    evidence, _ = one_label(seed, rows=400, rate=0.4, scale=3.0, skill=0.0)
    claims += is_informative(evidence)
    if not is_informative(evidence):
      np.testing.assert_allclose(flip_posterior(evidence, 0.4), 0.4)
  assert claims <= 7
  evidence, _ = one_label(0, rows=400, rate=0.2)
  assert is_informative(evidence)


def test_known_rows_are_certain():
  evidence, truth = one_label(7, rows=300)
  clean = np.where(np.arange(300) % 4 == 0, truth, -1).astype(np.int32)
  known = dataclasses.replace(evidence, clean_label=clean)
  found, plain = flip_posterior(known, 0.2), flip_posterior(evidence, 0.2)
  np.testing.assert_array_equal(found[::4], (evidence.label != truth)[::4])
  np.testing.assert_array_equal(found[1::4], plain[1::4])


def test_more_than_two_classes():
  rng = np.random.default_rng(8)
  probs = rng.dirichlet(np.full(4, 0.5), 20_000)
  truth = (probs.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
  shift = rng.integers(1, 4, 20_000) * (rng.random(20_000) < 0.3)
  label = (truth + shift) % 4
  evidence = Evidence(
    label=label.astype(np.int32),
    num_classes=4,
    group=np.arange(20_000),
    probs=probs,
  )
  found = class_posterior(evidence, 0.3)
  np.testing.assert_allclose(found.sum(axis=1), 1)
  for c in range(4):
    assert expected_calibration_error(found[:, c], truth == c) < 0.02
  assert np.mean(found.argmax(axis=1) == truth) > np.mean(label == truth) + 0.05


@pytest.mark.parametrize('rate', [-0.1, 0.5, np.nan])
def test_rates_that_leave_the_label_unlikely_are_refused(rate):
  evidence, _ = one_label(9, rows=30)
  with pytest.raises(ValueError, match='rate='):
    flip_posterior(evidence, rate)

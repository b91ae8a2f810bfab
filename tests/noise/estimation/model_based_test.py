"""Confident joint, mirrored mixture, separation: what they can and cannot."""

import json

import numpy as np
import pytest
from scipy import optimize, special, stats

from alignment.noise.confident_joint import calibrated_joint
from alignment.noise.estimation.confident import (
  confident_joint_rate,
  weighted_rate,
)
from alignment.noise.estimation.mixtures import fit_mirror, mirror_mixture_rate
from alignment.noise.estimation.separation import separation_index
from alignment.noise.evidence import Evidence

_RNG = np.random.default_rng(0)


def _judged(rng, size, rate, classes=2, group=None):
  """True classes that the model ranks first, labels that flip."""
  true = rng.integers(0, classes, size)
  label = (
    true + (rng.random(size) < rate) * rng.integers(1, classes, size)
  ) % (classes)
  sure = rng.uniform(0.55, 0.95, size)
  probs = np.full((size, classes), 0.0) + ((1 - sure) / (classes - 1))[:, None]
  probs[np.arange(size), true] = sure
  return Evidence(
    label=label.astype(np.int32),
    num_classes=classes,
    group=np.arange(size) if group is None else group,
    probs=probs,
  )


@pytest.mark.parametrize('classes', [2, 4])
def test_confident_joint_tells_the_rate_where_the_model_ranks_right(classes):
  evidence = _judged(np.random.default_rng(1), 4000, 0.2, classes)
  found = confident_joint_rate(evidence, _RNG)
  joint = calibrated_joint(evidence.label, evidence.probs)
  off = joint.sum() - np.trace(joint)
  assert found.rate == pytest.approx(off / 4000)
  assert found.low < 0.2 < found.high
  assert found.high - found.low < 0.06


def test_rows_counted_often_are_rows_repeated():
  rng = np.random.default_rng(2)
  evidence = _judged(rng, 120, 0.25, 3)
  times = rng.multinomial(120, np.full(120, 1 / 120), 5)
  is_label = np.eye(3)[evidence.label]
  found = weighted_rate(times, is_label, evidence.probs)
  for weight, rate in zip(times, found, strict=True):
    rows = np.repeat(np.arange(120), weight)
    joint = calibrated_joint(evidence.label[rows], evidence.probs[rows])
    assert rate == pytest.approx(1 - np.trace(joint) / 120)


def test_confident_joint_of_groups_has_wider_intervals():
  rng = np.random.default_rng(3)
  alone = _judged(rng, 500, 0.2)
  rows = np.repeat(np.arange(500), 4)
  copies = Evidence(
    label=alone.label[rows],
    num_classes=2,
    group=rows,
    probs=alone.probs[rows],
  )
  once = confident_joint_rate(alone, np.random.default_rng(4))
  four = confident_joint_rate(copies, np.random.default_rng(4))
  assert four.rate == pytest.approx(once.rate)
  # The same draws of groups; t(499) for the normal.
  assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.01)


def test_confident_joint_calls_uncertain_classes_flips():
  rng = np.random.default_rng(5)
  prob = special.expit(1.5 * rng.standard_normal(3000))
  evidence = Evidence(
    label=(rng.random(3000) < prob).astype(np.int32),
    num_classes=2,
    group=np.arange(3000),
    probs=np.stack([1 - prob, prob], axis=1),
  )
  assert confident_joint_rate(evidence, rng).low > 0.1


def test_confident_joint_refuses_one_class():
  evidence = _judged(np.random.default_rng(6), 100, 0.1)
  one = Evidence(
    label=np.zeros(100, np.int32),
    num_classes=2,
    group=np.arange(100),
    probs=evidence.probs,
  )
  assert 'no label' in confident_joint_rate(one, _RNG).refusal


@pytest.mark.shared
def test_confident_joint_of_a_recorded_case(shared_dir):
  cases = json.loads((shared_dir / 'golden' / 'golden_noise.json').read_text())
  case = next(c for c in cases['cases'] if c['id'] == 'cleanlab/binary60')
  label = np.array(case['params']['labels'], np.int32)
  evidence = Evidence(
    label=label,
    num_classes=2,
    group=np.arange(60),
    probs=np.array(case['params']['pred_probs']),
  )
  found = confident_joint_rate(evidence, _RNG)
  theirs = np.array(case['outputs']['joint'])
  # They round each of four counts to a whole row.
  assert found.rate == pytest.approx(1 - np.trace(theirs), abs=1 / 60)
  counts = np.array(case['outputs']['confident_joint'])
  scaled = counts / counts.sum(1, keepdims=True) * np.bincount(label)[:, None]
  assert found.rate == pytest.approx(1 - np.trace(scaled) / 60)


def _mirrored(rng, size, rate, mean=1.5):
  margin = mean + rng.standard_normal(size)
  margin *= np.where(rng.random(size) < rate, -1, 1)
  label = rng.random(size) < 0.3
  prob = special.expit(np.where(label, margin, -margin))
  evidence = Evidence(
    label=label.astype(np.int32),
    num_classes=2,
    group=np.arange(size),
    probs=np.stack([1 - prob, prob], axis=1),
  )
  return evidence, margin


def _mirror_loss(margin, rate, mean, scale):
  right = stats.norm.pdf(margin, mean, scale)
  turned = stats.norm.pdf(margin, -mean, scale)
  return -np.sum(np.log((1 - rate) * right + rate * turned))


def test_mirrored_mixture_is_its_maximum_likelihood():
  evidence, margin = _mirrored(np.random.default_rng(7), 900, 0.2)

  def loss(x):
    return _mirror_loss(margin, special.expit(x[0]), x[1], np.exp(x[2]))

  best = optimize.minimize(loss, np.array([-1.0, 1.0, 0.0]), tol=1e-9)
  rate, mean, scale = fit_mirror(margin)
  assert rate == pytest.approx(special.expit(best.x[0]), abs=1e-4)
  assert mean == pytest.approx(best.x[1], abs=1e-3)
  assert scale == pytest.approx(np.exp(best.x[2]), abs=1e-3)
  found = mirror_mixture_rate(evidence, _RNG)
  assert found.rate == pytest.approx(rate, abs=1e-6)
  held = optimize.minimize(
    lambda x: _mirror_loss(margin, found.high, x[0], np.exp(x[1])), [1.5, 0.0]
  )
  assert 2 * (held.fun - best.fun) == pytest.approx(3.8415, abs=0.02)


def test_mirrored_mixture_needs_its_law():
  rng = np.random.default_rng(8)
  margin = rng.exponential(1.5, 3000) * np.where(rng.random(3000) < 0.2, -1, 1)
  prob = special.expit(margin)
  evidence = Evidence(
    label=np.ones(3000, np.int32),
    num_classes=2,
    group=np.arange(3000),
    probs=np.stack([1 - prob, prob], axis=1),
  )
  found = mirror_mixture_rate(evidence, rng)
  assert found.high < 0.15


def test_a_model_is_needed():
  bare = Evidence(
    label=np.arange(200, dtype=np.int32) % 2,
    num_classes=2,
    group=np.arange(200),
  )
  for estimator in (confident_joint_rate, mirror_mixture_rate):
    assert 'saw no row of their group' in estimator(bare, _RNG).refusal


def test_separation_is_the_formula_and_no_rate():
  rng = np.random.default_rng(9)
  margin, group = rng.standard_normal(400), rng.integers(0, 60, 400)
  found = separation_index(margin, group, rng, gamma=1.7)
  p = 1 / (1 + np.exp(-margin))
  xi = np.mean(p) * np.mean(p**1.7) / np.mean(p**2.7)
  assert found.index == pytest.approx(1 - xi)
  assert found.low < found.index < found.high and found.count == 60
  assert not hasattr(found, 'rate') and 'no flip rate' in found.caveat


def test_separation_is_exact_only_if_probabilities_are_0_or_1():
  rng = np.random.default_rng(10)
  flipped = rng.random(5000) < 0.3
  sharp = separation_index(np.where(flipped, -90.0, 90.0), np.arange(5000), rng)
  assert sharp.index == pytest.approx(flipped.mean())
  # Calibrated, nothing flipped, and yet:
  margin = 2 * rng.standard_normal(5000)
  label = np.where(rng.random(5000) < special.expit(margin), 1, -1)
  doubt = separation_index(label * margin, np.arange(5000), rng)
  assert doubt.index == pytest.approx(0.16, abs=0.02)


def test_separation_refuses_what_has_no_power():
  with pytest.raises(ValueError, match='gamma'):
    separation_index(np.zeros(4), np.arange(4), _RNG, gamma=0.0)

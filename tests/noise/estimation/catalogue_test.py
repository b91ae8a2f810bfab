"""Every estimator on every kind of evidence: a number, a set or a refusal."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from alignment.noise.estimation.catalogue import ESTIMATORS, estimate_all
from alignment.noise.estimation.estimate import bounded
from alignment.noise.evidence import Evidence
from tests.noise.estimation import votes

_SIZE = 400


def _full(rate=0.15, seed=0):
  """Evidence that leaves out nothing."""
  rng = np.random.default_rng(seed)
  margin = 2 * rng.standard_normal(_SIZE)
  true = rng.random(_SIZE) < special.expit(margin)
  label = true[:, None] ^ (rng.random((_SIZE, 5)) < rate)
  prob = rate + (1 - 2 * rate) * special.expit(margin)
  return votes.evidence(
    label,
    probs=np.stack([1 - prob, prob], axis=1),
    clean_label=true.astype(np.int32),
    clean_margin=margin,
    features=rng.standard_normal((_SIZE, 2)),
    feature_names=('first', 'second'),
  )


def _check(estimate):
  assert estimate.assumption.endswith('.') and estimate.estimator in ESTIMATORS
  if estimate.is_refused:
    assert estimate.rate is None and estimate.low is None
    return
  assert 0 <= estimate.low <= estimate.high <= 1
  if estimate.rate is not None:
    assert estimate.low <= estimate.rate <= estimate.high


def test_everything_known_gives_every_estimate():
  found = estimate_all(_full(), np.random.default_rng(1))
  assert [e.estimator for e in found] == list(ESTIMATORS)
  for estimate in found:
    _check(estimate)
    assert not estimate.is_refused, estimate


def test_a_label_and_nothing_else_gives_no_number():
  bare = Evidence(
    label=np.arange(_SIZE, dtype=np.int32) % 2,
    num_classes=2,
    group=np.arange(_SIZE),
  )
  for estimate in estimate_all(bare, np.random.default_rng(2)):
    _check(estimate)
    assert estimate.is_refused


_PARTS = ('votes', 'probs', 'clean_label', 'clean_margin', 'features')


@pytest.mark.parametrize('part', _PARTS)
def test_one_part_alone_never_breaks_an_estimator(part):
  full = _full(seed=3)
  missing = {name: None for name in _PARTS if name != part}
  if part != 'features':
    missing['feature_names'] = ()
  evidence = dataclasses.replace(full, **missing)
  found = estimate_all(evidence, np.random.default_rng(4))
  for estimate in found:
    _check(estimate)
  # Features alone tell nothing.
  assert any(not e.is_refused for e in found) == (part != 'features')


@pytest.mark.parametrize('rate', [0.0, 0.45, 0.5])
@pytest.mark.parametrize('groups', [1, 5, _SIZE])
def test_extreme_rates_and_few_groups(rate, groups):
  full = _full(rate, seed=5)
  group = np.arange(_SIZE) % groups
  evidence = dataclasses.replace(full, group=group, group_name='groups')
  for estimate in estimate_all(evidence, np.random.default_rng(6)):
    if groups == 1 and estimate.rate is not None and estimate.low is None:
      assert 'no interval: a single unit' in estimate.flags
    else:
      _check(estimate)
    if not estimate.is_refused:
      assert estimate.count <= groups


@pytest.mark.parametrize('classes', [3, 4])
def test_more_classes_are_estimated_or_refused(classes):
  rng = np.random.default_rng(7)
  true = rng.integers(0, classes, _SIZE).astype(np.int32)
  shift = (rng.random(_SIZE) < 0.2) * rng.integers(1, classes, _SIZE)
  probs = np.full((_SIZE, classes), 0.3 / (classes - 1))
  probs[np.arange(_SIZE), true] = 0.7
  evidence = Evidence(
    label=((true + shift) % classes).astype(np.int32),
    num_classes=classes,
    group=np.arange(_SIZE),
    probs=probs,
    clean_label=true,
    clean_margin=rng.standard_normal(_SIZE),
  )
  found = {
    e.estimator: e for e in estimate_all(evidence, np.random.default_rng(8))
  }
  for estimate in found.values():
    _check(estimate)
  assert found['anchors'].low < 0.2 < found['anchors'].high
  assert 'two classes' in found['forward'].refusal


def test_order_and_company_do_not_change_a_draw():
  evidence = _full(seed=9)
  whole = estimate_all(evidence, np.random.default_rng(10))
  alone = estimate_all(
    evidence, np.random.default_rng(10), names=['confident_joint']
  )
  assert alone[0] in whole
  with pytest.raises(ValueError, match='magic'):
    estimate_all(evidence, np.random.default_rng(0), names=['magic'])


def test_bounds_at_the_ends():
  def of(rate, low, high, **more):
    return bounded('x', 'y.', rate, low, high, count=9, unit='rows', **more)

  inside = of(0.2, 0.1, 0.3)
  assert (inside.rate, inside.low, inside.high, inside.flags) == (
    0.2,
    0.1,
    0.3,
    (),
  )
  touching = of(0.4, 0.3, 0.6)
  assert (touching.rate, touching.low, touching.high) == (0.4, 0.3, 0.5)
  above = of(0.55, 0.4, 0.7)
  assert (above.rate, above.low, above.high) == (None, 0.4, 0.5)
  beyond = of(0.7, 0.6, 0.8, above='why')
  assert beyond.refusal == 'why' and beyond.rate is None
  assert of(0.7, 0.6, 0.8).rate == 0.7
  zero = of(-0.01, -0.1, 0.1)
  assert (zero.rate, zero.low, zero.high) == (0, 0, 0.1)
  assert zero.flags == ('one-sided: the estimate is 0',)

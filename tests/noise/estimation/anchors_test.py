"""Rates from known or certain classes, and the bound of single labels."""

import numpy as np
import pytest
from scipy import special, stats

from alignment.noise.estimation.anchors import (
  anchor_rate,
  single_label_bounds,
  surest_rows_rate,
)
from alignment.noise.evidence import Evidence

_RNG = np.random.default_rng(0)


def _anchored(wrong, group=None):
  size = len(wrong) + 40
  clean = np.full(size, -1, np.int32)
  clean[: len(wrong)] = np.arange(len(wrong)) % 2
  label = np.maximum(clean, 0)
  label[: len(wrong)] ^= np.asarray(wrong)
  return Evidence(
    label=label.astype(np.int32),
    num_classes=2,
    group=np.arange(size) if group is None else group,
    clean_label=clean,
  )


def test_known_classes_count_and_nothing_else_does():
  wrong = np.zeros(60, int)
  wrong[:9] = 1
  found = anchor_rate(_anchored(wrong), _RNG)
  assert (found.rate, found.count) == (0.15, 60)
  at_most = stats.binom.cdf([8, 9], 60, found.high).mean()
  at_least = stats.binom.sf([8, 9], 60, found.low).mean()
  assert at_most == pytest.approx(0.025)
  assert at_least == pytest.approx(0.025)


def test_anchors_in_groups_are_drawn_by_group():
  wrong = np.repeat(np.arange(30) % 5 == 0, 4).astype(int)
  alone = anchor_rate(_anchored(wrong), _RNG)
  group = np.concatenate([np.repeat(np.arange(30), 4), np.arange(100, 140)])
  grouped = anchor_rate(_anchored(wrong, group), _RNG)
  assert (grouped.rate, grouped.count) == (alone.rate, 30)
  assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_anchors_see_rates_above_one_half():
  found = anchor_rate(_anchored(np.arange(100) % 10 > 1), _RNG)
  assert found.rate == 0.8
  assert found.low > 0.5
  assert found.flags == ('above 1/2: labels say the opposite',)


def test_no_anchor_is_refused():
  found = anchor_rate(_anchored(np.zeros(0, int)), _RNG)
  assert 'no row has a known true class' in found.refusal


def _judged(rate, sharpness, size=4000, seed=1):
  """Labels of a logistic law, seen through flips; the model is right."""
  rng = np.random.default_rng(seed)
  clean = special.expit(sharpness * rng.standard_normal(size))
  label = (rng.random(size) < clean) ^ (rng.random(size) < rate)
  prob = rate + (1 - 2 * rate) * clean
  return Evidence(
    label=label.astype(np.int32),
    num_classes=2,
    group=np.arange(size),
    probs=np.stack([1 - prob, prob], axis=1),
  )


@pytest.mark.parametrize('rate', [0.05, 0.2, 0.35])
def test_surest_rows_tell_the_rate_where_classes_are_certain(rate):
  found = surest_rows_rate(_judged(rate, 40.0), _RNG)
  # Four standard errors of a share of the 400 surest rows.
  error = np.sqrt(rate * (1 - rate) / 400)
  assert found.rate == pytest.approx(rate, abs=4 * error)
  assert found.count == 400


@pytest.mark.parametrize('sharpness', [0.3, 1.5, 40.0])
@pytest.mark.parametrize('rate', [0.0, 0.15, 0.3])
def test_single_labels_give_a_set_that_holds_the_rate(rate, sharpness):
  found = single_label_bounds(_judged(rate, sharpness), _RNG)
  assert found.rate is None and found.low == 0
  assert rate <= found.high <= 0.5
  assert found.flags == ('identified set',)


def test_the_set_of_single_labels_cannot_tell_flips_from_uncertainty():
  flips = single_label_bounds(_judged(0.2, 40.0), _RNG)
  doubt = single_label_bounds(_judged(0.0, 0.8), _RNG)
  assert flips.high > 0.18 and doubt.high > 0.18
  assert flips.low == doubt.low == 0


def test_single_labels_without_a_model_are_refused_with_remedies():
  bare = Evidence(
    label=np.arange(90, dtype=np.int32) % 2,
    num_classes=2,
    group=np.arange(90),
  )
  for estimator in (single_label_bounds, surest_rows_rate):
    found = estimator(bare, _RNG)
    assert 'second vote' in found.refusal and found.low is None

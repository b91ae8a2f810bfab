"""Every detector: its inputs, its sign, and how it compares with controls."""

import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from alignment.metrics.auroc import auroc
from alignment.noise.detection import catalogue
from alignment.noise.detection.catalogue import DETECTORS, inputs, missing
from alignment.noise.evidence import Evidence
from tests.noise.detection.worlds import one_label, voted

CONTROLS = ('length', 'random')


@pytest.fixture(scope='module')
def world():
  return voted(0, rows=2000)


@pytest.mark.parametrize('name', list(DETECTORS))
def test_scores_are_finite_and_higher_for_wrong_labels(name, world):
  evidence, truth = world
  found = DETECTORS[name](evidence)
  assert found.shape == (2000,)
  assert np.all(np.isfinite(found))
  area = auroc(found, evidence.label != truth)
  # The standard error of the area is about .014.
  if name == 'random':
    assert abs(area - 0.5) < 0.06
  else:
    assert area > 0.55


@pytest.mark.parametrize('name', [n for n in DETECTORS if n not in CONTROLS])
def test_informed_detectors_beat_the_controls(name, world):
  evidence, truth = world
  wrong = evidence.label != truth
  best = max(auroc(DETECTORS[n](evidence), wrong) for n in CONTROLS)
  assert auroc(DETECTORS[name](evidence), wrong) > best + 0.05


@pytest.mark.parametrize('name', [n for n in DETECTORS if inputs(n)])
def test_missing_inputs_are_named(name, world):
  evidence, _ = world
  for key in inputs(name):
    blank = {key: None} | ({'feature_names': ()} if key == 'features' else {})
    without = dataclasses.replace(evidence, **blank)
    assert key in missing(name, without)
    with pytest.raises(ValueError, match=key):
      DETECTORS[name](without)
  assert missing(name, evidence) == ''


def test_a_length_that_has_another_name(world):
  evidence = dataclasses.replace(world[0], feature_names=('words',))
  assert 'named length' in missing('length', evidence)
  with pytest.raises(ValueError, match="detector='nothing'"):
    inputs('nothing')


def test_two_class_scores_share_one_order(world):
  evidence, _ = world
  ranks = [stats.rankdata(DETECTORS[n](evidence)) for n in catalogue.SAME_ORDER]
  for rank in ranks[1:]:
    np.testing.assert_array_equal(rank, ranks[0])


def test_length_is_the_posterior_of_two_normals():
  """Equal to a logistic curve with the slope (mean₀ − mean₁)/variance."""
  evidence, _ = one_label(1)
  x, label = evidence.features[:, 0], evidence.label
  means = [x[label == c].mean() for c in (0, 1)]
  variance = np.mean((x - np.array(means)[label]) ** 2)
  logit = (means[0] - means[1]) / variance * (x - sum(means) / 2)
  logit += np.log(np.sum(label == 0) / np.sum(label == 1))
  first = special.expit(logit)
  want = np.where(label == 0, 1 - first, first)
  np.testing.assert_allclose(DETECTORS['length'](evidence), want, rtol=1e-9)
  flat = dataclasses.replace(evidence, features=np.ones((3000, 1)))
  assert not DETECTORS['length'](flat).any()


def test_re_po_is_bayes_with_the_reliability_of_the_annotator():
  """One annotator is right .9 of the time, one .6; the model is calibrated.

  Reliabilities have a standard error of about .02.
  """
  rng = np.random.default_rng(2)
  first = special.expit(rng.normal(0, 2, 4000))
  truth = (rng.random(4000) > first).astype(np.int32)
  who = rng.integers(0, 2, 4000).astype(np.int32)
  skill = np.array([0.9, 0.6])[who]
  label = np.where(rng.random(4000) < skill, truth, 1 - truth).astype(np.int32)
  evidence = Evidence(
    label=label,
    num_classes=2,
    group=np.arange(4000),
    probs=np.stack([first, 1 - first], axis=1),
    annotator_id=np.where(np.arange(4000) < 50, -1, 7 * who).astype(np.int32),
  )
  own = np.where(label == 0, first, 1 - first)
  right = own * skill / (own * skill + (1 - own) * (1 - skill))
  right[:50] = own[:50]
  np.testing.assert_allclose(DETECTORS['re_po'](evidence), 1 - right, atol=0.05)


def test_votes_of_unvoted_rows_say_nothing(world):
  evidence, _ = world
  table = evidence.votes
  kept = table.task >= 5
  fewer = dataclasses.replace(
    table, **{k: getattr(table, k)[kept] for k in ('task', 'worker', 'label')}
  )
  found = DETECTORS['vote_share'](dataclasses.replace(evidence, votes=fewer))
  np.testing.assert_array_equal(found[:5], 0.5)
  against = [
    np.mean(table.label[table.task == b] != evidence.label[b])
    for b in range(5, 2000)
  ]
  np.testing.assert_allclose(found[5:], against)


def test_scores_stay_finite_at_the_edges(world):
  """One label for all, and a model that is certain, rightly or not."""
  evidence, _ = world
  sure = np.eye(2)[np.arange(2000) % 2]
  one = dataclasses.replace(
    evidence, label=np.zeros(2000, np.int32), probs=sure
  )
  for name, detect in DETECTORS.items():
    assert np.all(np.isfinite(detect(one))), name

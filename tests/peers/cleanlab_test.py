"""Detection beside cleanlab 2.9 on random inputs, and where it is not followed.

Not copied, each shown by a test below:
- a row confident of several classes goes to its likeliest class even if that is
  not one of them; the paper takes the likeliest confident one;
- a task on which all said class 1 is counted as if all had said class 0 when
  the temperature of ActiveLab is sought, which is then the best of a grid of
  values up to 7.25;
- ties of the majority that nothing else breaks are broken by NumPy's global
  random state, and where all tasks tie it stops with an error.
"""

import warnings

import numpy as np
import pytest

from alignment.noise import confident_joint as joints
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.confident import FILTERS, QUALITY
from alignment.noise.detection.crowdlab import activelab, crowdlab
from alignment.noise.detection.loss_mixture import gaussian_mixture
from alignment.noise.detection.temperature import sharpness
from tests.noise.confident_joint_test import labelled
from tests.noise.detection.crowdlab_test import crowd
from tests.peers.installed import peer

pytestmark = pytest.mark.peers

THEIR_FILTERS = {
  'low_normalised_margin': 'low_normalized_margin',
  **{name: name for name in FILTERS if name != 'low_normalised_margin'},
}
THEIR_SCORES = {
  'normalised_margin': 'normalized_margin',
  **{name: name for name in QUALITY if name != 'normalised_margin'},
}


def agreeing(seed, classes, rows=400):
  """Data on which none of the defects shows."""
  while True:
    label, probs, _ = labelled(seed, rows, classes)
    confident = probs >= joints.thresholds(label, probs)
    likeliest = confident[np.arange(rows), probs.argmax(axis=1)]
    if np.all(likeliest | (confident.sum(axis=1) < 2)):
      return label, probs
    seed += 100


@pytest.mark.parametrize('classes', [2, 3, 5])
def test_joints_and_matrices(classes):
  count = peer('cleanlab.count')
  label, probs = agreeing(classes, classes)
  np.testing.assert_allclose(
    joints.thresholds(label, probs),
    count.get_confident_thresholds(label, probs),
    rtol=1e-12,
  )
  np.testing.assert_array_equal(
    joints.confident_joint(label, probs),
    count.compute_confident_joint(label, probs, calibrate=False),
  )
  theirs = count.compute_confident_joint(label, probs)
  ours = joints.whole_counts(joints.calibrated_joint(label, probs))
  np.testing.assert_array_equal(ours, theirs)
  np.testing.assert_allclose(
    ours / len(label), count.estimate_joint(label, probs), rtol=1e-12
  )
  latent = count.estimate_latent(theirs, label)
  np.testing.assert_allclose(joints.transition_matrix(ours).T, latent[1])
  np.testing.assert_allclose(joints.posterior_matrix(ours).T, latent[2])


@pytest.mark.parametrize('name', list(THEIR_FILTERS))
@pytest.mark.parametrize('classes', [2, 4])
def test_filters(name, classes):
  find = peer('cleanlab.filter').find_label_issues
  label, probs = agreeing(10 + classes, classes)
  theirs = find(label, probs, filter_by=THEIR_FILTERS[name], n_jobs=1)
  ours = FILTERS[name](label, probs)
  assert 10 < theirs.sum() < 300
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('name', list(THEIR_SCORES))
def test_label_quality(name):
  scores = peer('cleanlab.rank').get_label_quality_scores
  label, probs, _ = labelled(3, classes=4)
  theirs = scores(label, probs, method=THEIR_SCORES[name])
  np.testing.assert_allclose(QUALITY[name](label, probs), theirs, rtol=1e-9)


def as_table(votes):
  said = np.full((votes.num_tasks, votes.num_workers), np.nan)
  said[votes.task, votes.worker] = votes.label
  return said


@pytest.mark.parametrize('classes', [2, 3])
def test_crowdlab(classes):
  multi = peer('cleanlab.multiannotator')
  votes, probs, _ = crowd(20 + classes, 300, classes)
  theirs = multi.get_label_quality_multiannotator(
    as_table(votes), probs, return_weights=True, verbose=False
  )
  ours = crowdlab(votes, probs)
  tasks = theirs['label_quality']
  np.testing.assert_array_equal(ours.consensus, tasks['consensus_label'])
  np.testing.assert_allclose(
    ours.quality, tasks['consensus_quality_score'], rtol=1e-9
  )
  workers = theirs['annotator_stats'].sort_index()
  np.testing.assert_allclose(
    ours.worker_quality, workers['annotator_quality'], rtol=1e-9
  )
  np.testing.assert_allclose(ours.model_weight, theirs['model_weight'])
  np.testing.assert_allclose(
    ours.worker_weight, theirs['annotator_weight'], rtol=1e-9
  )
  for worker in range(votes.num_workers):
    mine = votes.worker == worker
    column = theirs['detailed_label_quality'].iloc[:, worker].dropna()
    found = ours.posterior[votes.task[mine], votes.label[mine]]
    np.testing.assert_allclose(np.sort(found), np.sort(column), rtol=1e-9)


@pytest.mark.parametrize('classes', [2, 3])
def test_activelab_at_their_temperature(classes):
  multi = peer('cleanlab.multiannotator')
  internal = peer('cleanlab.internal.multiannotator_utils')
  votes, probs, _ = crowd(30 + classes, 200, classes)
  said = as_table(votes)
  theirs, _ = multi.get_active_learning_scores(said, probs)
  temperature = internal.find_best_temp_scaler(said, probs)
  ours = activelab(votes, probs, s=1 / temperature)
  np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_activelab_with_one_vote_each():
  multi = peer('cleanlab.multiannotator')
  votes, probs, _ = crowd(40, 100)
  _, first = np.unique(votes.task, return_index=True)
  # One worker suffices: theirs refuses a column without votes.
  single = VoteTable(
    votes.task[first],
    np.zeros(100, int),
    votes.label[first],
    100,
    1,
    3,
  )
  theirs, _ = multi.get_active_learning_scores(as_table(single), probs)
  np.testing.assert_allclose(activelab(single, probs), theirs, rtol=1e-9)


def test_mixture_of_losses():
  """Run to the end, for their k-means start may stop short of its optimum."""
  mixture = peer('sklearn.mixture')
  rng = np.random.default_rng(5)
  losses = np.concatenate([rng.gamma(2, 0.2, 300), rng.normal(2, 0.5, 80)])
  x = ((losses - losses.min()) / np.ptp(losses))[:, None]
  theirs = mixture.GaussianMixture(
    2, max_iter=1000, tol=1e-12, reg_covar=5e-4, random_state=0
  ).fit(x)
  clean = theirs.predict_proba(x)[:, theirs.means_.argmin()]
  ours = gaussian_mixture(losses, max_iterations=1000, tolerance=1e-12)
  np.testing.assert_allclose(ours.clean, clean, atol=1e-5)
  np.testing.assert_allclose(
    ours.means, np.sort(theirs.means_[:, 0]), rtol=1e-5
  )


def test_rounding():
  util = peer('cleanlab.internal.util')
  rng = np.random.default_rng(6)
  rows = rng.multinomial(30, np.full(5, 0.2), 200) + rng.dirichlet(
    np.ones(5), 200
  )
  theirs = [util.round_preserving_sum(row) for row in rows]
  np.testing.assert_array_equal(joints.whole_counts(rows), theirs)


def test_not_followed_the_class_of_a_row_confident_of_several():
  count = peer('cleanlab.count')
  label = np.array([0, 0, 1, 2, 2])
  probs = np.array(
    [
      [0.9, 0.05, 0.05],
      [0.5, 0.3, 0.2],
      [0.3, 0.3, 0.4],
      [0.2, 0.6, 0.2],
      [0.2, 0.7, 0.1],
    ]
  )
  theirs = count.compute_confident_joint(label, probs, calibrate=False)
  ours = joints.confident_joint(label, probs)
  # .5 is below the threshold of class 0, .7; .3 is at that of class 1.
  assert (theirs[0, 0], ours[0, 0]) == (2, 1)
  assert (theirs[0, 1], ours[0, 1]) == (0, 1)


def test_not_followed_unanimous_votes_for_class_one():
  """15 tasks of 1, 5 of 0, and a model that is right and too timid."""
  internal = peer('cleanlab.internal.multiannotator_utils')
  said = np.repeat([1.0, 0.0], [15, 5])[:, None] * np.ones(3)
  probs = np.where(said[:, :1] == 1, [[0.2, 0.8]], [[0.8, 0.2]])
  util = peer('cleanlab.internal.util')
  assert util.value_counts(said[0], num_classes=2).tolist() == [3, 0]
  # 7.25 is the last value of their grid: as flat as it can be.
  assert internal.find_best_temp_scaler(said, probs) == 7.25
  assert sharpness(probs, np.eye(2)[said[:, 0].astype(int)]) > 2


def test_not_followed_chance_in_ties():
  """Votes against each other, an even model, classes equally frequent."""
  multi = peer('cleanlab.multiannotator')
  tied = np.array([[0.0, 1.0], [1.0, 0.0]] * 8)
  said = np.concatenate([tied, [[0.0, 0.0], [1.0, 1.0]]])
  task, worker = np.nonzero(said >= 0)
  votes = VoteTable(task, worker, said[task, worker].astype(int), 18, 2, 2)
  probs = np.full((18, 2), 0.5)
  assert crowdlab(votes, probs).consensus.tolist() == [0] * 17 + [1]
  state = np.random.get_state()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    draws = {
      tuple(multi.get_majority_vote_label(said, probs, verbose=False))
      for _ in range(5)
    }
    with pytest.raises(ValueError, match='cannot be empty'):
      multi.get_majority_vote_label(tied, probs[:16], verbose=False)
  np.random.set_state(state)
  assert len(draws) > 1

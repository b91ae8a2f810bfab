"""Detection by other implementations, on fixed random inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses.classification import CLASSIFICATION
from alignment.noise import confident_joint as joints
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection import elr
from alignment.noise.detection.co_teaching import peer_weights
from alignment.noise.detection.confident import FILTERS, QUALITY
from alignment.noise.detection.crowdlab import activelab, crowdlab
from alignment.noise.detection.loss_mixture import gaussian_mixture
from tests.losses.golden_cases import CASES, close

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures('golden')]


def _case(case_id):
  case = CASES[case_id]
  params = {
    k: np.asarray(v, np.float64) if isinstance(v, list) else v
    for k, v in case['params'].items()
  }
  return params, case['outputs']


def test_confident_learning():
  params, outputs = _case('cleanlab/binary60')
  label, probs = params['labels'].astype(int), params['pred_probs']
  close(joints.thresholds(label, probs), outputs['thresholds'])
  counts = joints.confident_joint(label, probs)
  np.testing.assert_array_equal(counts, outputs['confident_joint'])
  joint = joints.whole_counts(joints.calibrated_joint(label, probs))
  np.testing.assert_array_equal(joint, outputs['confident_joint_calibrated'])
  close(joint / 60, outputs['joint'])
  close(joint.sum(axis=0) / 60, outputs['py'])
  transition = joints.transition_matrix(joint)
  close(transition.T, outputs['noise_matrix_p_s_given_y'])
  posterior = joints.posterior_matrix(joint)
  close(posterior.T, outputs['inverse_noise_matrix_p_y_given_s'])


@pytest.mark.parametrize(
  ('name', 'theirs'),
  [
    ('prune_by_class', 'prune_by_class'),
    ('prune_by_noise_rate', 'prune_by_noise_rate'),
    ('both', 'both'),
    ('confident_learning', 'confident_learning'),
    ('predicted_neq_given', 'predicted_neq_given'),
  ],
)
def test_filters(name, theirs):
  params, outputs = _case('cleanlab/binary60')
  marked = FILTERS[name](params['labels'].astype(int), params['pred_probs'])
  assert np.flatnonzero(marked).tolist() == outputs[f'issues_{theirs}']


@pytest.mark.parametrize(
  ('name', 'theirs'),
  [
    ('self_confidence', 'self_confidence'),
    ('normalised_margin', 'normalized_margin'),
    ('confidence_weighted_entropy', 'confidence_weighted_entropy'),
  ],
)
def test_label_quality(name, theirs):
  params, outputs = _case('cleanlab/binary60')
  found = QUALITY[name](params['labels'].astype(int), params['pred_probs'])
  close(found, outputs[f'quality_{theirs}'])


def test_crowdlab_and_activelab():
  params, outputs = _case('cleanlab/crowdlab')
  said = params['labels_multiannotator']
  task, worker = np.nonzero(~np.isnan(said))
  votes = VoteTable(
    task, worker, said[task, worker].astype(int), *said.shape, 2
  )
  probs = params['pred_probs']
  found = crowdlab(votes, probs)
  np.testing.assert_array_equal(found.consensus, outputs['consensus_label'])
  close(found.quality, outputs['consensus_quality'])
  close(found.worker_quality, outputs['annotator_quality'])
  close(found.worker_weight, outputs['annotator_weight'])
  close(found.model_weight, outputs['model_weight'])
  # Their temperature, 7.25, comes of a defect; see tests/peers/cleanlab_test.
  scores = activelab(votes, probs, s=1 / 7.25)
  close(scores, outputs['active_learning_scores'])


def test_dividemix_mixture():
  params, outputs = _case('dividemix/gmm')
  found = gaussian_mixture(params['losses'])
  close(found.means, outputs['means'])
  close(found.variances, outputs['variances'])
  close(found.shares, outputs['weights'])
  close(found.clean, outputs['p_clean'])


def test_elr_targets():
  params, outputs = _case('elr/beta=.7/lambda=3')
  targets = jnp.zeros((8, 3))
  for scale, step in zip(
    params['logit_scale_per_step'], outputs['steps'], strict=True
  ):
    probs = jax.nn.softmax(scale * params['logits'])
    targets = elr.update(targets, np.arange(8), probs, np.ones(8))
    close(targets, step['target'])


def test_co_teaching():
  """Theirs divides the mean loss of the six rows kept by six once more."""
  params, outputs = _case('coteaching/forget=.25')
  label = params['labels'].astype(int)
  losses = [
    CLASSIFICATION['cross_entropy'](params[f'logits_{i}'], label)
    for i in (1, 2)
  ]
  weights = peer_weights(*losses, np.ones(8), 1 - params['forget_rate'])
  for i, (loss, weight) in enumerate(zip(losses, weights, strict=True), 1):
    assert weight.sum() == 6
    close(weight @ loss / 6 / 6, outputs[f'loss_{i}'])

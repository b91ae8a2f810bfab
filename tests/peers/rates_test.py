"""Rates of the confident joint beside cleanlab's."""

import numpy as np
import pytest

from alignment.noise.estimation.confident import confident_joint_rate
from alignment.noise.evidence import Evidence
from tests.peers.cleanlab_test import agreeing
from tests.peers.installed import peer

pytestmark = pytest.mark.peers


@pytest.mark.parametrize('classes', [2, 3, 5])
def test_rate_is_theirs_up_to_their_rounding(classes):
  count = peer('cleanlab.count')
  label, probs = agreeing(classes + 20, classes)
  found = confident_joint_rate(
    Evidence(
      label=np.asarray(label, np.int32),
      num_classes=classes,
      group=np.arange(len(label)),
      probs=probs,
    ),
    np.random.default_rng(0),
  )
  joint = count.estimate_joint(label, probs)
  # They round every count to a whole row, keeping the sums of rows.
  slack = classes / len(label)
  assert found.rate == pytest.approx(1 - np.trace(joint), abs=slack)
  theirs = count.compute_confident_joint(label, probs, calibrate=False)
  scaled = theirs / theirs.sum(axis=1, keepdims=True)
  kept = np.bincount(label) @ np.diagonal(scaled) / len(label)
  assert found.rate == pytest.approx(1 - kept)

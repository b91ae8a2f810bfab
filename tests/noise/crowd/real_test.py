"""Annotator models on the votes of real people."""

import gzip
import json

import numpy as np
import pytest
from scipy import stats

from alignment.noise.crowd.catalogue import ANNOTATOR_MODELS
from alignment.noise.crowd.reliabilities import reliabilities
from alignment.noise.crowd.table import VoteTable

pytestmark = pytest.mark.shared


def rows(path):
  with gzip.open(path, 'rt') as lines:
    return [json.loads(line) for line in lines]


@pytest.fixture
def pandalm(shared_dir):
  """`[863, 3]`, three people on the pairs that none of them calls a tie."""
  found = rows(shared_dir / 'data/pandalm/testset_v1.jsonl.gz')
  names = ('annotator1', 'annotator2', 'annotator3')
  label = np.array([[int(row[name]) for name in names] for row in found])
  return label[np.all(label > 0, axis=1)] - 1


def test_three_annotators_by_triplets(pandalm):
  """Skills from pair agreement alone, in closed form.

  2·skill[a] − 1 = √((2g_ab − 1)(2g_ac − 1) / (2g_bc − 1)), g the agreement of
  two: three equations that one-coin solves too, as its three skills can.
  """
  size = len(pandalm)
  task, worker = np.indices((size, 3)).reshape(2, -1)
  votes = VoteTable(task, worker, pandalm.ravel(), size, 3, 2)
  score = {
    (a, b): 2 * np.mean(pandalm[:, a] == pandalm[:, b]) - 1
    for a in range(3)
    for b in range(3)
  }
  want = [
    (1 + np.sqrt(score[a, b] * score[a, c] / score[b, c])) / 2
    for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
  ]
  for model in ('one_coin', 'dawid_skene'):
    found = ANNOTATOR_MODELS[model](votes)
    # Smoothing, and sampling where the two classes differ.
    np.testing.assert_allclose(found.skill, want, atol=1e-3)
    assert np.all(found.label == (pandalm.mean(axis=1) > 0.5))


def test_skills_beside_published_ones(shared_dir):
  """UKP ConvArg: 3,777 workers whose competence its authors published.

  Theirs is of another model (MACE), with ties as a class of their own, so only
  the order of those with ten votes and more is compared.
  """
  found = rows(shared_dir / 'data/ukp_convarg1/pairs_votes.jsonl.gz')
  triples = [
    (number, vote['worker'], vote['value'] == 'a2', vote['competence'])
    for number, pair in enumerate(found)
    for vote in pair['votes']
    if vote['value'] != 'equal'
  ]
  task, worker, label, competence = map(np.array, zip(*triples, strict=True))
  num_workers = worker.max() + 1
  votes = VoteTable(task, worker, label.astype(int), len(found), num_workers, 2)
  groups = np.unique([pair['debate'] for pair in found], return_inverse=True)[1]
  rng = np.random.default_rng(0)
  trust = reliabilities(votes, rng, group=groups, resamples=20)
  published = np.full(num_workers, np.nan)
  published[worker] = competence
  often = trust.num_votes >= 10
  assert often.sum() > 600
  assert stats.spearmanr(trust.skill[often], published[often])[0] > 0.55
  assert np.isnan(trust.skill[trust.num_votes == 0]).all()
  assert np.all((trust.low <= trust.skill)[often])

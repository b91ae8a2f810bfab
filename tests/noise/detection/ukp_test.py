"""Detection on pairs that several people judged; run with -s for the tables.

Truth is what the votes say, of the pairs whose votes do not tie: the majority
of all votes, one of which is the label (so that it looks right more often than
it is), or the majority of votes that no detector saw. Figures are clustered by
title. What is asserted is what was found, the unwelcome part included.
"""

import dataclasses

import numpy as np
import pytest
from scipy import sparse, special

from alignment.data.features import bag_of_words
from alignment.data.splits import group_folds
from alignment.data.votes import read_votes
from alignment.losses import links
from alignment.metrics.detection import clean_accuracy, detection
from alignment.models.linear import fit_linear
from alignment.noise.crowd.table import VoteTable
from alignment.noise.detection.catalogue import DETECTORS, missing
from alignment.noise.detection.posterior import flip_posterior
from alignment.noise.detection.repair import plan_repair
from alignment.noise.evidence import Evidence

pytestmark = pytest.mark.shared
SEEN = 3
"""Votes per pair that detectors of votes get; the label is the first."""


def _loss(scores, sign):
  return links.logistic(scores * sign)


def _out_of_fold(pairs, features, label):
  """P(first is labelled better) by models that saw no pair of the title."""
  place = {pair.index: row for row, pair in enumerate(pairs)}
  first = np.zeros(len(pairs))
  for train, test in group_folds(pairs, seed=0, num_folds=6):
    into, out = ([place[p.index] for p in part] for part in (train, test))
    fit = fit_linear(features[into], _loss, (1.0 - 2.0 * label[into],), l2=1e-3)
    first[out] = special.expit(features[out] @ fit.weights)
  return np.stack([first, 1 - first], axis=1)


@pytest.fixture(scope='module')
def ukp(shared_dir):
  """Pairs, their votes in random order, and evidence with one label each."""
  pairs, _ = read_votes(shared_dir / 'data' / 'ukp_convarg1')
  pairs = [p for p in pairs if sum(v.value for v in p.votes)]
  rng = np.random.default_rng(0)
  votes = [
    [v[i] for i in rng.permutation(len(v))]
    for v in ([v for v in p.votes if v.value] for p in pairs)
  ]
  label = np.array([v[0].value < 0 for v in votes], np.int32)
  words = bag_of_words([p.first for p in pairs]) - bag_of_words(
    [p.second for p in pairs]
  )
  length = np.array([len(p.first) - len(p.second) for p in pairs], float)
  length /= length.std()
  titles = sorted({p.group for p in pairs})
  evidence = Evidence(
    label=label,
    num_classes=2,
    group=np.array([titles.index(p.group) for p in pairs], np.int32),
    group_name='titles',
    probs=_out_of_fold(pairs, words.tocsr(), label),
    features=length[:, None],
    feature_names=('length_difference',),
    annotator_id=np.array([v[0].worker for v in votes], np.int32),
  )
  both = sparse.hstack([words, sparse.csr_array(length[:, None])]).tocsr()
  with_length = dataclasses.replace(
    evidence, probs=_out_of_fold(pairs, both, label)
  )
  return votes, evidence, with_length


def _figures(evidence, truth, names, rows=None):
  """name -> figures on the rows, printed."""
  wrong = evidence.label != truth
  rows = np.arange(len(wrong)) if rows is None else rows
  found = {}
  for name in names:
    if not missing(name, evidence):
      found[name] = detection(
        DETECTORS[name](evidence)[rows],
        wrong[rows],
        evidence.group[rows],
        np.random.default_rng(0),
        k=int(wrong[rows].sum()),
      )
      shown = '  '.join(
        f'{f.value:.3f} [{f.low:.3f}, {f.high:.3f}]'
        for f in list(found[name].values())[:3]
      )
      print(f'{name:28s} {shown}')
  return found


def _gain(evidence, truth, wrong, rows, policy):
  rng = np.random.default_rng(0)
  repair = plan_repair(evidence, wrong, rng, policy=policy)
  found = clean_accuracy(
    (evidence.label == truth)[rows],
    (repair.label == truth)[rows],
    repair.weight[rows],
    evidence.group[rows],
  )
  counts = f'{repair.count("flip")} flips, {repair.count("drop")} drops'
  print(f'{policy}: {counts}, {found["before"]}, {found["difference"]}')
  return found['difference']


def test_one_label(ukp):
  """A model of words finds errors, and no more than length does."""
  votes, evidence, with_length = ukp
  truth = np.array([sum(v.value for v in row) < 0 for row in votes])
  print(f'\n{len(truth)} pairs, {np.mean(evidence.label != truth):.3f} wrong')
  print('AUROC, average precision, precision at the number of wrong labels')
  words = _figures(evidence, truth, DETECTORS)
  print('with length among the features')
  more = _figures(with_length, truth, ['margin', 'confident_learning'])
  base = np.mean(evidence.label != truth)
  for name in ('margin', 'confident_learning', 'loss_mixture', 'length'):
    assert words[name]['auroc'].low > 0.6
    assert words[name]['precision_at_k'].low > 1.5 * base
  assert words['random']['auroc'].low < 0.5 < words['random']['auroc'].high
  # Reliabilities from three or four labels an annotator do more harm than good.
  assert words['re_po']['auroc'].high < words['margin']['auroc'].low
  assert words['length']['auroc'].value > words['margin']['auroc'].value
  assert more['margin']['auroc'].value > words['length']['auroc'].value


def test_one_label_is_not_enough_to_flip_by(ukp):
  """Close pairs are judged wrongly more often, so posteriors are too sure.

  Of labels said to be wrong with more than .6, about half are: flips gain
  nothing that can be told from 0. Leaving the same rows out does.
  """
  votes, evidence, with_length = ukp
  truth = np.array([sum(v.value for v in row) < 0 for row in votes])
  rate = np.mean(evidence.label != truth)
  rows = np.arange(len(truth))
  print()
  for each in (evidence, with_length):
    wrong = flip_posterior(each, rate)
    flips = _gain(each, truth, wrong, rows, 'flip')
    assert flips.low < 0 < flips.high
    assert _gain(each, truth, wrong, rows, 'drop').low > 0


def test_votes(ukp):
  """Three votes are seen; the majority of the others is the truth."""
  votes, _, evidence = ukp
  seen = [(b, v) for b, row in enumerate(votes) for v in row[:SEEN]]
  workers, place = np.unique([v.worker for _, v in seen], return_inverse=True)
  table = VoteTable(
    np.array([b for b, _ in seen]),
    place,
    np.array([int(v.value < 0) for _, v in seen]),
    len(votes),
    len(workers),
    2,
  )
  evidence = dataclasses.replace(evidence, votes=table)
  lead = np.array([sum(v.value for v in row[SEEN:]) for row in votes])
  rows, truth = np.flatnonzero(lead), lead < 0
  error = np.mean(evidence.label[rows] != truth[rows])
  print(f'\n{len(rows)} pairs, {len(workers)} workers, {error:.3f} wrong')
  names = ('vote_share', 'dawid_skene', 'crowdlab', 'margin', 'length')
  found = _figures(evidence, truth, names, rows)
  assert found['crowdlab']['auroc'].low > found['margin']['auroc'].value
  assert found['crowdlab']['auroc'].low > found['vote_share']['auroc'].value
  # 3000 workers of 8 votes cannot be told apart: no better than counting.
  counting = found['vote_share']['auroc']
  assert counting.low < found['dawid_skene']['auroc'].value < counting.high
  wrong = flip_posterior(evidence, 0.15)
  for policy in ('flip', 'drop'):
    assert _gain(evidence, truth, wrong, rows, policy).low > 0.02

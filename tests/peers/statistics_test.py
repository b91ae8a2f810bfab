"""Metrics beside SciPy and scikit-learn, votes beside crowd-kit."""

import numpy as np
import pytest
from scipy import stats

from alignment.data.records import Vote, VotedPair
from alignment.data.votes import majority
from alignment.metrics.auroc import auroc
from alignment.metrics.divergence import kl
from alignment.metrics.intervals import mean_interval, paired_difference
from alignment.metrics.preference import accuracy, best_temperature_nll
from tests.peers.installed import peer

pytestmark = pytest.mark.peers


@pytest.mark.parametrize('levels', [4, 100_000])
def test_auroc(levels):
  """Few levels: most scores tie."""
  rng = np.random.default_rng(levels)
  labels = rng.random(400) < 0.27
  scores = rng.integers(0, levels, 400) + labels * levels // 3
  theirs = peer('sklearn.metrics').roc_auc_score(labels, scores)
  assert 0.55 < theirs < 0.95
  assert auroc(scores, labels) == pytest.approx(theirs, abs=1e-12)


def test_weighted_accuracy():
  rng = np.random.default_rng(1)
  margins, weights = rng.normal(0.3, 1, 300), rng.gamma(1, 1, 300)
  theirs = peer('sklearn.metrics').accuracy_score(
    np.ones(300), margins > 0, sample_weight=weights
  )
  assert accuracy(margins, weights) == pytest.approx(theirs, rel=1e-12)


def test_best_temperature_is_a_logistic_regression():
  """One feature, no intercept, no penalty: the slope is 1 / temperature."""
  linear, metrics = peer('sklearn.linear_model'), peer('sklearn.metrics')
  rng = np.random.default_rng(2)
  scores, weights = rng.normal(0, 2, 500), rng.gamma(1, 1, 500)
  label = rng.random(500) < stats.logistic.cdf(0.6 * scores)
  fit = linear.LogisticRegression(
    C=np.inf, fit_intercept=False, solver='newton-cholesky', tol=1e-10
  ).fit(scores[:, None], label, weights)
  found = best_temperature_nll(np.where(label, scores, -scores), weights)
  assert found.inverse_temperature == pytest.approx(fit.coef_.item(), rel=1e-6)
  nll = metrics.log_loss(
    label, fit.predict_proba(scores[:, None]), sample_weight=weights
  )
  assert found.nll == pytest.approx(nll, rel=1e-9)


@pytest.mark.parametrize('confidence', [0.8, 0.95])
def test_t_intervals(confidence):
  rng = np.random.default_rng(3)
  first, second = rng.gamma(2, 1, (2, 6))
  alone = stats.ttest_1samp(first, 0).confidence_interval(confidence)
  np.testing.assert_allclose(mean_interval(first, confidence)[1:3], alone)
  paired = stats.ttest_rel(first, second).confidence_interval(confidence)
  np.testing.assert_allclose(
    paired_difference(first, second, confidence)[1:3], paired
  )


def test_kl():
  rng = np.random.default_rng(4)
  logits = rng.normal(0, 2, (2, 5, 30))
  want = stats.entropy(*np.exp(logits), axis=-1)  # renormalises, as ours does
  np.testing.assert_allclose(kl(*logits), want, rtol=1e-12)


@pytest.mark.filterwarnings('ignore:The inplace keyword in DataFrame.eval')
def test_majority_of_votes():
  """crowd-kit breaks ties one way or the other; here a tie has no label."""
  pandas, crowdkit = peer('pandas'), peer('crowdkit.aggregation')
  rng = np.random.default_rng(5)
  pairs, rows = [], []
  for index in range(60):
    votes = rng.choice([1, -1], rng.integers(1, 8), p=[0.6, 0.4])
    pairs.append(
      VotedPair(
        prompt='p',
        first='first',
        second='second',
        votes=tuple(Vote(w, int(v)) for w, v in enumerate(votes)),
        group='g',
        index=index,
      )
    )
    rows += [(index, worker, vote) for worker, vote in enumerate(votes)]
  table = pandas.DataFrame(rows, columns=['task', 'worker', 'label'])
  shares = crowdkit.MajorityVote().fit_predict_proba(table)
  ours, report = majority(pairs)
  found = {p.index: (p.chosen == 'first', p.label_prob) for p in ours}
  want = {
    index: (share > 0.5, max(share, 1 - share))
    for index, share in shares[1].items()
    if share != 0.5
  }
  assert 20 < len(want) < len(pairs)
  assert report.kept == len(want)
  assert found.keys() == want.keys()
  for index, (is_first, share) in want.items():
    assert found[index][0] == is_first
    assert found[index][1] == pytest.approx(share, rel=1e-12)

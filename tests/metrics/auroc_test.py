"""AUROC against the count over all pairs."""

import numpy as np
import pytest

from alignment.metrics.auroc import auroc


@pytest.mark.parametrize('levels', [3, 10_000])
def test_matches_the_count_over_pairs(levels):
  rng = np.random.default_rng(levels)
  labels = rng.random(300) < 0.3
  scores = rng.integers(0, levels, 300) + labels * levels / 4
  gaps = scores[labels][:, None] - scores[~labels][None]
  expected = np.mean((gaps > 0) + 0.5 * (gaps == 0))
  assert auroc(scores, labels) == pytest.approx(expected, rel=1e-12)
  assert auroc(-scores, labels) == pytest.approx(1 - expected, rel=1e-12)


def test_extremes_and_absent_class():
  assert auroc([1, 2, 3, np.inf], [False, False, True, True]) == 1
  assert auroc([5, 5], [True, False]) == 0.5
  assert np.isnan(auroc([1, 2], [True, True]))


def test_refusals():
  with pytest.raises(ValueError, match='labels'):
    auroc([1.0, 2.0], [True])
  with pytest.raises(ValueError, match='NaN'):
    auroc([np.nan, 2.0], [True, False])

"""Scripted teachers against the published loop, and judges with a bias."""

import jax
import numpy as np
import pytest
from scipy import special

from alignment.noise.corruption.teachers import ai_judge, teacher
from alignment.noise.labels import noise_metrics, says_something

_KEY = jax.random.key(15)


def _queries(size: int, steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(10)
  rewards = rng.normal(size=(size, 2, steps)) + 0.3
  return rewards.sum(axis=2)[:, 0] > rewards.sum(axis=2)[:, 1], rewards


def _published(rewards, clean, *, mistake, rationality, myopia, skip, tie):
  """One query at a time, in the published order: P(wrong), tied, skipped."""
  scale = np.mean(np.abs(rewards.sum(axis=2)))
  out = []
  for (first, second), truth in zip(rewards, clean, strict=True):
    seen = [0.0, 0.0]
    for step in range(len(first)):
      seen = [
        myopia * s + r
        for s, r in zip(seen, (first[step], second[step]), strict=True)
      ]
    if rationality is None:
      says_first = float(seen[0] > seen[1])
    else:
      says_first = 1 / (1 + np.exp(-rationality * (seen[0] - seen[1])))
    says_first = says_first * (1 - mistake) + (1 - says_first) * mistake
    wrong = 1 - says_first if truth else says_first
    tied = abs(first.sum() - second.sum()) < tie * scale
    skipped = skip > 0 and max(first.sum(), second.sum()) <= skip * scale
    out.append((wrong, tied, skipped))
  return np.array(out).T


@pytest.mark.parametrize('rationality', [None, 0.8])
@pytest.mark.parametrize('myopia', [1.0, 0.6])
def test_the_published_order_of_operations(rationality, myopia):
  clean, rewards = _queries(400)
  asked = {
    'mistake': 0.2,
    'rationality': rationality,
    'myopia': myopia,
    'skip': 0.4,
    'tie': 0.5,
  }
  wrong, tied, skipped = _published(rewards, clean, **asked)
  labels = teacher(
    _KEY, clean, index=np.arange(400), step_rewards=rewards, **asked
  )
  assert 0.05 < tied.mean() < 0.5 and 0.05 < skipped.mean() < 0.6
  np.testing.assert_array_equal(labels.label_prob, np.where(tied, 0.5, 1.0))
  np.testing.assert_array_equal(labels.weight, 1 - skipped)
  counted = (tied == 0) & (skipped == 0)
  np.testing.assert_allclose(
    labels.flip_rate, np.where(counted, wrong, 0.5), rtol=1e-5
  )
  np.testing.assert_array_equal(says_something(labels), counted)


def test_a_tie_overrides_a_mistake():
  """Always mistaken: labels are wrong, ties are ties all the same."""
  clean, rewards = _queries(4000)
  labels = teacher(
    _KEY,
    clean,
    index=np.arange(4000),
    step_rewards=rewards,
    mistake=1.0,
    tie=0.7,
  )
  tied = labels.label_prob == 0.5
  assert labels.is_flipped[~tied].all() and labels.weight is None
  # Neither right nor wrong: coins, to four standard deviations.
  assert labels.is_flipped[tied].mean() == pytest.approx(
    0.5, abs=2 / np.sqrt(tied.sum())
  )


def test_the_target_is_the_rate_of_the_labels_that_say_something():
  clean, rewards = _queries(3000)
  labels = teacher(
    _KEY,
    clean,
    index=np.arange(3000),
    step_rewards=rewards,
    flip_rate=0.3,
    tie=0.5,
    skip=0.5,
    myopia=0.9,
  )
  counted = says_something(labels)
  assert labels.flip_rate[counted].mean(dtype=float) == pytest.approx(
    0.3, abs=1e-6
  )
  found = noise_metrics(labels)
  assert float(found['noise/expected_rate'].mean()) == pytest.approx(
    0.3, abs=1e-5
  )
  # Four standard deviations.
  assert float(found['noise/realised_rate'].mean()) == pytest.approx(
    0.3, abs=4 * np.sqrt(0.21 / counted.sum())
  )


def test_a_myopic_teacher_sees_the_end():
  clean, rewards = _queries(500)
  labels = teacher(
    _KEY,
    clean,
    index=np.arange(500),
    step_rewards=rewards,
    mistake=0.0,
    myopia=1e-6,
  )
  np.testing.assert_array_equal(
    labels.label, rewards[:, 0, -1] > rewards[:, 1, -1]
  )
  wrong = labels.is_flipped.mean()
  with pytest.raises(ValueError, match=f'out of reach.*{wrong:.4g}'):
    teacher(
      _KEY,
      clean,
      index=np.arange(500),
      step_rewards=rewards,
      flip_rate=wrong / 2,
      myopia=1e-6,
    )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'rationality': 0.0}, 'rationality=0.0 must be > 0'),
    ({'myopia': 0.0}, r'myopia=0.0 must be in \(0, 1\]'),
    ({'skip': -1.0}, 'skip=-1.0 must be >= 0'),
    ({'tie': np.nan}, 'tie=nan must be >= 0'),
    ({'mistake': 0.1}, 'exactly one of flip_rate=0.2 and mistake'),
    ({'skip': 1e6}, 'skip=1000000.0 and tie=0.0 leave no pair'),
    ({'step_rewards': np.ones((60, 2))}, r'step_rewards has shape \(60, 2\)'),
  ],
)
def test_refusals(change, message):
  clean, rewards = _queries(60)
  given = {'step_rewards': rewards, 'flip_rate': 0.2} | change
  with pytest.raises(ValueError, match=message):
    teacher(_KEY, clean, index=np.arange(60), **given)


def test_a_judge_is_wrong_where_its_own_margin_is():
  rng = np.random.default_rng(11)
  margin = rng.normal(size=600)
  judged = margin + rng.normal(size=600)
  labels = ai_judge(
    _KEY,
    margin > 0,
    index=np.arange(600),
    judge_margin=judged,
    temperature=0.7,
    position_bias=0.4,
  )
  first = special.expit((judged + 0.4) / 0.7)
  np.testing.assert_allclose(
    labels.flip_rate, np.where(margin > 0, 1 - first, first), rtol=1e-5
  )
  own = np.mean((judged > 0) != (margin > 0))
  with pytest.raises(ValueError, match=f'out of reach.*{own:.4g}'):
    ai_judge(
      _KEY, margin > 0, index=np.arange(600), judge_margin=judged, flip_rate=0.1
    )
  with pytest.raises(ValueError, match='position_bias=nan must be finite'):
    ai_judge(
      _KEY,
      margin > 0,
      index=np.arange(600),
      judge_margin=judged,
      flip_rate=0.4,
      position_bias=np.nan,
    )


def test_position_bias_favours_the_first():
  rng = np.random.default_rng(12)
  margin = rng.normal(size=4000)
  given = {'index': np.arange(4000), 'judge_margin': margin, 'flip_rate': 0.3}
  firsts = [
    ai_judge(_KEY, margin > 0, position_bias=bias, **given).label.mean()
    for bias in (-0.5, 0.0, 0.5)
  ]
  assert firsts[0] < 0.42 < firsts[1] < 0.58 < firsts[2]

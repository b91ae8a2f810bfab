"""The theory against simulation, and curves inverted by hand."""

import numpy as np
import pytest
from scipy import optimize, special

from alignment.protocols.label_budget import price


@pytest.mark.parametrize('flip_rate', [0.0, 0.1, 0.3])
def test_information_is_the_variance_of_the_score(flip_rate):
  """Fisher information by its definition, the score by finite differences."""
  for margin in (-3.0, 0.0, 0.4, 2.5):

    def log_p(m, vote, flip_rate):
      p = flip_rate + (1 - 2 * flip_rate) * special.expit(m)
      return np.log(p if vote else 1 - p)

    def information(flip_rate, margin=margin):
      total = 0.0
      for vote in (0, 1):
        score = (
          log_p(margin + 1e-5, vote, flip_rate)
          - log_p(margin - 1e-5, vote, flip_rate)
        ) / 2e-5
        total += np.exp(log_p(margin, vote, flip_rate)) * score**2
      return total

    assert price.information_ratio(margin, flip_rate) == pytest.approx(
      information(flip_rate) / information(0.0), rel=1e-6
    )


def test_the_rule_of_thumb_holds_at_margin_zero_and_nowhere_above():
  for flip_rate in (0.05, 0.2, 0.45):
    rule = price.rule_of_thumb(flip_rate)
    assert price.information_ratio(0.0, flip_rate) == pytest.approx(rule)
    ratios = price.information_ratio(np.linspace(0, 700, 50), flip_rate)
    assert np.all(np.diff(ratios) <= 0) and ratios[-1] == pytest.approx(0)
    assert np.all(price.information_ratio(np.array([2.0]), 0.0) == 1)


def test_a_plain_fit_is_worth_less_than_one_that_knows_the_rate():
  margin = np.random.default_rng(0).normal(0, 2, 20_000)
  for flip_rate in (0.1, 0.3):
    plain = price.plain_rate(margin, flip_rate)
    forward = price.forward_rate(margin, flip_rate)
    assert plain < forward < price.rule_of_thumb(flip_rate)
  assert price.plain_rate(margin, 0.0) == pytest.approx(1)
  # Near even odds the two losses, and the rule, say the same.
  small = margin / 40
  assert price.plain_rate(small, 0.3) == pytest.approx(0.16, rel=0.01)
  assert price.forward_rate(small, 0.3) == pytest.approx(0.16, rel=0.01)


@pytest.mark.parametrize('loss', ['plain', 'forward'])
def test_the_rate_is_that_of_simulated_fits(loss):
  """Spread of the fitted direction, flipped labels against clean ones.

  300 fits of 2000 labels give a ratio of variances to about 9 %.
  """
  rng, scale, flip_rate, size = np.random.default_rng(1), 2.0, 0.25, 2000

  def direction(flip_rate, assumed):
    x = rng.standard_normal((size, 2))
    y = rng.random(size) < special.expit(scale * x[:, 0])
    y = np.where(y ^ (rng.random(size) < flip_rate), 1, -1)
    x = x * y[:, None]

    def objective(w):
      s = special.expit(x @ w)
      p = assumed + (1 - 2 * assumed) * s
      pull = (1 - 2 * assumed) * s * (1 - s) / p
      return -np.mean(np.log(p)), -(x.T @ pull) / size

    w = optimize.minimize(
      objective, np.array([scale, 0.0]), jac=True, method='BFGS'
    ).x
    return w[1] / w[0]

  clean = np.var([direction(0.0, 0.0) for _ in range(300)])
  assumed = flip_rate if loss == 'forward' else 0.0
  noisy = np.var([direction(flip_rate, assumed) for _ in range(300)])
  margin = rng.normal(0, scale, 100_000)
  theory = {'plain': price.plain_rate, 'forward': price.forward_rate}[loss]
  assert clean / noisy == pytest.approx(theory(margin, flip_rate), rel=0.3)


def test_curves_are_inverted_in_log_size():
  sizes = [10, 100, 1000]
  clean = np.array([[0.5, 0.7, 0.9], [0.6, 0.8, 0.8]])
  noisy = np.array([[0.6, 0.95, 0.5], [0.7, 0.95, 0.52]])
  found = price.equivalents(sizes, clean, noisy)
  # Means: .55, .75, .85 at 10, 100, 1000; and .65, .95, .51.
  assert found[0] == pytest.approx(10**1.5)
  assert np.isnan(found[1]) and np.isnan(found[2])


def test_a_dip_is_levelled_before_the_inverse():
  found = price.equivalents(
    [1, 10, 100, 1000],
    np.array([[0.5, 0.8, 0.7, 1.0]]),
    np.array([[0.6, 0.875]]),
  )
  # Levelled: .5, .75, .75, 1.
  np.testing.assert_allclose(found, [10**0.4, 10**2.5], rtol=1e-6)


def test_intervals_hold_the_truth_and_shrink_with_seeds():
  rng = np.random.default_rng(2)
  sizes, at = [10, 100, 1000], np.array([0.5, 0.7, 0.9])

  def interval(seeds):
    noise = rng.normal(0, 0.03, (seeds, 1))
    clean = at + noise + rng.normal(0, 0.01, (seeds, 3))
    noisy = 0.8 + noise + rng.normal(0, 0.01, (seeds, 1))
    return price.equivalents_interval(sizes, clean, noisy, rng)[0]

  few, many = interval(6), interval(60)
  truth = 10**2.5
  assert many.low < truth < many.high
  # Paired by seed: the common noise of .03 is not in the interval.
  assert many.high / many.low < 1.15
  assert many.high / many.low < few.high / few.low
  assert interval(1).low is None

"""Small loss, co-teaching, margins, Hölder's list, wDPO's flips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.noise.detection import holder, wdpo
from alignment.noise.detection.co_teaching import keep_share, peer_weights
from alignment.noise.detection.margins import label_margin
from alignment.noise.detection.small_loss import smallest


def test_smallest_losses_are_kept_with_their_weights():
  rng = np.random.default_rng(0)
  losses, weights = rng.gamma(2, 1, 50), rng.gamma(1, 1, 50)
  weights[rng.random(50) < 0.2] = 0
  losses[weights == 0] = np.nan
  present = np.flatnonzero(weights)
  for share in (0.0, 0.37, 0.7, 1.0):
    count = int(np.floor(share * len(present) + 1e-9))
    want = np.zeros(50)
    kept = present[np.argsort(losses[present])[:count]]
    want[kept] = weights[kept]
    found = jax.jit(smallest)(losses, weights, share)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_ties_and_nan():
  kept = smallest(jnp.array([2.0, jnp.nan, 1.0, 1.0, 1.0]), jnp.ones(5), 0.41)
  assert kept.tolist() == [0, 0, 1, 1, 0]
  kept = smallest(jnp.array([2.0, jnp.nan, 1.0]), jnp.ones(3), 0.7)
  assert kept.tolist() == [1, 0, 1]
  with pytest.raises(ValueError, match=r'share = 1\.1'):
    smallest(jnp.ones(3), jnp.ones(3), 1.1)


def test_keep_share_falls_to_the_clean_rate():
  shares = [float(keep_share(t, flip_rate=0.3)) for t in (0, 5, 10, 50)]
  np.testing.assert_allclose(shares, [1.0, 0.85, 0.7, 0.7], rtol=1e-6)
  late = keep_share(2, flip_rate=0.3, ramp=8.0, exponent=2.0)
  assert float(late) == pytest.approx(1 - 0.3 * 4 / 8, rel=1e-6)
  with pytest.raises(ValueError, match='flip_rate'):
    keep_share(1, flip_rate=1.0)


def test_each_learner_trains_on_the_choice_of_its_peer():
  first, second = jnp.array([3.0, 1.0, 2.0]), jnp.array([1.0, 2.0, 3.0])
  of_first, of_second = peer_weights(first, second, jnp.ones(3), 1 / 3)
  assert of_first.tolist() == [1, 0, 0]
  assert of_second.tolist() == [0, 1, 0]


def test_label_margin():
  rng = np.random.default_rng(1)
  probs, label = rng.dirichlet(np.ones(3), (4, 20)), rng.integers(0, 3, 20)
  want = [
    np.mean([np.log(p[b, s]) - np.log(np.delete(p[b], s)).max() for p in probs])
    for b, s in enumerate(label)
  ]
  np.testing.assert_allclose(label_margin(label, probs), want, rtol=1e-9)
  np.testing.assert_allclose(
    label_margin(label, probs[0]), label_margin(label, probs[:1])
  )
  certain = label_margin(np.array([1]), np.array([[1.0, 0.0]]))
  assert certain.item() == pytest.approx(np.log(1e-12))


def test_separation_index():
  """Exact for two-valued p, a false alarm for calibrated p without a flip."""
  rng = np.random.default_rng(2)
  certain = np.arange(100) >= 23
  assert holder.separation_index(certain) == pytest.approx(0.23)
  np.testing.assert_array_equal(holder.mislabelled(certain), ~certain)
  p = rng.beta(2, 1, 500)
  want = 1 - p.mean() * np.mean(p**1.5) / np.mean(p**2.5)
  assert holder.separation_index(p, 1.5) == pytest.approx(want, rel=1e-9)
  margin = np.abs(rng.normal(0, 2, 5000))
  calibrated = 1 / (1 + np.exp(-margin))
  assert 0.03 < holder.separation_index(calibrated) < 0.2
  assert holder.mislabelled(p).sum() == int(500 * holder.separation_index(p))
  tiny = holder.separation_index(1e-200 * p)
  assert tiny == pytest.approx(holder.separation_index(p), rel=1e-9)
  assert holder.separation_index(np.zeros(3)) == 0
  for bad in (np.array([1.2]), np.array([np.nan]), np.zeros(0)):
    with pytest.raises(ValueError, match='probs'):
      holder.separation_index(bad)


def test_wdpo_spends_its_budget_on_the_largest_gains():
  rng = np.random.default_rng(3)
  margin = rng.normal(1, 1.5, 3000)
  mass = wdpo.flip_mass(margin, flip_budget=0.1)
  assert 0.98 * 300 < mass.sum() <= 300 * (1 + 1e-9)
  assert np.all((mass >= 0) & (mass <= 1))
  assert not mass[margin >= 0].any()
  order = np.argsort(margin)
  assert np.all(np.diff(mass[order]) <= 1e-12)
  # tau = 1 reaches the few rows within 1 of the largest gain.
  narrow = wdpo.flip_mass(margin, flip_budget=0.1, tau=1.0)
  assert not narrow[margin > margin.min() + 1].any()
  assert narrow.sum() < 30


def test_wdpo_without_gains_takes_nothing_back():
  assert not wdpo.flip_mass(np.array([0.5, 2.0, 0.1]), flip_budget=0.5).any()
  few = wdpo.flip_mass(np.array([-0.5, 2.0, 0.1, -3.0]), flip_budget=1.0)
  assert np.all((few > 0) == [True, False, False, True])
  for name, value in (('flip_budget', 1.5), ('tau', 0.0)):
    with pytest.raises(ValueError, match=name):
      wdpo.flip_mass(np.ones(2), **{'flip_budget': 0.1, name: value})

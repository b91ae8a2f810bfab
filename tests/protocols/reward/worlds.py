"""A world of few features, where every fit can be checked by hand."""

import numpy as np
from scipy import sparse

from alignment.protocols.arena import Measured
from alignment.protocols.reward.fitting import Task
from alignment.protocols.reward.world import Part, World

FEATURES = 5
TRUTH = np.array([2.0, -1.0, 0.5, 0.0, 1.5])
"""The weights that clean labels follow."""


def part(rng, num_clusters, per_cluster, noise=0.5):
  """Pairs whose first is better where TRUTH and a little chance say so."""
  size = num_clusters * per_cluster
  first, second = rng.normal(size=(2, size, FEATURES))
  texts = np.concatenate([first, second])
  gap = (first - second) @ TRUTH + noise * rng.normal(size=size)
  return Part(
    differences=sparse.csr_array(first - second),
    sums=sparse.csr_array(first + second),
    first_is_better=gap > 0,
    observed_flip=np.zeros(size, bool),
    vote_share=(gap > 0).astype(float),
    cluster=np.repeat(np.arange(num_clusters), per_cluster),
    known={'index': np.arange(size), 'margin': gap},
    rewards=lambda weights: weights @ texts.T,
    gaps=lambda rewards: rewards[:size] - rewards[size:],
  )


def world(seed=0, num_clusters=30, per_cluster=6):
  rng = np.random.default_rng(seed)
  parts = {
    name: part(rng, num_clusters, per_cluster)
    for name in ('train', 'validation', 'test')
  }

  def measure(rewards):
    gaps = parts['test'].gaps(rewards)
    right = (gaps > 0) == parts['test'].first_is_better
    return Measured({'accuracy': float(right.mean())}, right.astype(float), {})

  return World(seed, **parts, measure=measure)


def task(of_world, flip=0.0, seed=1, **changes):
  """A task whose labels are flipped independently at rate `flip`."""
  rng = np.random.default_rng(seed)
  labels = {
    name: part.first_is_better ^ (rng.random(len(part)) < flip)
    for name, part in (
      ('train', of_world.train),
      ('validation', of_world.validation),
    )
  }
  given = {
    'l2': (0.003, 0.3, 0.03),
    'num_members': 6,
    'centring': 0.02,
    'estimator': 'surest_rows',
    **changes,
  }
  return Task(of_world, labels, **given)

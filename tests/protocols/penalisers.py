"""Pairs on which no tuning saves a convex loss from flips."""

import numpy as np


def penalised_pairs(rng, size, flip_rate, gamma=0.03):
  """Three kinds of pairs, half of them `penalisers`, in a random order.

  Source: Long and Servedio, Random classification noise defeats all convex
  potential boosters, 2010.

  Returns:
    features `[size, 2]`, true sides `[size]` ±1 and labels `[size]` ±1.
  """
  points = np.array(
    [[1, 0], [gamma, -gamma], [gamma, -gamma], [gamma, 5 * gamma]]
  )
  side = rng.choice([-1.0, 1.0], size)
  features = points[rng.integers(0, 4, size)] * side[:, None]
  return features, side, np.where(rng.random(size) < flip_rate, -side, side)

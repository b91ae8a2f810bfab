"""Small pools with uneven votes."""

import numpy as np

from alignment.protocols.label_budget.pool import Pool
from alignment.protocols.label_budget.reward import Validation


def make_pool(rng, size=40, slots=5, columns=3, flip_rate=0.2) -> Pool:
  return Pool(
    features=rng.standard_normal((size, columns)),
    votes=rng.choice([-1, 0, 1], (size, slots), p=[0.35, 0.1, 0.55]).astype(
      np.int8
    ),
    workers=rng.integers(0, 7, (size, slots)).astype(np.int32),
    num_votes=rng.integers(1, slots + 1, size),
    flip_rate=flip_rate,
  )


def make_validation(rng, weights, size=60) -> Validation:
  features = rng.standard_normal((size, len(weights)))
  return Validation(features, np.where(features @ weights > 0, 1.0, -1.0))

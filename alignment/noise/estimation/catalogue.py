"""Every estimator of a flip rate, under one signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alignment.noise.estimation.agreement import (
  agreement_bounds,
  agreement_rate,
)
from alignment.noise.estimation.anchors import (
  anchor_rate,
  single_label_bounds,
  surest_rows_rate,
)
from alignment.noise.estimation.confident import confident_joint_rate
from alignment.noise.estimation.estimate import RateEstimate
from alignment.noise.estimation.forward import (
  forward_features_rate,
  forward_rate,
)
from alignment.noise.estimation.heterogeneity import beta_mixture_rate
from alignment.noise.estimation.mixtures import mirror_mixture_rate
from alignment.noise.estimation.triplet import triplet_rate
from alignment.noise.evidence import Evidence

Estimator = Callable[[Evidence, np.random.Generator], RateEstimate]

ESTIMATORS: Mapping[str, Estimator] = {
  'anchors': anchor_rate,
  'agreement': agreement_rate,
  'agreement_bounds': agreement_bounds,
  'beta_mixture': beta_mixture_rate,
  'triplet': triplet_rate,
  'forward': forward_rate,
  'forward_features': forward_features_rate,
  'confident_joint': confident_joint_rate,
  'mirror_mixture': mirror_mixture_rate,
  'surest_rows': surest_rows_rate,
  'single_labels': single_label_bounds,
}


def estimate_all(
  evidence: Evidence,
  rng: np.random.Generator,
  names: Sequence[str] | None = None,
) -> list[RateEstimate]:
  """What every estimator says of the evidence, refusals included.

  Args:
    evidence: what is known of the labels.
    rng: numpy generator; an estimator's draws do not depend on which others
      are asked.
    names: keys of `ESTIMATORS`, all unless given.

  Raises:
    ValueError: an unknown name.
  """
  for name in names or ():
    if name not in ESTIMATORS:
      raise ValueError(f'estimator={name!r} must be one of {list(ESTIMATORS)}')
  streams = dict(zip(ESTIMATORS, rng.spawn(len(ESTIMATORS)), strict=True))
  chosen = ESTIMATORS if names is None else names
  return [ESTIMATORS[name](evidence, streams[name]) for name in chosen]

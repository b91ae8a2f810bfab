"""Models of annotators by name: of votes on tasks, of comparisons of items."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alignment.noise.crowd.bradley_terry import (
  bradley_terry,
  crowd_bt,
  noisy_bt,
)
from alignment.noise.crowd.comparisons import ComparisonFit, Comparisons
from alignment.noise.crowd.dawid_skene import dawid_skene, dawid_skene_weighted
from alignment.noise.crowd.fit import CrowdFit, Parameters
from alignment.noise.crowd.glad import glad, glad_weighted
from alignment.noise.crowd.majority import majority, majority_weighted
from alignment.noise.crowd.one_coin import one_coin, one_coin_weighted
from alignment.noise.crowd.table import VoteTable

ANNOTATOR_MODELS: dict[str, Callable[[VoteTable], CrowdFit]] = {
  'majority': majority,
  'one_coin': one_coin,
  'dawid_skene': dawid_skene,
  'glad': glad,
}
"""(votes) -> what the model says of tasks and workers."""

WEIGHTED: dict[str, Callable[[VoteTable, np.ndarray], Parameters]] = {
  'majority': majority_weighted,
  'one_coin': one_coin_weighted,
  'dawid_skene': dawid_skene_weighted,
  'glad': glad_weighted,
}
"""(votes, weights `[S, I]` of the tasks) -> parameters of S fits at once."""

COMPARISON_MODELS: dict[str, Callable[[Comparisons], ComparisonFit]] = {
  'bradley_terry': bradley_terry,
  'crowd_bt': crowd_bt,
  'noisy_bt': noisy_bt,
}
"""(comparisons) -> scores of items, and of the workers who compared them."""

"""What a method is told of the noise, where nobody knows the noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from alignment.noise.confident_joint import (
  calibrated_joint,
  transition_matrix,
)
from alignment.protocols.noisy_labels import learner
from alignment.protocols.noisy_labels.methods import BASELINE, Arm
from alignment.protocols.noisy_labels.plan import Plan, orders
from alignment.protocols.noisy_labels.world import Part

NUM_FOLDS = 4
ANCHOR_QUANTILE = 0.97
MIN_SINGULAR_SHARE = 1e-3


def estimate_transition(
  part: Part, label: np.ndarray, num_classes: int, seed: int, plan: Plan
) -> np.ndarray:
  """The transition from out-of-fold probabilities of the baseline.

  Folds are by group; the stop is the one whose out-of-fold predictions agree
  best with the noisy labels. 'confident_joint' counts confident rows;
  'anchors' takes the probabilities of the row at the 97th percentile of each
  class, which assumes that its true class is certain.

  Source: Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068; Patrini et al.,
  2017, arXiv 1609.03683.
  """
  probs = _out_of_fold(part, label, num_classes, seed, plan)
  if plan.estimator == 'anchors':
    return anchor_transition(probs)
  return transition_matrix(calibrated_joint(label, probs))


def anchor_transition(probs: np.ndarray) -> np.ndarray:
  """T[i] = probs of the row at the 97th percentile of probs[:, i]."""
  rank = int(ANCHOR_QUANTILE * (len(probs) - 1))
  rows = np.argsort(probs, axis=0, kind='stable')[rank]
  return probs[rows]


def _out_of_fold(
  part: Part, label: np.ndarray, num_classes: int, seed: int, plan: Plan
) -> np.ndarray:
  rng = np.random.default_rng(seed)
  fold = rng.permutation(part.group.max() + 1)[part.group] % NUM_FOLDS
  per_stop = plan.steps_per_stop
  probs = np.zeros((plan.num_stops, len(part), num_classes))
  features = jnp.asarray(part.features)
  for held_out in range(NUM_FOLDS):
    rows = fold == held_out
    data = learner.Data(
      features, (jnp.asarray(label),), jnp.asarray(~rows, jnp.float32)
    )
    key = jax.random.key(seed)
    state = learner.start((key,), features, plan.width, num_classes)
    order = orders(seed, 1, len(part), plan)
    for number in range(plan.num_stops):
      state = learner.advance(
        state,
        data,
        order[:, number * per_stop : (number + 1) * per_stop],
        1.0,
        plan.learning_rates[0],
        {},
        loss=BASELINE,
        scheme='all',
      )
      scores = learner.logits(state.params[0], features)
      probs[number, rows] = np.asarray(jax.nn.softmax(scores))[rows]
  agreement = (probs.argmax(axis=2) == label).mean(axis=1)
  best = probs[int(np.argmax(agreement))]
  return best / best.sum(axis=1, keepdims=True)


def mean_rate(label: np.ndarray, transition: np.ndarray) -> float:
  """The mean flip rate that a transition implies for these noisy labels.

  The clean shares solve shares·T = frequency of the labels, in least squares
  and clipped to [0, ∞); the rate is kept below (C − 1)/C.
  """
  frequency = np.bincount(label, minlength=len(transition)) / len(label)
  shares = np.linalg.lstsq(transition.T, frequency, rcond=None)[0]
  shares = np.maximum(shares, 0.0)
  kept = np.sum(shares * np.diag(transition)) / np.sum(shares)
  # Beyond (C − 1)/C labels would mean the opposite.
  return float(np.clip(1.0 - kept, 0.0, 0.999 * (1 - 1 / len(transition))))


def complaint(arm: Arm, transition: np.ndarray | None) -> str:
  """Why an arm cannot be trained with what it would be told; '' if it can."""
  if not arm.method.needs:
    return ''
  if not np.all(np.isfinite(transition)):
    return 'a class is nowhere the likely one, so its row is unknown'
  singular = np.linalg.svd(transition, compute_uv=False)
  if arm.name == 'backward' and singular[-1] < MIN_SINGULAR_SHARE * singular[0]:
    return 'the transition cannot be inverted'
  return ''

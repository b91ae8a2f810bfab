"""Every detector of wrong labels, under one signature.

`DETECTORS[name](evidence)` gives `[B]`, higher where the label is likelier
wrong, finite. Only the order means something; for a probability see
`posterior.flip_posterior`.

With two classes the orders of `small_loss`, `margin` and
`confidence_weighted_entropy` are one and the same, so equal figures are no
agreement. `length` and `random` are controls: a detector that does not beat
them has found nothing that reading the text was needed for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from scipy import special

from alignment.noise.crowd.dawid_skene import dawid_skene
from alignment.noise.crowd.re_po import fixed_point
from alignment.noise.detection import confident, wdpo
from alignment.noise.detection.crowdlab import crowdlab
from alignment.noise.detection.loss_mixture import (
  beta_mixture,
  gaussian_mixture,
)
from alignment.noise.detection.margins import SMALLEST_PROB, label_margin
from alignment.noise.evidence import Evidence

Detector = Callable[[Evidence], np.ndarray]

WDPO_BUDGET = 0.1
SAME_ORDER = ('small_loss', 'margin', 'confidence_weighted_entropy')
"""Detectors that rank two-class labels alike."""


def small_loss(evidence: Evidence) -> np.ndarray:
  """−log probs[label]: what a loss, held out, would be."""
  own = confident.self_confidence(evidence.label, evidence.probs)
  return -np.log(np.maximum(own, SMALLEST_PROB))


def margin(evidence: Evidence) -> np.ndarray:
  """−(log probs[label] − max of the others), cross-validated."""
  return -label_margin(evidence.label, evidence.probs)


def confidence_weighted_entropy(evidence: Evidence) -> np.ndarray:
  return -confident.confidence_weighted_entropy(evidence.label, evidence.probs)


def confident_learning(evidence: Evidence) -> np.ndarray:
  """How far another class exceeds its threshold beyond what the label does."""
  # Infinite where no row has another label.
  ahead = confident.threshold_margin(evidence.label, evidence.probs)
  return -np.clip(ahead, -2.0, 2.0)


def loss_mixture(evidence: Evidence) -> np.ndarray:
  """1 − DivideMix's posterior of the component of small losses."""
  return 1.0 - gaussian_mixture(small_loss(evidence)).clean


def loss_mixture_beta(evidence: Evidence) -> np.ndarray:
  """The same with beta densities."""
  return 1.0 - beta_mixture(small_loss(evidence)).clean


def wdpo_flips(evidence: Evidence) -> np.ndarray:
  """What wDPO takes back at a budget of .1; 0 for most rows."""
  return wdpo.flip_mass(-margin(evidence), flip_budget=WDPO_BUDGET)


def vote_share(evidence: Evidence) -> np.ndarray:
  """Share of the row's votes that say otherwise; ½ where nobody voted."""
  counts = evidence.votes.counts
  total = counts.sum(axis=1)
  against = total - counts[np.arange(len(evidence)), evidence.label]
  return np.divide(
    against, total, out=np.full(len(evidence), 0.5), where=total > 0
  )


def dawid_skene_posterior(evidence: Evidence) -> np.ndarray:
  """1 − P(label | votes), every worker with errors of its own."""
  task_probs = dawid_skene(evidence.votes).task_probs
  return 1.0 - task_probs[np.arange(len(evidence)), evidence.label]


def crowdlab_posterior(evidence: Evidence) -> np.ndarray:
  """1 − posterior[label] of votes and model, weighed."""
  posterior = crowdlab(evidence.votes, evidence.probs).posterior
  return 1.0 - posterior[np.arange(len(evidence)), evidence.label]


def re_po(evidence: Evidence) -> np.ndarray:
  """1 − RE-PO's weight: the model and the reliability of who labelled the row.

  Reliabilities are the fixed point given the model; that of an annotator of few
  rows may come out near 0 or 1. Of an unknown annotator it is ½, and the model
  alone decides.
  """
  own = confident.self_confidence(evidence.label, evidence.probs)
  annotators, place = np.unique(evidence.annotator_id, return_inverse=True)
  place = np.where(evidence.annotator_id < 0, -1, place)
  with jax.enable_x64(True):
    own = np.clip(own, SMALLEST_PROB, 1.0 - SMALLEST_PROB)
    _, right = fixed_point(own, place, len(annotators))
    return 1.0 - np.asarray(right)


def length(evidence: Evidence) -> np.ndarray:
  """1 − P(label | length), the lengths of each class taken as normal.

    P(c | x) ∝ share[c]·N(x; mean[c], common variance)

  Reads the feature whose name begins with `length`; of a preference it should
  be first minus second. Fitted to the labels at hand.
  """
  x = evidence.features[:, _length_column(evidence)]
  classes, label = evidence.num_classes, evidence.label
  counts = np.bincount(label, minlength=classes)
  means = np.bincount(label, x, minlength=classes) / np.maximum(counts, 1)
  variance = np.mean((x - means[label]) ** 2)
  if variance == 0:
    return np.zeros(len(x))
  logs = np.full((len(x), classes), -np.inf)
  seen = counts > 0
  logs[:, seen] = np.log(counts[seen]) - (x[:, None] - means[seen]) ** 2 / (
    2 * variance
  )
  own = special.softmax(logs, axis=1)[np.arange(len(x)), label]
  return 1.0 - own


def random(evidence: Evidence) -> np.ndarray:
  """Uniform draws, the same for every evidence of as many rows."""
  return np.random.default_rng(0).random(len(evidence))


_TABLE: Mapping[str, tuple[Detector, tuple[str, ...]]] = {
  'small_loss': (small_loss, ('probs',)),
  'margin': (margin, ('probs',)),
  'confidence_weighted_entropy': (confidence_weighted_entropy, ('probs',)),
  'confident_learning': (confident_learning, ('probs',)),
  'loss_mixture': (loss_mixture, ('probs',)),
  'loss_mixture_beta': (loss_mixture_beta, ('probs',)),
  'wdpo': (wdpo_flips, ('probs',)),
  'vote_share': (vote_share, ('votes',)),
  'dawid_skene': (dawid_skene_posterior, ('votes',)),
  'crowdlab': (crowdlab_posterior, ('votes', 'probs')),
  're_po': (re_po, ('probs', 'annotator_id')),
  'length': (length, ('features',)),
  'random': (random, ()),
}


def inputs(name: str) -> tuple[str, ...]:
  """The attributes of `Evidence` that a detector reads beside the labels.

  Raises:
    ValueError: an unknown name.
  """
  if name not in _TABLE:
    raise ValueError(f'detector={name!r} must be one of {list(_TABLE)}')
  return _TABLE[name][1]


def missing(name: str, evidence: Evidence) -> str:
  """What the evidence lacks for a detector, in words; '' where nothing."""
  lacks = [key for key in inputs(name) if getattr(evidence, key) is None]
  if lacks:
    return f'{name} reads {" and ".join(lacks)}, which are not there'
  if name == 'length' and _length_column(evidence) is None:
    return 'length reads a feature named length…, which is not there'
  if name == 'crowdlab' and evidence.votes.counts.sum(axis=1).max() < 2:
    return 'crowdlab needs a row with two votes'
  return ''


def _detect(name: str, evidence: Evidence) -> np.ndarray:
  problem = missing(name, evidence)
  if problem:
    raise ValueError(problem)
  return _TABLE[name][0](evidence)


def _length_column(evidence: Evidence) -> int | None:
  names = evidence.feature_names
  return next((i for i, n in enumerate(names) if n.startswith('length')), None)


DETECTORS: Mapping[str, Detector] = {
  name: functools.partial(_detect, name) for name in _TABLE
}
"""name -> (evidence) -> `[B]`, higher is likelier wrong; ValueError where an
input is missing, which `missing` tells beforehand."""

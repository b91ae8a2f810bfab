"""How likely is a label, to a linear model that saw no row of its group?"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse, special
from scipy.sparse import csgraph

from alignment.data.features import bag_of_words
from alignment.data.label_answers import ids_of
from alignment.models.linear import fit_linear
from alignment.noise.detection.temperature import sharpen, sharpness
from alignment.protocols.audit.subject import Subject, length_ratio
from alignment.types import Array

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Ridge penalties tried, strongest first: each starts from the one before."""
NUM_FOLDS = 5
MIN_ROWS = 50


class Reading(NamedTuple):
  """Out-of-fold probabilities.

  Attributes:
    probs: `[B, C]` P(label at hand = c), calibrated.
    fold: `[B]`, the fold a row was held out with.
    strengths: the ridge penalty chosen for each fold.
  """

  probs: np.ndarray
  fold: np.ndarray
  strengths: tuple[float, ...]


def read(
  features: sparse.csr_array | Differences,
  label: np.ndarray,
  cluster: np.ndarray,
  *,
  num_classes: int,
  rng: np.random.Generator,
) -> Reading | None:
  """Cross-validates a logistic model; clusters are never divided.

  For fold k the penalty and the inverse temperature are chosen on fold k + 1 by
  its labels, noisy as they are, after training on the others; then the model
  is trained on all folds but k.

  Args:
    features: `[B, D]`, of pairs antisymmetric in their order.
    label: `[B]` int in [0, C).
    cluster: `[B]`, what must not be divided.
    num_classes: C.
    rng: deals clusters to folds.

  Returns:
    None where there are too few clusters, rows or rows of a second class.
  """
  fold = deal(cluster, rng)
  num_folds = fold.max() + 1
  frequent = np.sort(np.bincount(label, minlength=num_classes))
  if num_folds < 3 or len(label) < MIN_ROWS or frequent[-2] < num_folds:
    return None
  probs = np.zeros((len(label), num_classes))
  strengths = []
  for k in range(num_folds):
    test, tuned = fold == k, fold == (k + 1) % num_folds
    fit = functools.partial(_fit, features, label, num_classes)
    best = None
    start = None
    for strength in STRENGTHS:
      start, scores = fit(~test & ~tuned, strength, start)
      sure = _calibrated(scores[tuned], label[tuned], num_classes)
      if best is None or sure[1] < best[1] - 1e-9:
        best = strength, sure[1], sure[0], start
    strength, _, sharp, start = best
    _, scores = fit(~test, strength, start)
    probs[test] = sharpen(_probs(scores[test]), sharp)
    strengths.append(strength)
  return Reading(probs, fold, tuple(strengths))


class Differences:
  """Pairs of texts as features, multiplied text by text.

  Row b is words[first[b]] − words[second[b]], then lengths[b]. Texts recur in
  many pairs, so their words are gone through once per text and not per pair.

  Args:
    words: `[n, D]`, one row per text.
    first, second: `[B]` row numbers of `words`.
    lengths: `[B]`.
  """

  def __init__(
    self,
    words: sparse.csr_array,
    first: np.ndarray,
    second: np.ndarray,
    lengths: np.ndarray,
  ):
    self._parts = words, first, second, lengths
    self.shape = len(first), words.shape[1] + 1

  def matrix(self) -> sparse.csr_array:
    """The same as a sparse matrix `[B, D + 1]`."""
    words, first, second, lengths = self._parts
    column = sparse.csr_array(lengths[:, None])
    return sparse.hstack([words[first] - words[second], column], format='csr')

  def __getitem__(self, rows: np.ndarray) -> Differences:
    words, *parts = self._parts
    return Differences(words, *(part[rows] for part in parts))

  def __matmul__(self, weights: np.ndarray) -> np.ndarray:
    words, first, second, lengths = self._parts
    scores = words @ weights[:-1]
    return scores[first] - scores[second] + lengths * weights[-1]

  @property
  def T(self) -> _Transposed:
    return _Transposed(*self._parts)


class _Transposed(NamedTuple):
  words: sparse.csr_array
  first: np.ndarray
  second: np.ndarray
  lengths: np.ndarray

  def __matmul__(self, pull: np.ndarray) -> np.ndarray:
    size = self.words.shape[0]
    by_text = np.bincount(self.first, pull, size)
    by_text -= np.bincount(self.second, pull, size)
    return np.append(self.words.T @ by_text, self.lengths @ pull)


def features_of(subject: Subject) -> sparse.csr_array | Differences | None:
  """Hashed words and lengths of a subject's texts; None where it has none.

  Of pairs: words of the first minus words of the second, each of norm 1, and
  the log ratio of their lengths; of single texts: words, log length and 1.
  Words that one text alone has are left out: nothing can be learned of them.
  """
  texts = subject.texts
  if subject.is_pairs:
    sides, names = ids_of(t[part] for part in (1, 2) for t in texts)
    first, second = np.split(sides, 2)
    ratio = _scaled(length_ratio(texts))
    return Differences(_shared_words(names), first, second, ratio)
  if not any(t[0] for t in texts):
    return None
  lengths = np.log1p([len(t[0].split()) for t in texts])
  dense = np.stack([_scaled(lengths - lengths.mean()), np.ones(len(texts))], 1)
  words = _shared_words([t[0] for t in texts])
  return sparse.hstack([words, sparse.csr_array(dense)], format='csr')


def _shared_words(texts: Sequence[str]) -> sparse.csr_array:
  words = bag_of_words(texts)
  times = np.bincount(words.indices, minlength=words.shape[1])
  return sparse.csr_array(words[:, times > 1])


def clusters_of(
  group: np.ndarray, texts: Sequence[tuple[str, ...]]
) -> np.ndarray:
  """`[B]` ids of the smallest sets of rows that share no group and no text."""
  size = len(group)
  # A prompt may head rows of many groups; a completion of it is what leaks.
  if len(texts[0]) == 3:
    sides = [(t[0], t[part]) for part in (1, 2) for t in texts]
  else:
    # Rows without text have nothing in common.
    sides = [t[0] or i for i, t in enumerate(texts)]
  keys, _ = ids_of(sides)
  columns = np.concatenate([group, keys + int(np.max(group)) + 1])
  rows = np.tile(np.arange(size), len(columns) // size)
  incidence = sparse.csr_array(
    (np.ones(len(columns), np.int8), (rows, columns)),
    shape=(size, int(columns.max()) + 1),
  )
  graph = sparse.block_array([[None, incidence], [incidence.T, None]])
  _, component = csgraph.connected_components(graph, directed=False)
  return np.unique(component[:size], return_inverse=True)[1]


def deal(cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """`[B]` folds of like size; clusters go, largest first, to the smallest."""
  sizes = np.bincount(cluster)
  order = rng.permutation(len(sizes))
  order = order[np.argsort(-sizes[order], kind='stable')]
  num_folds = min(NUM_FOLDS, len(sizes))
  filled, fold_of = np.zeros(num_folds, np.int64), np.zeros(len(sizes), int)
  for c in order:
    fold_of[c] = np.argmin(filled)
    filled[fold_of[c]] += sizes[c]
  return fold_of[cluster]


def _fit(
  features: sparse.csr_array | Differences,
  label: np.ndarray,
  num_classes: int,
  used: np.ndarray,
  strength: float,
  start: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Weights trained on the rows `used`, and the scores of all rows.

  All rows go in, those left out with weight 0: one shape, one compilation.
  """
  two = num_classes == 2
  fit = fit_linear(
    features,
    _two_class_loss if two else _many_class_loss,
    (label,),
    l2=strength,
    weights=used.astype(np.float64),
    num_outputs=None if two else num_classes,
    start=start,
    max_iterations=100,
  )
  return fit.weights, fit.scores


def _two_class_loss(score: Array, label: Array) -> Array:
  """−log P(label), P(0) = σ(score)."""
  return jax.nn.softplus((2 * label - 1) * score)


def _many_class_loss(scores: Array, label: Array) -> Array:
  picked = jnp.take_along_axis(scores, label[:, None], axis=1)[:, 0]
  return jax.nn.logsumexp(scores, axis=1) - picked


def _probs(scores: np.ndarray) -> np.ndarray:
  if scores.ndim == 1:
    first = special.expit(scores)
    return np.stack([first, 1 - first], axis=1)
  return special.softmax(scores, axis=1)


def _calibrated(
  scores: np.ndarray, label: np.ndarray, num_classes: int
) -> tuple[float, float]:
  """The best inverse temperature and the mean loss in nats at it."""
  probs = _probs(scores)
  sharp = sharpness(probs, np.eye(num_classes)[label])
  right = sharpen(probs, sharp)[np.arange(len(label)), label]
  return sharp, float(-np.mean(np.log(right)))


def _scaled(values: np.ndarray) -> np.ndarray:
  return values / max(float(np.sqrt(np.mean(values**2))), 1e-9)

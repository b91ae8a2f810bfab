"""Losses of labels of C classes, most of them made for labels that are wrong.

`CLASSIFICATION[name](logits, label, **keywords)` gives `[B]`, unreduced, nats.
logits are `[B, C]`, C ≥ 2; label is `[B]` integers in [0, C), or `[B, C]`
probabilities, which cost Σ_c label[c] · (what label c would cost). Finite with
finite gradients for |logits| ≤ 1e4 in float32.

Words of the equations: p = softmax(logits), y the label, p_y its probability,
C the number of classes, ε label_smoothing, T transition (T[i, j] = P(noisy = j
| clean = i), `[C, C]` or `[B, C, C]`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from alignment.losses import transitions
from alignment.losses.numerics import as_float, check_range, deformed
from alignment.types import Array

_MIN_PROB = 1e-4


def cross_entropy(logits: Array, label: Array) -> Array:
  """Cross-entropy: the likelihood of the label as it stands.

    loss = −log p_y

  Source: Good, Rational Decisions, 1952.
  """
  return _at_label(-_log_probs(logits), label)


def conservative(
  logits: Array, label: Array, *, label_smoothing: Array | float = 0.1
) -> Array:
  """Label smoothing: cross-entropy of a label flipped at rate ε.

    loss = −(1 − ε)·log p_y − ε/(C − 1)·Σ_{c≠y} log p_c

  ε is a flip rate: Szegedy's smoothing constant, spread over all C classes, is
  ε·C/(C − 1). Biased under flips. Needs ε in [0, (C − 1)/C).

  Source: Szegedy et al., Rethinking the Inception Architecture for Computer
  Vision, 2015, arXiv 1512.00567.
  """
  classes = logits.shape[-1]
  check_range('label_smoothing', label_smoothing, 0.0, 1 - 1 / classes, '[)')
  # May be one rate per example, so the matrix itself is not formed.
  costs = -_log_probs(logits)
  rate = jnp.asarray(label_smoothing)[..., None]
  others = (jnp.sum(costs, axis=-1, keepdims=True) - costs) / (classes - 1)
  return _at_label((1.0 - rate) * costs + rate * others, label)


def forward(logits: Array, label: Array, *, transition: Array) -> Array:
  """Forward correction: likelihood of the label after the noise.

    loss = −log Σ_i p_i·T[i, y]

  Consistent where T is the truth; a column of T that is positive throughout
  bounds it by −log of its smallest entry.

  Source: Patrini et al., Making Deep Neural Networks Robust to Label Noise,
  2017, arXiv 1609.03683.
  """
  return _at_label(transitions.forward(_log_probs(logits), transition), label)


def backward(logits: Array, label: Array, *, transition: Array) -> Array:
  """Backward correction: unbiased for cross-entropy on clean labels.

    loss = −Σ_c T⁻¹[y, c]·log p_c

  Holds for noise of exactly T, independent of the input given the class.
  Unbounded below.

  Source: Patrini et al., Making Deep Neural Networks Robust to Label Noise,
  2017, arXiv 1609.03683.
  """
  return _at_label(transitions.backward(-_log_probs(logits), transition), label)


def gce(logits: Array, label: Array, *, q: Array | float = 0.7) -> Array:
  """Generalised cross-entropy, between cross-entropy and mae.

    loss = (1 − p_y^q) / q

  q → 0 is cross_entropy, q = 1 half of mae.

  Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018,
  arXiv 1805.07836.
  """
  check_range('q', q, 0.0, 1.0)
  return _at_label(-deformed(q, _log_probs(logits)), label)


def truncated_gce(
  logits: Array,
  label: Array,
  *,
  q: Array | float = 0.7,
  threshold: Array | float = 0.1,
) -> Array:
  """Generalised cross-entropy, constant where p_y ≤ threshold.

    loss = (1 − max(p_y, threshold)^q) / q

  A model that starts at p = 1/C gets no gradient from a threshold of 1/C or
  more, so the default is not the ½ of the paper, which prunes after a warm-up.

  Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018,
  arXiv 1805.07836.
  """
  check_range('q', q, 0.0, 1.0)
  check_range('threshold', threshold, 0.0, 1.0, '()')
  log_probs = _log_probs(logits)
  log_threshold = jnp.log(jnp.asarray(threshold, log_probs.dtype))
  ceiling = -deformed(q, log_threshold)
  costs = jnp.where(log_probs > log_threshold, -deformed(q, log_probs), ceiling)
  return _at_label(costs, label)


def sce(
  logits: Array,
  label: Array,
  *,
  forward_weight: Array | float = 0.1,
  reverse_weight: Array | float = 1.0,
  log_zero: float = -4.0,
) -> Array:
  """Symmetric cross-entropy: both directions, with log 0 := log_zero.

    loss = −forward_weight·log p_y + reverse_weight·|log_zero|·(1 − p_y)

  Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy
  Labels, 2019, arXiv 1908.06112.
  """
  check_range('log_zero', log_zero, -jnp.inf, 0.0, '()')
  log_probs = _log_probs(logits)
  reverse = -log_zero * reverse_weight * -deformed(1.0, log_probs)
  return _at_label(-forward_weight * log_probs + reverse, label)


def mae(logits: Array, label: Array) -> Array:
  """Mean absolute error of the probabilities. Symmetric.

    loss = 2·(1 − p_y) = Σ_c |p_c − 1[c = y]|

  Over the labels it sums to 2·(C − 1), so symmetric flips only rescale it.

  Source: Ghosh et al., Robust Loss Functions under Label Noise for Deep Neural
  Networks, 2017, arXiv 1712.09482.
  """
  return _at_label(-2.0 * deformed(1.0, _log_probs(logits)), label)


def unhinged(logits: Array, label: Array) -> Array:
  """Unhinged loss, linear in the logits. Symmetric.

    loss = 1 − (logit_y − mean of the other logits)

  Over the labels it sums to C. Unbounded below: needs a penalty or a bound on
  the logits.

  Source: van Rooyen et al., Learning with Symmetric Label Noise: The Importance
  of Being Unhinged, 2015, arXiv 1505.07634, whose two classes are C here.
  """
  logits = as_float(logits)
  others = jnp.sum(logits, axis=-1, keepdims=True) - logits
  return _at_label(1.0 - logits + others / (logits.shape[-1] - 1), label)


def bootstrap_soft(
  logits: Array, label: Array, *, label_weight: Array | float = 0.95
) -> Array:
  """Soft bootstrapping: the label mixed with the model's own probabilities.

    loss = −Σ_c [b·1[c = y] + (1 − b)·p_c]·log p_c,   b = label_weight

  The gradient flows through both p: cross-entropy plus (1 − b) times the
  entropy of p. With the target held fixed the gradient would be b times that
  of cross-entropy, which is no defence at all.

  Source: Reed et al., Training Deep Neural Networks on Noisy Labels with
  Bootstrapping, 2014, arXiv 1412.6596.
  """
  check_range('label_weight', label_weight, 0.0, 1.0)
  log_probs = _log_probs(logits)
  entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
  fit = _at_label(-log_probs, label)
  return label_weight * fit + (1.0 - label_weight) * entropy


def bootstrap_hard(
  logits: Array, label: Array, *, label_weight: Array | float = 0.8
) -> Array:
  """Hard bootstrapping: the label mixed with the model's own best class.

    loss = −b·log p_y − (1 − b)·max_c log p_c,   b = label_weight

  Source: Reed et al., Training Deep Neural Networks on Noisy Labels with
  Bootstrapping, 2014, arXiv 1412.6596.
  """
  check_range('label_weight', label_weight, 0.0, 1.0)
  log_probs = _log_probs(logits)
  fit = _at_label(-log_probs, label)
  return label_weight * fit - (1.0 - label_weight) * jnp.max(log_probs, axis=-1)


def elr(
  logits: Array,
  label: Array,
  *,
  running_target: Array,
  strength: Array | float = 3.0,
) -> Array:
  """ELR: holds predictions near a running mean of earlier predictions.

    loss = −log p_y + strength·log(1 − Σ_c running_target[c]·p_c)

  p in the second term is clipped to [1e-4, 1 − 1e-4]. running_target `[B, C]`
  is state that the caller keeps by stable index and updates after each step
  (rows ≥ 0 that sum to at most 1, 0 at the start); no gradient flows into it.

  Source: Liu et al., Early-Learning Regularization Prevents Memorization of
  Noisy Labels, 2020, arXiv 2007.00151.
  """
  log_probs = _log_probs(logits)
  probs = jnp.clip(jnp.exp(log_probs), _MIN_PROB, 1.0 - _MIN_PROB)
  target = jax.lax.stop_gradient(as_float(running_target))
  held = jnp.log1p(-jnp.sum(target * probs, axis=-1))
  return _at_label(-log_probs, label) + strength * held


def peer(
  logits: Array,
  label: Array,
  *,
  peer_logits: Array,
  peer_label: Array,
  alpha: Array | float = 1.0,
) -> Array:
  """Peer loss: less what agreeing with unrelated labels would earn.

    loss = −log p_y + alpha·log p′_{y′}

  p′ is of one other example, y′ the label of yet another, both drawn anew
  (`peer_label` may be the label frequencies, `[B, C]`, which is the mean over
  draws of y′). At alpha = 1 its expectation under class-conditional noise is
  (1 − Σ_j e_j) times its clean one, whatever the rates, where T[i, j] = e_j for
  all i ≠ j: any two classes, or flips that do not look at where they come from.
  At other alpha a term in the rates remains. Unbounded below: at alpha = 1
  with classes that are equally frequent its mean is that of the `unhinged`
  loss, up to scale and constant.

  Source: Liu and Guo, Peer Loss Functions, 2020, arXiv 1910.03231.
  """
  own = cross_entropy(logits, label)
  return own - alpha * cross_entropy(peer_logits, peer_label)


CLASSIFICATION = {
  'cross_entropy': cross_entropy,
  'conservative': conservative,
  'forward': forward,
  'backward': backward,
  'gce': gce,
  'truncated_gce': truncated_gce,
  'sce': sce,
  'mae': mae,
  'unhinged': unhinged,
  'bootstrap_soft': bootstrap_soft,
  'bootstrap_hard': bootstrap_hard,
  'elr': elr,
  'peer': peer,
}


def _log_probs(logits: Array) -> Array:
  if np.ndim(logits) != 2 or np.shape(logits)[1] < 2:
    raise ValueError(
      f'logits has shape {np.shape(logits)}, must be [B, C] with C >= 2'
    )
  return jax.nn.log_softmax(as_float(logits), axis=-1)


def _at_label(costs: Array, label: Array) -> Array:
  """What each example costs under its label, `[B, C]` → `[B]`.

  Raises:
    ValueError: the shape; or, known at trace time, an integer outside [0, C) or
      a row that is no distribution. A traced integer outside gives NaN.
  """
  size, classes = costs.shape
  given, label = label, jnp.asarray(label)
  is_hard = jnp.issubdtype(label.dtype, jnp.integer)
  if label.shape != ((size,) if is_hard else (size, classes)):
    raise ValueError(
      f'label of shape {label.shape} and type {label.dtype} must be ({size},) '
      f'integers or ({size}, {classes}) probabilities'
    )
  if not isinstance(given, jax.core.Tracer):
    _check_label(np.asarray(given), classes)
  if not is_hard:
    return jnp.sum(label * costs, axis=-1)
  place = jnp.where(label < 0, classes, label)  # JAX would count from the end
  return jnp.take_along_axis(
    costs, place[:, None], axis=-1, mode='fill', fill_value=jnp.nan
  )[:, 0]


def _check_label(label: np.ndarray, classes: int) -> None:
  if label.ndim == 1:
    bad = (label < 0) | (label >= classes)
    wanted = f'must be in [0, {classes})'
  else:
    is_distribution = np.all(label >= 0, axis=1)
    is_distribution &= np.abs(label.sum(axis=1) - 1) <= 1e-4
    bad, wanted = ~is_distribution, 'must be probabilities that sum to 1'
  if bad.any():
    row = int(np.argmax(bad))
    raise ValueError(f'label[{row}] = {label[row]} {wanted}')

"""Label corrections: what a link costs when the label may be flipped.

A correction takes a link ℓ, the margin z and the assumed flip rate. All but
`forward` are linear in (ℓ(z), ℓ(−z)) and hold for any link.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from alignment.losses import links
from alignment.losses.numerics import check_range, log_sigmoid
from alignment.types import Array

Link = Callable[[Array], Array]


def conservative(link: Link, z: Array, label_smoothing: Array | float) -> Array:
  """(1 − ε)·ℓ(z) + ε·ℓ(−z), the expected loss of a label flipped at rate ε.

  Not unbiased: its minimiser is pulled towards z = 0.

  Args:
    link: ℓ, `[B]` → `[B]`.
    z: `[B]`.
    label_smoothing: ε in [0, ½), scalar or `[B]`; may be traced.

  Raises:
    ValueError: label_smoothing, known at trace time, is outside [0, ½).
  """
  check_range('label_smoothing', label_smoothing, 0.0, 0.5, '[)')
  return (1.0 - label_smoothing) * link(z) + label_smoothing * link(-z)


def backward(link: Link, z: Array, label_smoothing: Array | float) -> Array:
  """[(1 − ε)·ℓ(z) − ε·ℓ(−z)] / (1 − 2ε), unbiased under flips at rate ε.

  E over flips of the result is ℓ of the clean pair; it is T⁻¹ applied to the
  pair of losses, T = [[1 − ε, ε], [ε, 1 − ε]]. Unbounded below for unbounded ℓ,
  and its variance grows like ε(1 − ε)/(1 − 2ε)².

  Args, Raises: as `conservative`. A traced ε of ½ divides by zero.
  """
  check_range('label_smoothing', label_smoothing, 0.0, 0.5, '[)')
  numerator = (1.0 - label_smoothing) * link(z) - label_smoothing * link(-z)
  return numerator / (1.0 - 2.0 * label_smoothing)


def soft_label(link: Link, z: Array, label_prob: Array | float) -> Array:
  """q·ℓ(z) + (1 − q)·ℓ(−z) for a label that is a probability q.

  Args:
    link: ℓ.
    z: `[B]`.
    label_prob: q in [0, 1], P(chosen ≻ rejected), scalar or `[B]`.

  Raises:
    ValueError: label_prob, known at trace time, is outside [0, 1].
  """
  check_range('label_prob', label_prob, 0.0, 1.0)
  return label_prob * link(z) + (1.0 - label_prob) * link(-z)


def forward(link: Link, z: Array, label_smoothing: Array | float) -> Array:
  """−log[(1 − ε)·σ(z) + ε·σ(−z)], the likelihood of the flipped label.

  Defined for the logistic link only: other links are not the negative log of a
  probability that could be mixed. Consistent for any ε < ½, at most −log ε,
  and redescending for ε > 0.

  Args: as `conservative`; differentiable in ε for ε > 0.

  Raises:
    ValueError: link is not `links.logistic`, or label_smoothing, known at
      trace time, is outside [0, ½).
  """
  if link is not links.logistic:
    name = getattr(link, '__name__', repr(link))
    raise ValueError(
      f'link = {name}: the forward correction is defined for logistic only'
    )
  check_range('label_smoothing', label_smoothing, 0.0, 0.5, '[)')
  flip = jnp.asarray(label_smoothing)
  log_flip = jnp.where(
    flip > 0, jnp.log(jnp.where(flip > 0, flip, 1.0)), -jnp.inf
  )
  kept = jnp.log1p(-flip) + log_sigmoid(z)
  return -jnp.logaddexp(kept, log_flip + log_sigmoid(-z))


CORRECTIONS = {
  'conservative': conservative,
  'backward': backward,
  'soft_label': soft_label,
  'forward': forward,
}

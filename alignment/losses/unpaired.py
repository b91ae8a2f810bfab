"""Losses of single completions that are labelled good or bad.

`UNPAIRED[name](policy_logps, reference_logps, label, *, beta, …)` gives `[B]`,
unreduced, nats. logps are summed over the completion, `[B]`; label is `[B]`
booleans (True: labelled good) or probabilities of good in [0, 1].

Words of the equations: u = policy_logps − reference_logps, z = beta·u,
good = what the completion costs if it is good, bad = what it costs if it is
bad, loss of a label q = q·(cost if labelled good) + (1 − q)·(… if bad).
ε₊ = label_smoothing_good = P(labelled bad | good), ε₋ = label_smoothing_bad =
P(labelled good | bad), the flip rates the loss assumes, scalar or `[B]`, with
ε₊ + ε₋ < 1. What is said of expectations over flips holds because neither the
reference point nor delta reads a label.
"""

from __future__ import annotations

from math import inf

import jax
import jax.numpy as jnp
import numpy as np

from alignment.losses import links
from alignment.losses.compose import of
from alignment.losses.margins import logratio
from alignment.losses.numerics import as_float, check_range, log_sigmoid
from alignment.types import Array

_stop = jax.lax.stop_gradient


def _scored(
  policy_logps: Array, reference_logps: Array, label: Array
) -> tuple[Array, Array]:
  """(u, q): the log-ratio and the probability that the completion is good."""
  if not jnp.issubdtype(jnp.asarray(label).dtype, jnp.bool_):
    check_range('label', label, 0.0, 1.0)
  return logratio(policy_logps, reference_logps), as_float(label)


def reference_point(
  policy_logps: Array, reference_logps: Array, weights: Array
) -> Array:
  """The reference point of KTO: max(0, Σ w·u / Σ w), no gradient, nats.

  Over completions y′ of *other* prompts of the global batch, so that it
  estimates KL(policy ‖ reference) without a sample of the policy.

  Args:
    policy_logps: `[B]`, of the mismatched pairs (x, y′).
    reference_logps: `[B]`, of the same.
    weights: `[B]` ≥ 0; 0 for an empty slot, whose logps are ignored.

  Returns:
    A scalar ≥ 0; 0 where there is nothing.

  Source: Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic
  Optimization, 2024, arXiv 2402.01306.
  """
  values = logratio(policy_logps, reference_logps)
  total, count = _sums(values, weights)
  return _stop(jnp.maximum(total / jnp.maximum(count, 1e-30), 0.0))


def running_mean(
  mean: Array | float, count: Array | float, values: Array, weights: Array
) -> tuple[Array, Array]:
  """(mean, count) after one more batch: the mean of all that was ever seen.

    mean′ = (count·mean + Σ w·values) / (count + Σ w)

  The delta of BCO is that of the rewards z, of good and bad alike, the present
  batch included. No gradient.

  Args:
    mean: scalar, so far.
    count: scalar ≥ 0, Σ weights so far.
    values: `[B]`.
    weights: `[B]` ≥ 0; 0 for an empty slot, whose value is ignored.
  """
  total, more = _sums(_stop(as_float(values)), weights)
  after = count + more
  moved = (total - more * mean) / jnp.where(after > 0, after, 1.0)
  return mean + moved, after


@of(_scored)
def kto(
  u: Array,
  q: Array,
  *,
  reference_point: Array | float,
  beta: Array | float = 0.1,
  desirable_weight: Array | float = 1.0,
  undesirable_weight: Array | float = 1.0,
) -> Array:
  """KTO: each completion against a reference point, by prospect theory.

    good = desirable_weight·σ(−m),   bad = undesirable_weight·σ(m)
    m = beta·(u − reference_point)

  With equal weights good + bad is constant: symmetric flips only rescale it.

  Source: Ethayarajh et al., KTO: Model Alignment as Prospect Theoretic
  Optimization, 2024, arXiv 2402.01306, without the constant λ_y.
  """
  costs = _kto(u, reference_point, beta, desirable_weight, undesirable_weight)
  return _mixed(*costs, q)


@of(_scored)
def conservative_kto(
  u: Array,
  q: Array,
  *,
  reference_point: Array | float,
  beta: Array | float = 0.1,
  desirable_weight: Array | float = 1.0,
  undesirable_weight: Array | float = 1.0,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """KTO with labels smoothed by the two flip rates; biased under flips.

    if labelled good: (1 − ε₊)·good + ε₊·bad
    if labelled bad:  (1 − ε₋)·bad + ε₋·good

  Source: Ethayarajh et al., KTO, 2024, arXiv 2402.01306, smoothed as in
  Mitchell, A note on DPO with noisy preferences, 2023.
  """
  costs = _kto(u, reference_point, beta, desirable_weight, undesirable_weight)
  return _conservative(*costs, q, label_smoothing_good, label_smoothing_bad)


@of(_scored)
def backward_kto(
  u: Array,
  q: Array,
  *,
  reference_point: Array | float,
  beta: Array | float = 0.1,
  desirable_weight: Array | float = 1.0,
  undesirable_weight: Array | float = 1.0,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """KTO made unbiased for clean labels under class-conditional flips.

    if labelled good: [(1 − ε₋)·good − ε₊·bad] / (1 − ε₊ − ε₋)
    if labelled bad:  [(1 − ε₊)·bad − ε₋·good] / (1 − ε₊ − ε₋)

  Source: Ethayarajh et al., KTO, 2024, arXiv 2402.01306, corrected as in
  Natarajan et al., Learning with Noisy Labels, 2013.
  """
  costs = _kto(u, reference_point, beta, desirable_weight, undesirable_weight)
  return _backward(*costs, q, label_smoothing_good, label_smoothing_bad)


@of(_scored)
def bco(
  u: Array, q: Array, *, delta: Array | float, beta: Array | float = 0.1
) -> Array:
  """BCO: good and bad told apart by logistic regression on the reward.

    good = −log σ(z − delta),   bad = −log σ(delta − z)

  delta is `running_mean` of z. With σ(−m) for −log σ(m) it would be `kto` at
  the reference point delta/beta, which is its symmetric form.

  Source: Jung et al., Binary Classifier Optimization, 2024, arXiv 2404.04656.
  """
  return _mixed(*_bco(u, delta, beta), q)


@of(_scored)
def conservative_bco(
  u: Array,
  q: Array,
  *,
  delta: Array | float,
  beta: Array | float = 0.1,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """BCO with labels smoothed by the two flip rates; biased under flips.

    if labelled good: (1 − ε₊)·good + ε₊·bad
    if labelled bad:  (1 − ε₋)·bad + ε₋·good

  Source: Jung et al., Binary Classifier Optimization, 2024, arXiv 2404.04656,
  smoothed as in Mitchell, A note on DPO with noisy preferences, 2023.
  """
  costs = _bco(u, delta, beta)
  return _conservative(*costs, q, label_smoothing_good, label_smoothing_bad)


@of(_scored)
def backward_bco(
  u: Array,
  q: Array,
  *,
  delta: Array | float,
  beta: Array | float = 0.1,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """BCO made unbiased for clean labels under class-conditional flips.

    if labelled good: [(1 − ε₋)·good − ε₊·bad] / (1 − ε₊ − ε₋)
    if labelled bad:  [(1 − ε₊)·bad − ε₋·good] / (1 − ε₊ − ε₋)

  Unbounded below.

  Source: Jung et al., Binary Classifier Optimization, 2024, arXiv 2404.04656,
  corrected as in Natarajan et al., Learning with Noisy Labels, 2013.
  """
  costs = _bco(u, delta, beta)
  return _backward(*costs, q, label_smoothing_good, label_smoothing_bad)


@of(_scored)
def forward_bco(
  u: Array,
  q: Array,
  *,
  delta: Array | float,
  beta: Array | float = 0.1,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """BCO as the likelihood of the label after the flip.

    if labelled good: −log[(1 − ε₊)·σ(m) + ε₋·σ(−m)],   m = z − delta
    if labelled bad:  −log[(1 − ε₋)·σ(−m) + ε₊·σ(m)]

  Only BCO is a likelihood that could be mixed: σ(−m) of KTO and APO is not.

  Source: Jung et al., Binary Classifier Optimization, 2024, arXiv 2404.04656,
  corrected as in Patrini et al., 2017, arXiv 1609.03683.
  """
  _check_rates(label_smoothing_good, label_smoothing_bad)
  m = beta * u - _stop(delta)
  good = _mixture(m, label_smoothing_good, label_smoothing_bad)
  bad = _mixture(-m, label_smoothing_bad, label_smoothing_good)
  return _mixed(good, bad, q)


@of(_scored)
def apo_zero_unpaired(
  u: Array, q: Array, *, beta: Array | float = 0.1
) -> Array:
  """APO-zero on single completions: raises the good, lowers the bad.

    good = σ(−z),   bad = σ(z)

  good + bad = 1: symmetric flips only rescale it.

  Source: D'Oosterlinck et al., Anchored Preference Optimization, 2024,
  arXiv 2408.06266.
  """
  return _mixed(links.sigmoid(beta * u), links.sigmoid(-beta * u), q)


@of(_scored)
def conservative_apo_zero_unpaired(
  u: Array,
  q: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """Unpaired APO-zero with labels smoothed by the two flip rates.

    if labelled good: (1 − ε₊)·good + ε₊·bad
    if labelled bad:  (1 − ε₋)·bad + ε₋·good

  Source: D'Oosterlinck et al., Anchored Preference Optimization, 2024,
  arXiv 2408.06266, smoothed as in Mitchell, 2023.
  """
  costs = links.sigmoid(beta * u), links.sigmoid(-beta * u)
  return _conservative(*costs, q, label_smoothing_good, label_smoothing_bad)


@of(_scored)
def backward_apo_zero_unpaired(
  u: Array,
  q: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing_good: Array | float = 0.1,
  label_smoothing_bad: Array | float = 0.1,
) -> Array:
  """Unpaired APO-zero made unbiased under class-conditional flips.

    if labelled good: [(1 − ε₋)·good − ε₊·bad] / (1 − ε₊ − ε₋)
    if labelled bad:  [(1 − ε₊)·bad − ε₋·good] / (1 − ε₊ − ε₋)

  Source: D'Oosterlinck et al., Anchored Preference Optimization, 2024,
  arXiv 2408.06266, corrected as in Natarajan et al., Learning with Noisy
  Labels, 2013.
  """
  costs = links.sigmoid(beta * u), links.sigmoid(-beta * u)
  return _backward(*costs, q, label_smoothing_good, label_smoothing_bad)


UNPAIRED = {
  'kto': kto,
  'conservative_kto': conservative_kto,
  'backward_kto': backward_kto,
  'bco': bco,
  'conservative_bco': conservative_bco,
  'backward_bco': backward_bco,
  'forward_bco': forward_bco,
  'apo_zero_unpaired': apo_zero_unpaired,
  'conservative_apo_zero_unpaired': conservative_apo_zero_unpaired,
  'backward_apo_zero_unpaired': backward_apo_zero_unpaired,
}


def _kto(u, reference_point, beta, desirable_weight, undesirable_weight):
  for name, weight in (
    ('desirable_weight', desirable_weight),
    ('undesirable_weight', undesirable_weight),
  ):
    check_range(name, weight, 0.0, inf, '[)')
  m = beta * (u - _stop(reference_point))
  return (
    desirable_weight * links.sigmoid(m),
    undesirable_weight * links.sigmoid(-m),
  )


def _bco(u: Array, delta: Array | float, beta: Array | float):
  m = beta * u - _stop(delta)
  return links.logistic(m), links.logistic(-m)


def _mixed(good: Array, bad: Array, q: Array) -> Array:
  return q * good + (1.0 - q) * bad


def _conservative(good, bad, q, flip_good, flip_bad) -> Array:
  _check_rates(flip_good, flip_bad)
  labelled_good = (1.0 - flip_good) * good + flip_good * bad
  labelled_bad = (1.0 - flip_bad) * bad + flip_bad * good
  return _mixed(labelled_good, labelled_bad, q)


def _backward(good, bad, q, flip_good, flip_bad) -> Array:
  _check_rates(flip_good, flip_bad)
  labelled_good = (1.0 - flip_bad) * good - flip_good * bad
  labelled_bad = (1.0 - flip_good) * bad - flip_bad * good
  determinant = 1.0 - flip_good - flip_bad
  return _mixed(labelled_good, labelled_bad, q) / determinant


def _mixture(m: Array, lost: Array | float, gained: Array | float) -> Array:
  """−log[(1 − lost)·σ(m) + gained·σ(−m)]; gained may be 0."""
  gained = jnp.asarray(gained)
  some = gained > 0
  log_gained = jnp.where(some, jnp.log(jnp.where(some, gained, 1.0)), -jnp.inf)
  kept = jnp.log1p(-jnp.asarray(lost)) + log_sigmoid(m)
  return -jnp.logaddexp(kept, log_gained + log_sigmoid(-m))


def _check_rates(flip_good: Array | float, flip_bad: Array | float) -> None:
  """Each in [0, 1), and together below 1: beyond, labels mean the opposite."""
  check_range('label_smoothing_good', flip_good, 0.0, 1.0, '[)')
  check_range('label_smoothing_bad', flip_bad, 0.0, 1.0, '[)')
  if any(isinstance(rate, jax.core.Tracer) for rate in (flip_good, flip_bad)):
    return
  total = np.asarray(flip_good) + np.asarray(flip_bad)
  check_range('label_smoothing_good + label_smoothing_bad', total, 0, 1, '[)')


def _sums(values: Array, weights: Array) -> tuple[Array, Array]:
  """(Σ w·value, Σ w), whatever stands where w is 0."""
  present = jnp.where(weights > 0, values, 0.0)
  return jnp.sum(weights * present), jnp.sum(weights)

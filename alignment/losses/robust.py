"""Preference losses made for labels that may be wrong.

Words of the equations as in `direct`: z = beta·h, h = u − v, ε label_smoothing
(the flip rate the loss assumes, scalar or `[B]`, in [0, ½)), p = σ(z).
"""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from alignment.losses import corrections, links, margins
from alignment.losses.compose import of
from alignment.losses.numerics import check_range
from alignment.types import Array


@of(margins.logratio_difference)
def cdpo(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.1,
) -> Array:
  """Conservative DPO: cross-entropy with a smoothed label.

    loss = −(1 − ε)·log σ(z) − ε·log σ(−z)

  Minimal at σ(z) = 1 − ε; biased under flips.

  Source: Mitchell, A note on DPO with noisy preferences and relationship to
  IPO, 2023.
  """
  return corrections.conservative(links.logistic, beta * h, label_smoothing)


@of(margins.logratio_difference)
def rdpo(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.1,
) -> Array:
  """Robust DPO: unbiased for DPO on clean labels, whatever was flipped.

    loss = [−(1 − ε)·log σ(z) + ε·log σ(−z)] / (1 − 2ε)

  Holds for flips at exactly rate ε, independent of the pair. Unbounded below.

  Source: Chowdhury et al., Provably Robust DPO, 2024, arXiv 2403.00409.
  """
  return corrections.backward(links.logistic, beta * h, label_smoothing)


@of(margins.normalised_logratio_difference)
def ripo(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.1,
) -> Array:
  """Robust IPO: the backward correction of the squared link.

    loss = [(1 − ε)·(h − t)² − ε·(h + t)²] / (1 − 2ε),   t = 1/(2·beta)

  Equal to IPO with the target t/(1 − 2ε), up to a constant.

  Source: Chowdhury et al., Provably Robust DPO, 2024, arXiv 2403.00409,
  applied to Azar et al., 2023, arXiv 2310.12036.
  """
  link = partial(links.squared, beta=beta)
  return corrections.backward(link, beta * h, label_smoothing)


@of(margins.logratio_difference)
def forward(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.1,
) -> Array:
  """Forward correction: likelihood of the label after the flip (mixture BT).

    loss = −log[(1 − ε)·σ(z) + ε·σ(−z)]

  Consistent for any ε < ½; at most −log ε; redescending for ε > 0.

  Source: Patrini et al., Making Deep Neural Networks Robust to Label Noise,
  2017, arXiv 1609.03683, on the Bradley-Terry model as in Xu et al., 2025,
  arXiv 2512.00709.
  """
  return corrections.forward(links.logistic, beta * h, label_smoothing)


@of(margins.logratio_difference)
def soft_label(
  h: Array, *, beta: Array | float = 0.1, label_prob: Array | float
) -> Array:
  """DPO on a label that is a probability q = label_prob.

    loss = −q·log σ(z) − (1 − q)·log σ(−z)

  Minimal at z = logit(q).

  Source: Mitchell, A note on DPO with noisy preferences and relationship to
  IPO, 2023, with one probability per pair in place of 1 − ε.
  """
  return corrections.soft_label(links.logistic, beta * h, label_prob)


@of(margins.logratio_difference)
def dpo_pro(
  h: Array,
  *,
  beta: Array | float = 0.1,
  rho: Array | float = 0.1,
  label_prob: Array | float,
) -> Array:
  """DPO-PRO: worst label probability within a χ² ball around q = label_prob.

    loss = max over |p − q| ≤ √(rho·q·(1 − q)), p in [0, 1], of
           −p·log σ(z) − (1 − p)·log σ(−z)

  Equals soft_label plus at most √(rho·q(1 − q))·|z|; nothing is added at
  q = 0 or 1.

  Source: Kim et al., Lightweight Robust Direct Preference Optimization, 2025,
  arXiv 2510.23590.
  """
  check_range('rho', rho, 0.0, jnp.inf, '[)')
  check_range('label_prob', label_prob, 0.0, 1.0)
  radius = jnp.sqrt(rho * label_prob * (1.0 - label_prob))
  worst = jnp.clip(label_prob - jnp.sign(h) * radius, 0.0, 1.0)
  return corrections.soft_label(links.logistic, beta * h, worst)


SYMMETRIC_LINKS = {
  'sigmoid': links.sigmoid,
  'unhinged': links.unhinged,
  'ramp': links.ramp,
}


@of(margins.clamped_reward_difference)
def sympo(z: Array, *, link: str = 'sigmoid') -> Array:
  """SymPO: a symmetric loss, ℓ(z) + ℓ(−z) constant, so flips only rescale it.

    loss = σ(−z), 1 − z or clip(½ − ½z, 0, 1)   (link = sigmoid, unhinged, ramp)
    z = clip(beta·u, ±bound) − clip(beta·v, ±bound)

  Source: Nishimori et al., On Symmetric Losses for Robust Policy Optimization
  with Noisy Preferences, 2025, arXiv 2505.24709. `ramp` is the symmetric one;
  the authors' option of that name, clip(1 − z, 0, 1), is not symmetric.
  """
  if link not in SYMMETRIC_LINKS:
    raise ValueError(f'link = {link!r} is none of {sorted(SYMMETRIC_LINKS)}')
  return SYMMETRIC_LINKS[link](z)


@of(margins.logratio_difference)
def gce(
  h: Array, *, beta: Array | float = 0.1, q: Array | float = 0.7
) -> Array:
  """Generalised cross-entropy on the pair probability.

    loss = (1 − p^q) / q

  q → 0 is DPO, q = 1 the symmetric sigmoid.

  Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018,
  arXiv 1805.07836.
  """
  return links.gce(beta * h, q)


@of(margins.logratio_difference)
def truncated_gce(
  h: Array,
  *,
  beta: Array | float = 0.1,
  q: Array | float = 0.7,
  threshold: Array | float = 0.25,
) -> Array:
  """Generalised cross-entropy, constant where p ≤ threshold.

    loss = (1 − max(p, threshold)^q) / q

  With a threshold of ½ or more a policy that starts at its reference (p = ½)
  gets no gradient at all, so the default is not the ½ of the paper, which
  prunes after a warm-up.

  Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018,
  arXiv 1805.07836.
  """
  return links.truncated_gce(beta * h, q, threshold)


@of(margins.logratio_difference)
def sce(
  h: Array,
  *,
  beta: Array | float = 0.1,
  forward_weight: Array | float = 0.1,
  reverse_weight: Array | float = 1.0,
  log_zero: float = -4.0,
) -> Array:
  """Symmetric cross-entropy on the pair probability, with log 0 := log_zero.

    loss = −forward_weight·log σ(z) + reverse_weight·|log_zero|·σ(−z)

  Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy
  Labels, 2019, arXiv 1908.06112.
  """
  check_range('log_zero', log_zero, -jnp.inf, 0.0, '()')
  return links.sce(beta * h, forward_weight, -log_zero * reverse_weight)


@of(margins.logratio_difference)
def ropo(
  h: Array, *, beta: Array | float = 0.1, alpha: Array | float = 14.0
) -> Array:
  """ROPO: logistic and sigmoid loss, weighted for a gradient of at most 1.

    loss = −(4·alpha/(1 + alpha)²)·log σ(z) + (4·alpha²/(1 + alpha)²)·σ(−z)

  The same family as sce. Needs alpha ≥ 1 for that bound. The paper's filtering
  of large losses is the aggregate `trimmed`.

  Source: Liang et al., Robust Preference Optimization, 2024, arXiv 2404.04102.
  """
  scale = 4.0 * alpha / (1.0 + alpha) ** 2
  return links.sce(beta * h, scale, scale * alpha)


@of(margins.logratio_difference)
def holder_dpo(
  h: Array, *, beta: Array | float = 0.1, gamma: Array | float = 2.0
) -> Array:
  """Hölder-DPO: a density-power score of the pair probability, redescending.

    loss = −(1 + gamma)·p^gamma + gamma·p^{1 + gamma}

  Does not tend to DPO as gamma → 0: (loss + 1)/gamma → −log p + p − 1.

  Source: Fujisawa et al., Scalable Valuation of Human Feedback through Provably
  Robust Model Alignment, 2025, arXiv 2505.17859.
  """
  return links.holder(beta * h, gamma)


ROBUST = {
  'cdpo': cdpo,
  'rdpo': rdpo,
  'ripo': ripo,
  'forward': forward,
  'soft_label': soft_label,
  'dpo_pro': dpo_pro,
  'sympo': sympo,
  'gce': gce,
  'truncated_gce': truncated_gce,
  'sce': sce,
  'ropo': ropo,
  'holder_dpo': holder_dpo,
}

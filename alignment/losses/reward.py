"""Losses of a reward model: Bradley-Terry, and what it costs if labels flip.

`REWARD[name](chosen_rewards, rejected_rewards, *, …)` gives `[B]`, unreduced,
nats; weights and coefficients of the pairs come afterwards, from an aggregate.
Words of the equations: h = chosen_rewards − rejected_rewards, in logits (there
is no beta: a reward model learns its own scale), p = σ(h), ε label_smoothing
(the flip rate the loss assumes, scalar or `[B]`, in [0, ½)).

`margin`, scalar or `[B]`, is by how much a pair has to win. It belongs to the
link, ℓ(h) = −log σ(h − margin), so that the swapped pair costs −log σ(−h −
margin) and corrections that are linear in both keep their meaning. Where the
equation needs a probability of the pair or a symmetric link, which a margin
takes away, the loss has no such keyword.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from alignment.losses import corrections, links, margins
from alignment.losses.compose import of
from alignment.losses.robust import SYMMETRIC_LINKS
from alignment.types import Array


@of(margins.reward_difference)
def bradley_terry(h: Array, *, margin: Array | float = 0.0) -> Array:
  """Bradley-Terry: the likelihood of the label as it is, with a margin.

    loss = −log σ(h − margin)

  Source: Bradley and Terry, Rank analysis of incomplete block designs, 1952;
  the margin as in Touvron et al., Llama 2, 2023, arXiv 2307.09288.
  """
  return links.shifted(h, margin)


@of(margins.reward_difference)
def conservative(
  h: Array,
  *,
  margin: Array | float = 0.0,
  label_smoothing: Array | float = 0.1,
) -> Array:
  """Label smoothing: cross-entropy with a label that is 1 − ε sure.

    loss = −(1 − ε)·log σ(h − margin) − ε·log σ(−h − margin)

  Without a margin minimal at σ(h) = 1 − ε; biased under flips.

  Source: Szegedy et al., Rethinking the Inception Architecture, 2015,
  arXiv 1512.00567; for reward models Wang et al., Secrets of RLHF Part II,
  2024, arXiv 2401.06080.
  """
  link = partial(links.shifted, gamma=margin)
  return corrections.conservative(link, h, label_smoothing)


@of(margins.reward_difference)
def backward(
  h: Array,
  *,
  margin: Array | float = 0.0,
  label_smoothing: Array | float = 0.1,
) -> Array:
  """Backward correction: unbiased for the loss on clean labels.

    loss = [−(1 − ε)·log σ(h − margin) + ε·log σ(−h − margin)] / (1 − 2ε)

  Holds for flips at exactly rate ε, independent of the pair. Unbounded below.

  Source: Natarajan et al., Learning with Noisy Labels, 2013; on pairs
  Chowdhury et al., Provably Robust DPO, 2024, arXiv 2403.00409.
  """
  link = partial(links.shifted, gamma=margin)
  return corrections.backward(link, h, label_smoothing)


@of(margins.reward_difference)
def forward(h: Array, *, label_smoothing: Array | float = 0.1) -> Array:
  """Forward correction: likelihood of the label after the flip.

    loss = −log[(1 − ε)·σ(h) + ε·σ(−h)]

  Consistent for any ε < ½; at most −log ε; redescending for ε > 0.

  Source: Patrini et al., Making Deep Neural Networks Robust to Label Noise,
  2017, arXiv 1609.03683; on rewards the coin-flip labeller of Christiano et
  al., Deep RL from Human Preferences, 2017, arXiv 1706.03741, whose ε is half
  the share of random answers.
  """
  return corrections.forward(links.logistic, h, label_smoothing)


@of(margins.reward_difference)
def soft_label(
  h: Array, *, margin: Array | float = 0.0, label_prob: Array | float
) -> Array:
  """Cross-entropy on a label that is a probability q = label_prob.

    loss = −q·log σ(h − margin) − (1 − q)·log σ(−h − margin)

  Without a margin minimal at h = logit(q).

  Source: Wang et al., Secrets of RLHF Part II, 2024, arXiv 2401.06080, whose q
  is σ of the label strength.
  """
  link = partial(links.shifted, gamma=margin)
  return corrections.soft_label(link, h, label_prob)


@of(margins.reward_difference)
def symmetric(h: Array, *, link: str = 'sigmoid') -> Array:
  """A symmetric loss, ℓ(h) + ℓ(−h) constant, so flips only rescale it.

    loss = σ(−h), 1 − h or clip(½ − ½h, 0, 1)   (link = sigmoid, unhinged, ramp)

  Recovers the order of the pairs and no scale: rewards are no log-odds.

  Source: Nishimori et al., On Symmetric Losses for Robust Policy Optimization
  with Noisy Preferences, 2025, arXiv 2505.24709, of reward models.

  Raises:
    ValueError: an unknown link.
  """
  if link not in SYMMETRIC_LINKS:
    raise ValueError(f'link = {link!r} is none of {sorted(SYMMETRIC_LINKS)}')
  return SYMMETRIC_LINKS[link](h)


@of(margins.reward_difference)
def gce(h: Array, *, q: Array | float = 0.7) -> Array:
  """Generalised cross-entropy on the pair probability.

    loss = (1 − p^q) / q

  q → 0 is Bradley-Terry, q = 1 the symmetric sigmoid.

  Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018,
  arXiv 1805.07836.
  """
  return links.gce(h, q)


@of(margins.reward_difference)
def truncated_gce(
  h: Array, *, q: Array | float = 0.7, threshold: Array | float = 0.25
) -> Array:
  """Generalised cross-entropy, constant where p ≤ threshold.

    loss = (1 − max(p, threshold)^q) / q

  A threshold of ½ or more gives a reward model that starts at 0 no gradient.

  Source: Zhang and Sabuncu, Generalized Cross Entropy Loss, 2018,
  arXiv 1805.07836.
  """
  return links.truncated_gce(h, q, threshold)


@of(margins.reward_difference)
def sce(
  h: Array,
  *,
  forward_weight: Array | float = 0.1,
  reverse_weight: Array | float = 4.0,
) -> Array:
  """Symmetric cross-entropy on the pair probability.

    loss = −forward_weight·log σ(h) + reverse_weight·σ(−h)

  The paper's log 0 := −4 is in reverse_weight.

  Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy
  Labels, 2019, arXiv 1908.06112.
  """
  return links.sce(h, forward_weight, reverse_weight)


@of(margins.reward_difference)
def holder(h: Array, *, gamma: Array | float = 2.0) -> Array:
  """Hölder: a density-power score of the pair probability, redescending.

    loss = −(1 + gamma)·p^gamma + gamma·p^{1 + gamma}

  Source: Fujisawa et al., Scalable Valuation of Human Feedback through Provably
  Robust Model Alignment, 2025, arXiv 2505.17859.
  """
  return links.holder(h, gamma)


REWARD = {
  'bradley_terry': bradley_terry,
  'conservative': conservative,
  'backward': backward,
  'forward': forward,
  'soft_label': soft_label,
  'symmetric': symmetric,
  'gce': gce,
  'truncated_gce': truncated_gce,
  'sce': sce,
  'holder': holder,
}

PER_PAIR = ('margin', 'label_smoothing', 'label_prob')
"""Keywords that may hold one value per pair."""


def hyperparameters(name: str) -> dict[str, Any]:
  """Keyword -> default of a loss; label_prob, which only data gives, is not.

  Raises:
    ValueError: name is not in REWARD.
  """
  keywords = _keywords(name)
  return {k: v for k, v in keywords.items() if k != 'label_prob'}


def per_pair(name: str) -> tuple[str, ...]:
  """Which of PER_PAIR a loss takes.

  Raises:
    ValueError: name is not in REWARD.
  """
  keywords = _keywords(name)
  return tuple(key for key in PER_PAIR if key in keywords)


def _keywords(name: str) -> dict[str, Any]:
  if name not in REWARD:
    raise ValueError(f'reward loss = {name!r} is none of {sorted(REWARD)}')
  return {
    parameter.name: parameter.default
    for parameter in inspect.signature(REWARD[name]).parameters.values()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
  }

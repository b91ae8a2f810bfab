"""Preference losses of the policy alone.

Words of the equations: c and r are the summed log-probabilities of chosen and
rejected, c̄ and r̄ those divided by their token counts, ε label_smoothing, which
mixes −log σ(m) and −log σ(−m) of the whole argument m, as the authors' code
does: with a target gamma that is a smoothed label, not the loss of the swapped
pair (for which `corrections.conservative` takes `links.shifted`).

The likelihood term that CPO and ORPO add is `terms.nll`.
"""

from __future__ import annotations

from alignment.losses import corrections, links, margins
from alignment.losses.compose import of
from alignment.types import Array


@of(margins.per_token_difference)
def simpo(
  h: Array,
  *,
  beta: Array | float = 2.0,
  gamma: Array | float = 1.0,
  label_smoothing: Array | float = 0.0,
) -> Array:
  """SimPO: length-normalised log-probabilities with a target margin.

    loss = −log σ(beta·(c̄ − r̄) − gamma)

  Source: Meng et al., SimPO, 2024, arXiv 2405.14734.
  """
  z = beta * h - gamma
  return corrections.conservative(links.logistic, z, label_smoothing)


@of(margins.policy_difference)
def cpo(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.0,
) -> Array:
  """CPO: DPO with a uniform reference.

    loss = −(1 − ε)·log σ(beta·(c − r)) − ε·log σ(−beta·(c − r))

  Source: Xu et al., Contrastive Preference Optimization, 2024,
  arXiv 2401.08417.
  """
  return corrections.conservative(links.logistic, beta * h, label_smoothing)


@of(margins.log_odds_difference)
def orpo(h: Array, *, beta: Array | float = 0.1) -> Array:
  """ORPO: the odds ratio of the two mean likelihoods.

    loss = −beta·log σ(logit(e^c̄) − logit(e^r̄))

  beta multiplies the loss (the paper's λ), not the margin.

  Source: Hong et al., ORPO, 2024, arXiv 2403.07691.
  """
  return beta * links.logistic(h)


@of(margins.alpha_reward_difference)
def alphapo(
  h: Array,
  *,
  beta: Array | float = 2.0,
  gamma: Array | float = 1.0,
  label_smoothing: Array | float = 0.0,
) -> Array:
  """AlphaPO: SimPO with a reward of another shape; alpha = 0 is SimPO.

    loss = −log σ(beta·(R(c̄) − R(r̄)) − gamma),   R(x) = (1 − e^{−alpha·x})/alpha

  Source: Gupta et al., AlphaPO, 2025, arXiv 2501.03884.
  """
  z = beta * h - gamma
  return corrections.conservative(links.logistic, z, label_smoothing)


REFERENCE_FREE = {
  'simpo': simpo,
  'cpo': cpo,
  'orpo': orpo,
  'alphapo': alphapo,
}

"""Direct preference losses of a policy against a reference.

Words of the equations: u and v are the log-ratios log π/π_ref of chosen and
rejected (nats, summed over tokens), h the margin the decorator names (u − v if
nothing else is said), z = beta·h, σ the logistic function, ε label_smoothing.

Each takes four `[B]` arrays of summed log-probabilities and returns `[B]`,
unreduced, float32 (float64 stays). beta > 0 and ε may be traced.
"""

from __future__ import annotations

import jax

from alignment.losses import corrections, links, margins
from alignment.losses.compose import of
from alignment.types import Array


@of(margins.logratio_difference)
def dpo(h: Array, *, beta: Array | float = 0.1) -> Array:
  """DPO: Bradley-Terry likelihood with the policy as its own reward model.

    loss = −log σ(z)

  Source: Rafailov et al., Direct Preference Optimization, 2023,
  arXiv 2305.18290.
  """
  return links.logistic(beta * h)


@of(margins.normalised_logratio_difference)
def ipo(h: Array, *, beta: Array | float = 0.1) -> Array:
  """IPO: regression of the margin on a finite target, whatever the label odds.

    loss = (h − 1/(2·beta))²

  normalisation='mean' divides u and v by their own token counts, as most
  trainers do; 'sum' is the paper. The best margin differs by a factor of about
  the length, so a beta does not carry over from one to the other.

  Source: Azar et al., A General Theoretical Paradigm to Understand Learning
  from Human Preferences, 2023, arXiv 2310.12036.
  """
  return links.squared(beta * h, beta)


@of(margins.logratio_difference)
def hinge(h: Array, *, beta: Array | float = 0.1) -> Array:
  """Hinge (SLiC without its regulariser, on log-ratios).

    loss = max(0, 1 − z)

  Source: Zhao et al., SLiC-HF, 2023, arXiv 2305.10425; log-ratios in place of
  log-probabilities as in Liu et al., RSO, 2023, arXiv 2309.06657.
  """
  return links.hinge(beta * h)


@of(margins.logratio_difference)
def exo(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 1e-3,
) -> Array:
  """EXO: reverse KL from the smoothed label to the implied preference.

    loss = σ(z)·log(σ(z)/(1 − ε)) + σ(−z)·log(σ(−z)/ε)

  Needs ε in (0, ½); bounded by −log ε.

  Source: Ji et al., Towards Efficient Exact Optimization of Language Model
  Alignment, 2024, arXiv 2402.00856.
  """
  return links.exo(beta * h, label_smoothing)


@of(margins.logratio_difference)
def discopop(
  h: Array, *, beta: Array | float = 0.1, tau: Array | float = 0.05
) -> Array:
  """DiscoPOP: logistic and exponential loss mixed by a log-ratio gate.

    loss = −log σ(z)·(1 − m) + e^{−z}·m,   m = σ(z / tau)

  Source: Lu et al., Discovering Preference Optimization Algorithms with and
  for Large Language Models, 2024, arXiv 2406.08414.
  """
  return links.discopop(beta * h, tau)


@of(margins.per_token_logratio_difference)
def sigmoid_norm(h: Array, *, beta: Array | float = 5.0) -> Array:
  """Length-normalised DPO.

    loss = −log σ(beta·(u/chosen_lengths − v/rejected_lengths))

  Source: Lambert et al., Tülu 3, 2024, arXiv 2411.15124, whose beta is 5.
  """
  return links.logistic(beta * h)


@of(margins.logratios)
def nca(u: Array, v: Array, *, beta: Array | float = 0.1) -> Array:
  """NCA: contrasts each completion with the reference, on absolute rewards.

    loss = −log σ(beta·u) − ½·log σ(−beta·u) − ½·log σ(−beta·v)

  Source: Chen et al., Noise Contrastive Alignment of Language Models with
  Explicit Rewards, 2024, arXiv 2402.05369.
  """
  against = links.logistic(-beta * u) + links.logistic(-beta * v)
  return links.logistic(beta * u) + 0.5 * against


@of(margins.logratios)
def bco_pair(
  u: Array,
  v: Array,
  *,
  beta: Array | float = 0.1,
  delta: Array | float = 0.0,
) -> Array:
  """BCO on pairs: chosen and rejected classified apart at a reward threshold.

    loss = −log σ(beta·u − delta) − log σ(delta − beta·v)

  delta is a constant or a running mean of rewards that the caller keeps; no
  gradient flows into it.

  Source: Jung et al., Binary Classifier Optimization, 2024, arXiv 2404.04656.
  """
  delta = jax.lax.stop_gradient(delta)
  return links.shifted(beta * u, delta) + links.shifted(-beta * v, -delta)


@of(margins.logratios)
def sppo_hard(u: Array, v: Array, *, beta: Array | float = 1e-3) -> Array:
  """SPPO with win rates 1 and 0: both log-ratios regressed on ±1/(2·beta).

    loss = (u − 1/(2·beta))² + (v + 1/(2·beta))²

  Source: Wu et al., Self-Play Preference Optimization, 2024, arXiv 2405.00675,
  without the leading ½ of the authors' code.
  """
  return links.squared(beta * u, beta) + links.squared(-beta * v, beta)


@of(margins.sorted_policy_reference_difference)
def aot(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.0,
) -> Array:
  """AOT: the policy's margins dominate the reference's as distributions.

    loss = −(1 − ε)·log σ(z) − ε·log σ(−z)
    h = sort(policy chosen − rejected) − sort(reference chosen − rejected)

  Batch-coupled: an entry is not one pair's loss, so per-example weights other
  than 0 and 1 mean nothing; empty slots are named by `mask`.

  Source: Melnyk et al., Distributional Preference Alignment of LLMs via Optimal
  Transport, 2024, arXiv 2406.05882.
  """
  return corrections.conservative(links.logistic, beta * h, label_smoothing)


@of(margins.sorted_logratio_difference)
def aot_unpaired(
  h: Array,
  *,
  beta: Array | float = 0.1,
  label_smoothing: Array | float = 0.0,
) -> Array:
  """AOT unpaired: chosen log-ratios dominate the rejected as distributions.

    loss = −(1 − ε)·log σ(z) − ε·log σ(−z),   h = sort(u) − sort(v)

  Batch-coupled as `aot`.

  Source: Melnyk et al., Distributional Preference Alignment of LLMs via Optimal
  Transport, 2024, arXiv 2406.05882.
  """
  return corrections.conservative(links.logistic, beta * h, label_smoothing)


@of(margins.logratios)
def apo_zero(u: Array, v: Array, *, beta: Array | float = 0.1) -> Array:
  """APO-zero: raises chosen, lowers rejected, each saturating by itself.

    loss = 1 − σ(beta·u) + σ(beta·v)

  Source: D'Oosterlinck et al., Anchored Preference Optimization, 2024,
  arXiv 2408.06266.
  """
  return links.sigmoid(beta * u) + links.sigmoid(-beta * v)


@of(margins.logratios)
def apo_down(u: Array, v: Array, *, beta: Array | float = 0.1) -> Array:
  """APO-down: lowers both, rejected more than chosen.

    loss = σ(beta·u) + 1 − σ(z)

  Source: D'Oosterlinck et al., Anchored Preference Optimization, 2024,
  arXiv 2408.06266.
  """
  return links.sigmoid(-beta * u) + links.sigmoid(beta * (u - v))


DIRECT = {
  'dpo': dpo,
  'ipo': ipo,
  'hinge': hinge,
  'exo': exo,
  'discopop': discopop,
  'sigmoid_norm': sigmoid_norm,
  'nca': nca,
  'bco_pair': bco_pair,
  'sppo_hard': sppo_hard,
  'aot': aot,
  'aot_unpaired': aot_unpaired,
  'apo_zero': apo_zero,
  'apo_down': apo_down,
}

"""The learner: objectives of a policy, where model and mathematics meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from alignment.losses.preference import is_separable
from alignment.losses.terms import nll_per_token, wpo_weights
from alignment.models.model import Model
from alignment.roles.binding import (
  bind,
  check_hyperparameters,
  pair_metrics,
  preference_term,
)
from alignment.roles.pairs import Pairs, at_slots, gather_pairs
from alignment.roles.policy import completion_numbers, completion_sums
from alignment.roles.reference import (
  check_reference,
  keep_batch,
  reference_in_step,
)
from alignment.types import (
  Array,
  Batch,
  Metrics,
  Numbers,
  Objective,
  Term,
  Weighted,
)

LOG_SUM_SQUARES = 'token_log_sum_squares'


def preference_objective(
  model: Model,
  method: str,
  *,
  aggregate: str = 'mean',
  reference: str | None = None,
  nll_coefficient: float = 0.0,
  wpo: bool = False,
  ld_alpha: float | None = None,
  divergence: str = 'reverse_kl',
  divergence_alpha: float = 0.5,
  choices: Mapping[str, Any] | None = None,
  numbers: Callable[..., Numbers] | None = None,
) -> Objective:
  """Learning from pairs with a named loss.

    preference = aggregate(coefficient · METHODS[method](…), weight)
    nll = nll_coefficient · Σ w · −logps[chosen] / Σ w · length[chosen]
    w = weight; the coefficient multiplies −logps as well

  Values of hyperparameters come traced, in `frozen.hyper` (absent ones take
  the method's defaults); label_smoothing and label_prob per example, in the
  batch. A weight or a label_smoothing in the batch that the method cannot
  honour makes the loss NaN, and the step refuses the update; `check_examples`
  says so beforehand, in words.

  Args:
    model: the policy.
    method: key of `METHODS`.
    aggregate: key of `AGGREGATES`.
    reference: 'precomputed' (the batch holds reference_logps), 'in_step'
      (computed each step from `frozen.models['reference']`), or 'none' (0
      everywhere: a reward model, or a method without reference). By default
      'precomputed' where the method takes a reference, else 'none'.
    nll_coefficient: ≥ 0; adds the likelihood of the chosen completion.
    wpo: multiplies each pair's loss by how likely the policy finds its tokens,
      exp(Σ over both of mean_t(log π − log Σ π²)), without gradient.
    ld_alpha: in [0, 1]; log-probabilities beyond the shorter completion's
      length count ld_alpha times (a precomputed reference must as well).
    divergence: key of `DIVERGENCES`, whose score replaces the log-ratio.
    divergence_alpha: of the alpha-divergence.
    choices: keyword -> value of the method's choices that cannot be traced.
    numbers: replaces `completion_numbers`; must give `logps` `[R, N]`.

  Raises:
    ValueError: an unknown name, a choice the method does not have, or a
      reference for a method that takes none. When traced: a name in
      `frozen.hyper` that neither method nor aggregate uses.

  Source: WPO, Zhou et al., 2024, arXiv 2406.11827; LD-DPO, Liu et al., 2024,
  arXiv 2409.06411; the NLL term as in RPO, Pang et al., 2024, arXiv 2404.19733,
  but per token of the global batch.
  """
  choices = dict(choices or {})
  check_hyperparameters(method, aggregate, choices)
  reference = check_reference(method, reference)
  if nll_coefficient < 0:
    raise ValueError(f'nll_coefficient must be ≥ 0, got {nll_coefficient!r}')
  function = bind(method, divergence, divergence_alpha)
  numbers = numbers or completion_numbers(
    model, (LOG_SUM_SQUARES,) * wpo, ld_alpha=ld_alpha
  )

  def loss(
    numbers: Numbers, batch: Batch, hyper: Mapping[str, Array]
  ) -> tuple[Mapping[str, Term], Metrics]:
    check_hyperparameters(method, aggregate, hyper)
    hyper = {**choices, **hyper}
    logps = numbers.get('ld_logps', numbers['logps'])
    ref = batch.completions.reference_logps
    ref = jnp.zeros_like(logps) if reference == 'none' else ref
    pairs = gather_pairs(logps, ref, batch)
    scale = _wpo(numbers, pairs, batch) if wpo else jnp.ones_like(pairs.weight)
    term = preference_term(method, function, aggregate, pairs, scale, hyper)
    terms = {'preference': term}
    if nll_coefficient:
      nll = _nll(numbers, batch)
      terms['nll'] = nll.replace(coefficient=nll_coefficient)
    return terms, pair_metrics(method, pairs, hyper)

  in_step = reference == 'in_step'
  return Objective(
    prepare=reference_in_step(numbers) if in_step else keep_batch,
    numbers=numbers,
    loss=loss,
    separable=is_separable(method, aggregate),
  )


def sft_objective(model: Model) -> Objective:
  """Supervised fine-tuning on the chosen completions.

    nll = Σ weight · coefficient · −logps[chosen] / Σ weight · length[chosen]

  in nats per token of the global batch, EOS counted, prompts not.
  """

  def loss(
    numbers: Numbers, batch: Batch, hyper: Mapping[str, Array]
  ) -> tuple[Mapping[str, Term], Metrics]:
    if hyper:
      raise ValueError(f'sft uses no hyperparameters, got {sorted(hyper)}')
    examples = batch.examples
    chosen = at_slots(numbers['logps'], examples.chosen)
    metrics = {'logps/chosen': Weighted.of(chosen, examples.weight)}
    return {'nll': _nll(numbers, batch)}, metrics

  return Objective(keep_batch, completion_numbers(model), loss, separable=True)


def _nll(numbers: Numbers, batch: Batch) -> Term:
  examples = batch.examples
  chosen = at_slots(numbers['logps'], examples.chosen)
  tokens = at_slots(batch.completions.length, examples.chosen)
  real = examples.weight > 0
  # Each factor apart: where(real, a · b, 0) would pass on NaN · 0 backwards.
  scaled = jnp.where(real, examples.coefficient, 0.0) * jnp.where(
    real, chosen, 0.0
  )
  return nll_per_token(scaled, jnp.where(real, tokens, 0), examples.weight)


def _wpo(numbers: Numbers, pairs: Pairs, batch: Batch) -> Array:
  examples = batch.examples
  squares = completion_sums(numbers[LOG_SUM_SQUARES], batch)
  values = [
    at_slots(value, slots).ravel()
    for value in (numbers['logps'], squares)
    for slots in (examples.chosen, examples.rejected)
  ]
  weights = wpo_weights(*values, pairs.chosen_lengths, pairs.rejected_lengths)
  return jnp.where(pairs.mask, weights, 1.0)

"""Pointwise losses of other implementations, on fixed random inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import unpaired
from alignment.losses.pointwise import CLASSIFICATION, unpaired_term
from tests.losses.golden_cases import (
  CASES,
  COMPARED,
  TRL,
  close,
  preference_inputs,
)

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures('golden')]


@pytest.mark.parametrize('case_id', COMPARED['kto/'])
def test_kto_trainer(case_id):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  inputs = {k: np.asarray(v) for k, v in TRL['inputs']['kto_f64'].items()}
  name, ones = params['loss_type'], np.ones(len(inputs['labels']))
  apart = inputs['pi_kl_logp'], inputs['ref_kl_logp']
  if 'negative-KL' in case_id:
    apart = inputs['ref_kl_logp'] - 1, inputs['ref_kl_logp']
  keywords = {}
  if name == 'kto':
    point = unpaired.reference_point(*apart, ones)
    close(point, outputs['kl'])
    keywords['reference_point'] = point

  def loss(policy):
    return unpaired_term(
      name,
      policy,
      inputs['ref_logp'],
      inputs['labels'],
      ones,
      beta=params['beta'],
      **keywords,
    ).value()

  value, gradient = jax.value_and_grad(loss)(inputs['pi_logp'])
  close(value, outputs['loss'])
  close(gradient, outputs['grad_pi_logp'])


def test_bco_trainer_and_its_running_mean():
  pref = preference_inputs()
  reference = np.append(pref['ref_chosen_logp'], pref['ref_rejected_logp'])
  mean = count = 0.0
  for case_id in COMPARED['bco/']:
    params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
    policy = np.append(
      pref['pi_chosen_logp'] + params['chosen_logp_shift'],
      pref['pi_rejected_logp'],
    )
    ones = np.ones(len(policy))
    label = np.arange(len(policy)) < len(pref['pi_chosen_logp'])
    rewards = params['beta'] * (policy - reference)
    mean, count = unpaired.running_mean(mean, count, rewards, ones)
    # Theirs keeps the mean in float32, hence the looser comparison.
    close(mean, outputs['delta'], float32=True)

    def loss(policy, label=label, ones=ones, params=params, delta=mean):
      return unpaired_term(
        'bco',
        policy,
        reference,
        label,
        ones,
        beta=params['beta'],
        delta=delta,
      ).value()

    value, gradient = jax.value_and_grad(loss)(policy)
    close(value, outputs['loss'], float32=True)
    expected = outputs['grad_pi_chosen'] + outputs['grad_pi_rejected']
    close(gradient, expected, float32=True)


def _classes(case_id):
  params = CASES[case_id]['params']
  return np.asarray(params['logits']), np.asarray(params['labels']), params


def test_symmetric_cross_entropy_of_three_classes():
  (case_id,) = COMPARED['sce/']
  logits, label, params = _classes(case_id)
  losses = CLASSIFICATION['sce'](
    logits,
    label,
    forward_weight=params['alpha'],
    reverse_weight=params['beta'],
    # Theirs holds the one-hot label in float32, hence a rounded log 1e-4.
    log_zero=float(np.log(np.float32(1e-4))),
  )
  close(jnp.mean(losses), CASES[case_id]['outputs']['loss'])


def test_truncated_gce_of_three_classes():
  (case_id,) = COMPARED['truncated_gce/']
  logits, label, params = _classes(case_id)
  q, threshold = params['q'], params['k']
  ceiling = (1 - threshold**q) / q
  losses = CLASSIFICATION['gce'](logits, label, q=q)
  # The case keeps every example (weights 1) and subtracts the ceiling.
  close(jnp.mean(losses) - ceiling, CASES[case_id]['outputs']['loss'])
  pruned = CLASSIFICATION['truncated_gce'](
    logits, label, q=q, threshold=threshold
  )
  close(pruned, np.minimum(losses, ceiling))


def test_early_learning_regularisation_with_its_running_targets():
  """Theirs updates the target with the present prediction before the loss."""
  case = CASES['elr/beta=.7/lambda=3']
  logits, label, params = _classes('elr/beta=.7/lambda=3')
  target = np.zeros_like(logits)
  for scale, step in zip(
    params['logit_scale_per_step'], case['outputs']['steps'], strict=True
  ):
    scaled = scale * logits
    probs = np.clip(
      np.asarray(jax.nn.softmax(scaled)),
      params['p_clamp'],
      1 - params['p_clamp'],
    )
    share = probs / probs.sum(axis=1, keepdims=True)
    target = params['beta'] * target + (1 - params['beta']) * share
    close(target, step['target'])

    def loss(x, target=target):
      return jnp.mean(
        CLASSIFICATION['elr'](
          x, label, running_target=target, strength=params['lam']
        )
      )

    value, gradient = jax.value_and_grad(loss)(scaled)
    close(value, step['loss'])
    close(gradient, step['grad'])

"""Noise-robust losses of other repositories, on fixed random inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import links, margins
from alignment.losses.preference import AGGREGATES, METHODS
from tests.losses.golden_cases import (
  CASES,
  COMPARED,
  close,
  preference_inputs,
)

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures('golden')]


@pytest.fixture
def pref():
  return preference_inputs()


_SYMPO_LINKS = {
  'sympo/sigmoid_loss': links.sigmoid,
  'sympo/unhinged_loss': links.unhinged,
  'sympo/symmetric_ramp_loss': links.ramp,
  'sympo/hinge_loss': links.hinge,
  # (z − 1)² is the squared link at beta = ½, up to its scale of z.
  'sympo/square_loss': lambda z: links.squared(z / 2, 0.5),
  'sympo/logistic_loss': links.logistic,
}


@pytest.mark.parametrize('case_id', list(_SYMPO_LINKS))
def test_links(case_id):
  case = CASES[case_id]
  z = jnp.asarray(case['params']['z'])
  close(_SYMPO_LINKS[case_id](z), case['outputs']['loss_pos'])
  close(_SYMPO_LINKS[case_id](-z), case['outputs']['loss_neg'])


def _ropo(logps, params):
  """Their σ-term is a batch mean added to each pair's logistic term."""
  losses = METHODS['ropo'](*logps, beta=params['beta'], alpha=params['alpha'])
  alpha = params['alpha']
  z = params['beta'] * margins.logratio_difference(*logps)
  own = 4 * alpha / (1 + alpha) ** 2 * links.logistic(z)
  return own + jnp.mean(losses - own)


_SYMPO_TRAINERS = {
  'ROPOTrainer': _ropo,
  'RDPOTrainer': lambda logps, params: METHODS['rdpo'](
    *logps, beta=params['beta'], label_smoothing=params['noise_ratio']
  ),
  'CDPOTrainer': lambda logps, params: METHODS['cdpo'](
    *logps, beta=params['beta'], label_smoothing=params['noise_ratio']
  ),
  'SymPOTrainer': lambda logps, params: jnp.mean(
    METHODS['sympo'](
      *logps,
      beta=params['beta'],
      bound=params['clip_value'] if params['clip'] else np.inf,
      link=params['loss_type'],
    )
  ),
}


@pytest.mark.parametrize(
  'case_id', [name for name in COMPARED['sympo/'] if 'Trainer' in name]
)
def test_sympo_repository(case_id, pref):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  trainer = _SYMPO_TRAINERS[case_id.split('/')[1]]
  rest = [
    pref[f'{key}_logp'] for key in ('pi_rejected', 'ref_chosen', 'ref_rejected')
  ]

  def losses(chosen):
    return trainer([chosen, *rest], params)

  chosen = pref['pi_chosen_logp']
  close(losses(chosen), outputs['loss'])
  value, gradient = jax.value_and_grad(lambda c: jnp.mean(losses(c)))(chosen)
  close(value, outputs['batch_mean'])
  close(gradient, outputs['grad_pi_chosen_seq'])


@pytest.mark.parametrize('case_id', COMPARED['drdpo/'])
def test_dr_dpo_value_and_weights(case_id):
  case = CASES[case_id]
  losses = jnp.asarray(case['params']['losses'])

  def value(x):
    return AGGREGATES['dr_dpo'](
      x, jnp.ones_like(x), beta_prime=case['params']['beta_prime']
    ).value()

  close(value(losses), case['outputs']['loss'])
  close(jax.grad(value)(losses), case['outputs']['weights'])


def _label_margin(case):
  """logit of the softmax probability of the label, in place of z."""
  logits = np.asarray(case['params']['logits'])
  log_p = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
  log_p = log_p[np.arange(len(logits)), case['params']['labels']]
  return log_p - np.log(-np.expm1(log_p))


def test_symmetric_cross_entropy():
  (case_id,) = COMPARED['sce/']
  case = CASES[case_id]
  z = _label_margin(case)
  losses = METHODS['sce'](
    z,
    *np.zeros((3, len(z))),
    beta=1.0,
    forward_weight=case['params']['alpha'],
    reverse_weight=case['params']['beta'],
    log_zero=float(np.log(np.float32(1e-4))),
  )
  # Theirs holds the one-hot label in float32, hence a rounded log 1e-4.
  close(jnp.mean(losses), case['outputs']['loss'])


def test_truncated_gce_before_pruning():
  (case_id,) = COMPARED['truncated_gce/']
  case = CASES[case_id]
  q, threshold = case['params']['q'], case['params']['k']
  z = jnp.asarray(_label_margin(case))
  ceiling = (1 - threshold**q) / q
  # The case keeps every pair (weights 1) and subtracts the ceiling.
  close(jnp.mean(links.gce(z, q)) - ceiling, case['outputs']['loss'])
  pruned = METHODS['truncated_gce'](
    z, *jnp.zeros((3, len(z))), beta=1.0, q=q, threshold=threshold
  )
  close(pruned, np.minimum(links.gce(z, q), ceiling))


@pytest.mark.parametrize('case_id', COMPARED['sppo/'])
def test_sppo_regression_target(case_id, pref):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  beta = params['beta']
  win = np.asarray(params['p_win'])
  lose = np.asarray(params['p_lose'])
  if case_id.startswith('sppo/sppo_single'):
    lose = 1 - win
  # sppo_hard is P = 1 and 0 without the ½: moving the log-ratios by the
  # difference of the targets and halving gives the soft form.
  losses = 0.5 * METHODS['sppo_hard'](
    pref['pi_chosen_logp'] + (1 - win) / beta,
    pref['pi_rejected_logp'] - lose / beta,
    pref['ref_chosen_logp'],
    pref['ref_rejected_logp'],
    beta=beta,
  )
  close(losses, outputs['loss_per_pair'])

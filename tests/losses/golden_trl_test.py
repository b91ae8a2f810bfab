"""TRL's preference losses, values and gradients, on fixed random inputs.

Every case of the golden files is either compared (here, in `golden_noise_test`,
in `golden_pointwise_test` or in `tests/noise/detection/golden_test`), or named
in EXCLUDED with the reason. Float64 cases agree to 1e-9 relative; the few that
TRL runs in float32 to 2e-6·(1 + |value|).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import margins, numerics, terms
from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  reads,
  with_divergence,
)
from alignment.losses.reward import REWARD
from tests.losses.golden_cases import (
  CASES,
  COMPARED,
  EXCLUDED,
  TRL,
  close,
  is_excluded,
  preference_inputs,
)

_RENAMED = {
  'robust': 'rdpo',
  'exo_pair': 'exo',
  'nca_pair': 'nca',
}
_DIVERGENCES = {'forward_kl': 'forward_kl', 'alpha_divergence': 'alpha'}

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures('golden')]


@pytest.fixture
def pref():
  return preference_inputs()


def test_every_case_is_compared_or_excluded_with_a_reason():
  compared = [name for names in COMPARED.values() for name in names]
  left = set(CASES) - set(compared) - set(filter(is_excluded, CASES))
  assert not left
  assert len(compared) == len(set(compared)) == 102
  unused = [
    prefix
    for prefix in EXCLUDED
    if not any(name.startswith(prefix) for name in CASES)
  ]
  assert not unused


def _weighted_sum(tokens, mask, own, other, ld_alpha):
  """Summed log-probabilities, tokens past the shorter length scaled."""
  is_shared = np.cumsum(mask, axis=1) <= np.minimum(own, other)[:, None]
  return margins.length_desensitised(
    jnp.sum(tokens * (mask * is_shared), axis=1),
    jnp.sum(tokens * (mask * ~is_shared), axis=1),
    ld_alpha,
  )


def _trl_terms(chosen, rejected, pref, params, loss_type):
  """[B] losses of one loss type as the 1.16 trainer is set up, and a term."""
  lengths = {'chosen_lengths': pref['chosen_len']}
  lengths['rejected_lengths'] = pref['rejected_len']
  sides = (
    (chosen, 'chosen', 'rejected'),
    (rejected, 'rejected', 'chosen'),
    (pref['ref_chosen_tok'], 'chosen', 'rejected'),
    (pref['ref_rejected_tok'], 'rejected', 'chosen'),
  )
  logps = [
    _weighted_sum(
      tokens,
      pref[f'{own}_mask'],
      pref[f'{own}_len'],
      pref[f'{other}_len'],
      params.get('ld_alpha', 1.0),
    )
    for tokens, own, other in sides
  ]
  ones = jnp.ones(len(pref['chosen_len']))
  if loss_type == 'sft':
    return terms.nll_per_token(logps[0], pref['chosen_len'], ones)
  name = {'sigmoid': 'dpo'}.get(loss_type, _RENAMED.get(loss_type, loss_type))
  method = METHODS[name]
  if 'f_div' in params:
    method = with_divergence(
      name, _DIVERGENCES[params['f_div']], alpha=params.get('f_alpha', 0.5)
    )
  keywords = {'beta': params['beta']}
  if 'chosen_lengths' in reads(name):
    keywords |= lengths
  if 'label_smoothing' in reads(name) and 'label_smoothing' in params:
    keywords['label_smoothing'] = params['label_smoothing']
  if 'discopop_tau' in params:
    keywords['tau'] = params['discopop_tau']
  losses = method(*logps, **keywords)
  if params.get('use_weighting'):
    losses = losses * terms.wpo_weights(
      logps[0],
      logps[1],
      jnp.sum(pref['log_sum_sq_probs_chosen'] * pref['chosen_mask'], 1),
      jnp.sum(pref['log_sum_sq_probs_rejected'] * pref['rejected_mask'], 1),
      pref['chosen_len'],
      pref['rejected_len'],
    )
  return AGGREGATES['mean'](losses, ones)


def _trl_loss(chosen, rejected, pref, params):
  types = params['loss_type']
  types = types if isinstance(types, list) else [types]
  scales = params.get('loss_weights', [1.0] * len(types))
  return sum(
    scale * _trl_terms(chosen, rejected, pref, params, each).value()
    for scale, each in zip(scales, types, strict=True)
  )


@pytest.mark.parametrize('case_id', COMPARED['dpo/'])
def test_dpo_trainer_loss_gradient_and_single_pairs(case_id, pref):
  case = CASES[case_id]
  params, outputs = case['params'], case['outputs']
  agrees = partial(close, float32=case['dtype'] == 'float32')
  tokens = pref['pi_chosen_tok'], pref['pi_rejected_tok']
  loss, gradients = jax.value_and_grad(_trl_loss, (0, 1))(*tokens, pref, params)
  agrees(loss, outputs['loss'])
  agrees(gradients[0] * pref['chosen_mask'], outputs['grad_pi_chosen_tok'])
  agrees(gradients[1] * pref['rejected_mask'], outputs['grad_pi_rejected_tok'])
  for i, expected in enumerate(outputs['loss_per_pair']):
    one = {key: value[i : i + 1] for key, value in pref.items()}
    single = _trl_loss(tokens[0][i : i + 1], tokens[1][i : i + 1], one, params)
    agrees(single, expected)


@pytest.mark.parametrize('case_id', COMPARED['dpo028/'])
def test_standalone_dpo_loss(case_id, pref):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  name = params['loss_type']
  name = _RENAMED.get(name, name)
  smoothing = params.get('label_smoothing', 0.0)
  if name == 'sigmoid':
    name = 'cdpo' if smoothing else 'dpo'
  keywords = {'beta': params['beta']}
  if 'label_smoothing' in reads(name):
    keywords['label_smoothing'] = smoothing
  if name == 'ipo':  # this line normalises outside; the case holds plain sums
    keywords['normalisation'] = 'sum'
  if name == 'bco_pair':  # the threshold is the batch mean of both rewards
    rewards = outputs['chosen_rewards'] + outputs['rejected_rewards']
    keywords['delta'] = np.mean(rewards)
  method = METHODS[name]
  if 'f_divergence' in params:
    old = params['f_params']['alpha_divergence_coef']
    method = with_divergence(name, 'alpha', alpha=1.0 - old)
  reference = pref['ref_chosen_logp'], pref['ref_rejected_logp']

  def loss(chosen, rejected):
    return jnp.mean(method(chosen, rejected, *reference, **keywords))

  policy = pref['pi_chosen_logp'], pref['pi_rejected_logp']
  losses = method(*policy, *reference, **keywords)
  expected = np.asarray(outputs['loss_per_pair'])
  if name.startswith('aot'):  # theirs come in sorted order
    losses, expected = np.sort(losses), np.sort(expected)
  close(losses, expected)
  value, gradients = jax.value_and_grad(loss, (0, 1))(*policy)
  close(value, outputs['loss'])
  close(gradients[0], outputs['grad_pi_chosen'])
  close(gradients[1], outputs['grad_pi_rejected'])


def _cpo_trainer(chosen, rejected, params, lengths):
  """The CPO trainer's loss types, from the parts.

  It scores completions by summed log-probabilities, or by means for ipo and
  simpo, and a non-zero alpha reshapes that score whatever the loss type.
  """
  name, beta = params['loss_type'], params['beta']
  smoothing, alpha = params['label_smoothing'], params['alpha']
  if name == 'simpo':
    # Scores are means already: completions of one token.
    ones = dict.fromkeys(lengths, 1)
    keywords = {
      'beta': beta,
      'gamma': params['simpo_gamma'],
      'label_smoothing': smoothing,
    }
    if alpha:
      return METHODS['alphapo'](
        chosen, rejected, alpha=alpha, **keywords, **ones
      )
    return METHODS['simpo'](chosen, rejected, **keywords, **ones)
  scores = [margins.alpha_reward(score, alpha) for score in (chosen, rejected)]
  if name == 'sigmoid':
    return METHODS['cpo'](*scores, beta=beta, label_smoothing=smoothing)
  extra = {'normalisation': 'sum'} if name == 'ipo' else {}
  zeros = [jnp.zeros_like(score) for score in scores]
  return METHODS[name](*scores, *zeros, beta=beta, **extra)


@pytest.mark.parametrize('case_id', COMPARED['cpo/'])
def test_cpo_trainer(case_id, pref):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  kind = 'avg_logp' if params['loss_type'] in ('ipo', 'simpo') else 'logp'
  scores = pref[f'pi_chosen_{kind}'], pref[f'pi_rejected_{kind}']
  lengths = {'chosen_lengths': None, 'rejected_lengths': None}

  def loss(chosen, rejected):
    return jnp.mean(_cpo_trainer(chosen, rejected, params, lengths))

  close(_cpo_trainer(*scores, params, lengths), outputs['loss_per_pair'])
  value, gradients = jax.value_and_grad(loss, (0, 1))(*scores)
  close(value, outputs['loss'])
  close(gradients[0], outputs['grad_pi_chosen_score'])
  close(gradients[1], outputs['grad_pi_rejected_score'])


@pytest.mark.parametrize(
  'case_id', [name for name in COMPARED['cpo/'] if '/simpo/' in name]
)
def test_simpo_and_alphapo_divide_summed_logps_themselves(case_id, pref):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  name = 'alphapo' if params['alpha'] else 'simpo'
  extra = {'alpha': params['alpha']} if params['alpha'] else {}
  losses = METHODS[name](
    pref['pi_chosen_logp'],
    pref['pi_rejected_logp'],
    beta=params['beta'],
    gamma=params['simpo_gamma'],
    label_smoothing=params['label_smoothing'],
    chosen_lengths=pref['chosen_len'],
    rejected_lengths=pref['rejected_len'],
    **extra,
  )
  close(losses, outputs['loss_per_pair'])


@pytest.mark.parametrize('case_id', COMPARED['orpo/'])
def test_orpo(case_id, pref):
  outputs = CASES[case_id]['outputs']
  if case_id == 'orpo/log1mexp':
    inputs = CASES[case_id]['params']['x']
    close(numerics.log1mexp(jnp.asarray(inputs)), outputs['log1mexp'])
    return
  ones = {'chosen_lengths': 1, 'rejected_lengths': 1}
  scores = pref['pi_chosen_avg_logp'], pref['pi_rejected_avg_logp']
  losses = METHODS['orpo'](*scores, beta=0.1, **ones)
  close(-losses, outputs['beta_logsigmoid_log_odds_per_pair'], float32=True)
  # The file differentiates the mean of −loss.
  gradients = jax.grad(
    lambda *s: -jnp.mean(METHODS['orpo'](*s, beta=0.1, **ones)), (0, 1)
  )(*scores)
  close(gradients[0], outputs['grad_avg_chosen'], float32=True)
  close(gradients[1], outputs['grad_avg_rejected'], float32=True)


@pytest.mark.parametrize('case_id', COMPARED['reward/'])
def test_reward_model(case_id):
  params, outputs = CASES[case_id]['params'], CASES[case_id]['outputs']
  inputs = {
    key: np.asarray(value) for key, value in TRL['inputs']['reward_f64'].items()
  }
  margin = inputs['margin'] if params['margin'] else 0.0
  coefficient = params['center_rewards_coefficient'] or 0.0
  ones = jnp.ones(len(inputs['r_chosen']))

  def loss(chosen, rejected):
    losses = REWARD['bradley_terry'](chosen, rejected, margin=margin)
    centring = terms.centring(chosen, rejected, ones, coefficient)
    return jnp.mean(losses) + centring.value()

  rewards = inputs['r_chosen'], inputs['r_rejected']
  value, gradients = jax.value_and_grad(loss, (0, 1))(*rewards)
  close(value, outputs['loss'])
  close(np.concatenate(gradients), outputs['grad'])


def test_nll():
  inputs = {
    key: np.asarray(value) for key, value in TRL['inputs']['sft_f64'].items()
  }
  (case_id,) = COMPARED['sft/nll']
  outputs = CASES[case_id]['outputs']
  mask = inputs['mask']

  def loss(tokens):
    return terms.nll_per_token(
      jnp.sum(tokens * mask, 1), mask.sum(1), np.ones(len(mask))
    ).value()

  value, gradient = jax.value_and_grad(loss)(inputs['token_logps'])
  close(value, outputs['loss'])
  # Theirs flows into the padding as well, where the tokens are constants.
  close(gradient, outputs['grad_token_logps'] * mask)


def test_smoothed_exo_of_the_older_line_is_the_one_compared(pref):
  """The refused flip rate of 0 equals theirs once it is said: 1e-3."""
  case = CASES['dpo028/exo_pair/ls=0.0/beta=0.1']
  logps = [
    pref[f'{key}_logp']
    for key in ('pi_chosen', 'pi_rejected', 'ref_chosen', 'ref_rejected')
  ]
  losses = METHODS['exo'](*logps, beta=0.1, label_smoothing=1e-3)
  close(losses, case['outputs']['loss_per_pair'])

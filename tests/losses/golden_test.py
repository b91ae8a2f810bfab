"""Numbers printed by other implementations for fixed random inputs.

Every case of the two files is either compared here or named in EXCLUDED with
the reason. Float64 cases agree to 1e-9 relative; the few that the other side
ran in float32 agree to 2e-6·(1 + |value|).
"""

import json
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import corrections, links, margins, numerics, terms
from alignment.losses.preference import (
  AGGREGATES,
  METHODS,
  reads,
  with_divergence,
)

pytestmark = pytest.mark.shared

_FOLDER = (
  pathlib.Path(__file__).resolve().parents[2].parent / 'shared' / 'golden'
)

EXCLUDED = {
  'dpo/sigmoid(label_smoothing ignored)': 'a defect: the flip rate is dropped '
  'without a word and plain DPO is trained',
  'dpo/sigmoid/f=alpha_divergence/alpha=0.5/f64(expected KeyError)': 'records '
  'an exception of the other side',
  'dpo028/exo_pair/ls=0.0': 'the other side silently replaces 0 by 1e-3; here '
  'a flip rate of 0, where EXO is infinite, is refused',
  'kto/': 'unpaired data',
  'bco/': 'unpaired data, a running mean kept by its trainer',
  'tpo/': 'needs a third completion',
  'reward/margin=False/center=0.01': 'a regulariser of reward models',
  'sft/dft': 'not a preference loss',
  'grpo/': 'policy gradient',
  'gmpo/': 'policy gradient',
  'rloo/': 'policy gradient',
  'a2po/': 'policy gradient',
  'gkd/': 'distillation',
  'sdpo/': 'distillation',
  'nash_md/': 'online game',
  'xpo/': 'online game',
  'sympo/ramp_loss': 'not symmetric under this name; the symmetric ramp is '
  'compared in sympo/symmetric_ramp_loss',
  "sympo/SymPOTrainer/{'beta': 0.5, 'loss_type': 'ramp'": 'trains the ramp '
  'that is not symmetric',
  'sympo/exp_loss': 'not a link of this library',
  'openai_w2s/': 'weak-to-strong classification',
  'eleuther_w2s/': 'weak-to-strong classification',
  'elr/': 'needs a table of running targets',
  'adaptconf/': 'weak-to-strong classification',
  'wspo/': 'weak-to-strong generation',
  'coteaching/': 'sample selection',
  'cleanlab/': 'label estimation',
  'crowdkit/': 'annotator models',
  'dividemix/': 'sample selection',
}


def _load(name):
  path = _FOLDER / name
  return json.loads(path.read_text()) if path.is_file() else {'cases': []}


_TRL = _load('golden_trl.json')
_NOISE = _load('golden_noise.json')
_CASES = {case['id']: case for case in _TRL['cases'] + _NOISE['cases']}
_RENAMED = {
  'robust': 'rdpo',
  'exo_pair': 'exo',
  'nca_pair': 'nca',
}
_DIVERGENCES = {'forward_kl': 'forward_kl', 'alpha_divergence': 'alpha'}


def _is_excluded(case_id):
  return any(case_id.startswith(prefix) for prefix in EXCLUDED)


def _cases(prefix):
  return [
    name
    for name in _CASES
    if name.startswith(prefix) and not _is_excluded(name)
  ]


COMPARED = {
  prefix: _cases(prefix)
  for prefix in (
    'dpo/',
    'dpo028/',
    'cpo/',
    'orpo/',
    'reward/',
    'sft/nll',
    'sympo/',
    'drdpo/',
    'sce/',
    'truncated_gce/',
    'sppo/',
  )
}


@pytest.fixture(autouse=True)
def _float64():
  if not _FOLDER.is_dir():
    pytest.skip('the golden files are not beside this checkout')
  with jax.enable_x64(True):
    yield


@pytest.fixture
def pref():
  return {
    key: np.asarray(value) for key, value in _TRL['inputs']['pref_f64'].items()
  }


def _close(actual, expected, float32=False):
  expected = np.asarray(expected, np.float64)
  tolerance = (
    {'rtol': 2e-6, 'atol': 2e-6} if float32 else {'rtol': 1e-9, 'atol': 1e-12}
  )
  np.testing.assert_allclose(actual, expected, **tolerance)


def test_every_case_is_compared_or_excluded_with_a_reason():
  compared = [name for names in COMPARED.values() for name in names]
  left = set(_CASES) - set(compared) - set(filter(_is_excluded, _CASES))
  assert not left
  assert len(compared) == len(set(compared)) == 90
  unused = [
    prefix
    for prefix in EXCLUDED
    if not any(name.startswith(prefix) for name in _CASES)
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
  case = _CASES[case_id]
  params, outputs = case['params'], case['outputs']
  close = partial(_close, float32=case['dtype'] == 'float32')
  tokens = pref['pi_chosen_tok'], pref['pi_rejected_tok']
  loss, gradients = jax.value_and_grad(_trl_loss, (0, 1))(*tokens, pref, params)
  close(loss, outputs['loss'])
  close(gradients[0] * pref['chosen_mask'], outputs['grad_pi_chosen_tok'])
  close(gradients[1] * pref['rejected_mask'], outputs['grad_pi_rejected_tok'])
  for i, expected in enumerate(outputs['loss_per_pair']):
    one = {key: value[i : i + 1] for key, value in pref.items()}
    single = _trl_loss(tokens[0][i : i + 1], tokens[1][i : i + 1], one, params)
    close(single, expected)


@pytest.mark.parametrize('case_id', COMPARED['dpo028/'])
def test_standalone_dpo_loss(case_id, pref):
  params, outputs = _CASES[case_id]['params'], _CASES[case_id]['outputs']
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
  _close(losses, expected)
  value, gradients = jax.value_and_grad(loss, (0, 1))(*policy)
  _close(value, outputs['loss'])
  _close(gradients[0], outputs['grad_pi_chosen'])
  _close(gradients[1], outputs['grad_pi_rejected'])


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
  params, outputs = _CASES[case_id]['params'], _CASES[case_id]['outputs']
  kind = 'avg_logp' if params['loss_type'] in ('ipo', 'simpo') else 'logp'
  scores = pref[f'pi_chosen_{kind}'], pref[f'pi_rejected_{kind}']
  lengths = {'chosen_lengths': None, 'rejected_lengths': None}

  def loss(chosen, rejected):
    return jnp.mean(_cpo_trainer(chosen, rejected, params, lengths))

  _close(_cpo_trainer(*scores, params, lengths), outputs['loss_per_pair'])
  value, gradients = jax.value_and_grad(loss, (0, 1))(*scores)
  _close(value, outputs['loss'])
  _close(gradients[0], outputs['grad_pi_chosen_score'])
  _close(gradients[1], outputs['grad_pi_rejected_score'])


@pytest.mark.parametrize(
  'case_id', [name for name in COMPARED['cpo/'] if '/simpo/' in name]
)
def test_simpo_and_alphapo_divide_summed_logps_themselves(case_id, pref):
  params, outputs = _CASES[case_id]['params'], _CASES[case_id]['outputs']
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
  _close(losses, outputs['loss_per_pair'])


@pytest.mark.parametrize('case_id', COMPARED['orpo/'])
def test_orpo(case_id, pref):
  outputs = _CASES[case_id]['outputs']
  if case_id == 'orpo/log1mexp':
    inputs = _CASES[case_id]['params']['x']
    _close(numerics.log1mexp(jnp.asarray(inputs)), outputs['log1mexp'])
    return
  ones = {'chosen_lengths': 1, 'rejected_lengths': 1}
  scores = pref['pi_chosen_avg_logp'], pref['pi_rejected_avg_logp']
  losses = METHODS['orpo'](*scores, beta=0.1, **ones)
  _close(-losses, outputs['beta_logsigmoid_log_odds_per_pair'], float32=True)
  # The file differentiates the mean of −loss.
  gradients = jax.grad(
    lambda *s: -jnp.mean(METHODS['orpo'](*s, beta=0.1, **ones)), (0, 1)
  )(*scores)
  _close(gradients[0], outputs['grad_avg_chosen'], float32=True)
  _close(gradients[1], outputs['grad_avg_rejected'], float32=True)


@pytest.mark.parametrize('case_id', COMPARED['reward/'])
def test_reward_model(case_id):
  params, outputs = _CASES[case_id]['params'], _CASES[case_id]['outputs']
  inputs = {
    key: np.asarray(value)
    for key, value in _TRL['inputs']['reward_f64'].items()
  }
  gamma = inputs['margin'] if params['margin'] else 0.0

  def loss(chosen, rejected):
    h = margins.reward_difference(chosen, rejected)
    return jnp.mean(links.shifted(h, gamma))

  rewards = inputs['r_chosen'], inputs['r_rejected']
  value, gradients = jax.value_and_grad(loss, (0, 1))(*rewards)
  _close(value, outputs['loss'])
  _close(np.concatenate(gradients), outputs['grad'])


def test_nll():
  inputs = {
    key: np.asarray(value) for key, value in _TRL['inputs']['sft_f64'].items()
  }
  (case_id,) = COMPARED['sft/nll']
  outputs = _CASES[case_id]['outputs']
  mask = inputs['mask']

  def loss(tokens):
    return terms.nll_per_token(
      jnp.sum(tokens * mask, 1), mask.sum(1), np.ones(len(mask))
    ).value()

  value, gradient = jax.value_and_grad(loss)(inputs['token_logps'])
  _close(value, outputs['loss'])
  # Theirs flows into the padding as well, where the tokens are constants.
  _close(gradient, outputs['grad_token_logps'] * mask)


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
  case = _CASES[case_id]
  z = jnp.asarray(case['params']['z'])
  _close(_SYMPO_LINKS[case_id](z), case['outputs']['loss_pos'])
  _close(_SYMPO_LINKS[case_id](-z), case['outputs']['loss_neg'])


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
  params, outputs = _CASES[case_id]['params'], _CASES[case_id]['outputs']
  trainer = _SYMPO_TRAINERS[case_id.split('/')[1]]
  rest = [
    pref[f'{key}_logp'] for key in ('pi_rejected', 'ref_chosen', 'ref_rejected')
  ]

  def losses(chosen):
    return trainer([chosen, *rest], params)

  chosen = pref['pi_chosen_logp']
  _close(losses(chosen), outputs['loss'])
  value, gradient = jax.value_and_grad(lambda c: jnp.mean(losses(c)))(chosen)
  _close(value, outputs['batch_mean'])
  _close(gradient, outputs['grad_pi_chosen_seq'])


@pytest.mark.parametrize('case_id', COMPARED['drdpo/'])
def test_dr_dpo_value_and_weights(case_id):
  case = _CASES[case_id]
  losses = jnp.asarray(case['params']['losses'])

  def value(x):
    return AGGREGATES['dr_dpo'](
      x, jnp.ones_like(x), beta_prime=case['params']['beta_prime']
    ).value()

  _close(value(losses), case['outputs']['loss'])
  _close(jax.grad(value)(losses), case['outputs']['weights'])


def _label_margin(case):
  """logit of the softmax probability of the label, in place of z."""
  logits = np.asarray(case['params']['logits'])
  log_p = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
  log_p = log_p[np.arange(len(logits)), case['params']['labels']]
  return log_p - np.log(-np.expm1(log_p))


def test_symmetric_cross_entropy():
  (case_id,) = COMPARED['sce/']
  case = _CASES[case_id]
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
  _close(jnp.mean(losses), case['outputs']['loss'])


def test_truncated_gce_before_pruning():
  (case_id,) = COMPARED['truncated_gce/']
  case = _CASES[case_id]
  q, threshold = case['params']['q'], case['params']['k']
  z = jnp.asarray(_label_margin(case))
  ceiling = (1 - threshold**q) / q
  # The case keeps every pair (weights 1) and subtracts the ceiling.
  _close(jnp.mean(links.gce(z, q)) - ceiling, case['outputs']['loss'])
  pruned = METHODS['truncated_gce'](
    z, *jnp.zeros((3, len(z))), beta=1.0, q=q, threshold=threshold
  )
  _close(pruned, np.minimum(links.gce(z, q), ceiling))


@pytest.mark.parametrize('case_id', COMPARED['sppo/'])
def test_sppo_regression_target(case_id, pref):
  params, outputs = _CASES[case_id]['params'], _CASES[case_id]['outputs']
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
  _close(losses, outputs['loss_per_pair'])


def test_smoothed_exo_of_the_older_line_is_the_one_compared():
  """The refused flip rate of 0 equals theirs once it is said: 1e-3."""
  case = _CASES['dpo028/exo_pair/ls=0.0/beta=0.1']
  pref = {k: np.asarray(v) for k, v in _TRL['inputs']['pref_f64'].items()}
  logps = [
    pref[f'{key}_logp']
    for key in ('pi_chosen', 'pi_rejected', 'ref_chosen', 'ref_rejected')
  ]
  losses = METHODS['exo'](*logps, beta=0.1, label_smoothing=1e-3)
  _close(losses, case['outputs']['loss_per_pair'])


def test_corrections_act_on_the_swapped_pair_not_on_the_swapped_argument():
  """Smoothed SimPO follows its authors; the correction of its link differs."""
  z, gamma, flip = jnp.asarray([0.3, -1.2]), 0.5, 0.1
  published = METHODS['simpo'](
    z,
    jnp.zeros(2),
    beta=1.0,
    gamma=gamma,
    label_smoothing=flip,
    chosen_lengths=1,
    rejected_lengths=1,
  )
  corrected = corrections.conservative(
    partial(links.shifted, gamma=gamma), z, flip
  )
  assert np.all(np.abs(np.asarray(published - corrected)) > 1e-3)

"""Losses of the installed TRL, run on random numbers beside ours.

TRL keeps its losses inside methods of trainers; they are called unbound, on an
object that holds what they read. Both sides run in float64 and agree to 1e-9
relative, except where TRL itself falls back to float32.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import margins, terms
from alignment.losses.preference import METHODS, reads, with_divergence
from tests.peers.installed import peer
from tests.peers.trainer import trl_dpo_loss

pytestmark = pytest.mark.peers

PAIRS, PROMPT, LONGEST = 7, 4, 9
SMOOTHED = {'label_smoothing': 0.17}
CASES = {
  'dpo': ('sigmoid', {}),
  'ipo': ('ipo', {}),
  'hinge': ('hinge', {}),
  'exo': ('exo_pair', SMOOTHED),
  'nca': ('nca_pair', {}),
  'rdpo': ('robust', SMOOTHED),
  'bco_pair': ('bco_pair', {}),
  'sppo_hard': ('sppo_hard', {}),
  'aot': ('aot', SMOOTHED),
  'aot_unpaired': ('aot_unpaired', SMOOTHED),
  'apo_zero': ('apo_zero', {}),
  'apo_down': ('apo_down', {}),
  'discopop': ('discopop', {'tau': 0.4}),
  'sigmoid_norm': ('sigmoid_norm', {}),
}
DIVERGENCES = {'forward_kl': 'forward_kl', 'js': 'js_divergence'}


@pytest.fixture(autouse=True)
def _float64():
  # TRL makes tensors of its own as well, of the default type.
  torch = peer('torch')
  before = torch.get_default_dtype()
  torch.set_default_dtype(torch.float64)
  with jax.enable_x64(True):
    yield
  torch.set_default_dtype(before)


@functools.cache
def numbers():
  """Random token log-probabilities of completions of unequal lengths."""
  rng = np.random.default_rng(42)
  lengths = rng.integers(1, LONGEST + 1, (2, PAIRS))
  mask = np.arange(LONGEST) < lengths[..., None]
  shape = mask.shape
  return types.SimpleNamespace(
    lengths=lengths,
    mask=mask,
    policy=-rng.gamma(1.5, 1.0, shape) * mask,
    squares=-rng.gamma(1.0, 1.0, shape) * mask,
    reference=-1.5 * lengths + rng.normal(0, 1.5, lengths.shape),
  )


def theirs(dtype='float64', **settings):
  """TRL's batch loss, its gradient `[2, B, T]` by tokens, what it logs."""
  torch, n = peer('torch'), numbers()

  def placed(values):
    values = np.asarray(values, dtype).reshape(2 * PAIRS, LONGEST)
    return torch.tensor(np.pad(values, ((0, 0), (PROMPT - 1, 0))))

  policy = placed(n.policy).requires_grad_()
  plain = placed(np.zeros(n.mask.shape))

  def model(**_):
    return types.SimpleNamespace(
      log_probs=policy,
      log_sum_sq_probs=placed(n.squares),
      entropy=plain,
      mean_logits=plain,
      is_top1=plain > 0,
    )

  model.training = False
  mask = np.pad(n.mask.reshape(2 * PAIRS, LONGEST), ((0, 0), (PROMPT, 0)))
  inputs = {
    'input_ids': torch.zeros(mask.shape, dtype=torch.long),
    'attention_mask': torch.ones(mask.shape, dtype=torch.long),
    'completion_mask': torch.tensor(mask, dtype=torch.long),
    'ref_chosen_logps': torch.tensor(n.reference[0].astype(dtype)),
    'ref_rejected_logps': torch.tensor(n.reference[1].astype(dtype)),
  }
  loss, logged = trl_dpo_loss(model, inputs, **settings)
  loss.backward()
  gradient = policy.grad.numpy()[:, PROMPT - 1 :]
  return loss.item(), gradient.reshape(n.mask.shape), logged


def ours(method, policy, ld_alpha=1.0, **keywords):
  """The mean over pairs, from token log-probabilities `[2, B, T]`."""
  n = numbers()
  shared = np.arange(LONGEST) < n.lengths.min(0)[:, None]
  logps = margins.length_desensitised(
    jnp.sum(policy * (n.mask & shared), axis=-1),
    jnp.sum(policy * (n.mask & ~shared), axis=-1),
    ld_alpha,
  )
  return jnp.mean(method(*logps, *n.reference, **keywords))


def lengths_for(name):
  if 'chosen_lengths' not in reads(name):
    return {}
  chosen, rejected = numbers().lengths
  return {'chosen_lengths': chosen, 'rejected_lengths': rejected}


def compare(loss, expected, rtol=1e-9):
  value, gradient = jax.value_and_grad(loss)(numbers().policy)
  np.testing.assert_allclose(value, expected[0], rtol=rtol)
  scale = np.abs(expected[1]).max()
  assert scale > 1e-4
  mask = numbers().mask  # TRL's gradient reaches into the padding too
  np.testing.assert_allclose(
    gradient, expected[1] * mask, rtol=rtol, atol=rtol * scale
  )


@pytest.mark.parametrize('beta', [0.07, 1.3])
@pytest.mark.parametrize('name', CASES)
def test_methods(name, beta):
  loss_type, extra = CASES[name]
  expected = theirs(loss_types=[loss_type], beta=beta, **extra)
  loss = functools.partial(
    ours, METHODS[name], beta=beta, **extra, **lengths_for(name)
  )
  compare(loss, expected)


@pytest.mark.parametrize('name', ['dpo', 'ipo', 'hinge', 'rdpo', 'exo'])
@pytest.mark.parametrize('divergence', DIVERGENCES)
def test_divergences(divergence, name):
  loss_type, extra = CASES[name]
  expected = theirs(
    loss_types=[loss_type],
    beta=0.4,
    f_divergence_type=DIVERGENCES[divergence],
    **extra,
  )
  method = with_divergence(name, divergence)
  loss = functools.partial(ours, method, beta=0.4, **extra, **lengths_for(name))
  compare(loss, expected)


@pytest.mark.parametrize('alpha', [-0.7, 0.5, 1.0, 2.0])
def test_alpha_divergence(alpha):
  """TRL has it in float32 only; e^u amplifies that rounding by |u|."""
  expected = theirs(
    dtype='float32',
    loss_types=['sigmoid'],
    beta=0.02,
    f_divergence_type='alpha_divergence',
    f_alpha_divergence_coef=alpha,
  )
  method = with_divergence('dpo', 'alpha', alpha=alpha)
  compare(functools.partial(ours, method, beta=0.02), expected, rtol=2e-5)


@pytest.mark.parametrize('ld_alpha', [0.0, 0.35])
def test_length_desensitised(ld_alpha):
  expected = theirs(beta=0.3, ld_alpha=ld_alpha)
  compare(
    functools.partial(ours, METHODS['dpo'], ld_alpha=ld_alpha, beta=0.3),
    expected,
  )


def test_wpo_weights():
  n = numbers()
  expected = theirs(
    loss_types=['robust'], beta=0.3, use_weighting=True, **SMOOTHED
  )

  def loss(policy):
    logps = jnp.sum(policy * n.mask, axis=-1)
    weights = terms.wpo_weights(*logps, *n.squares.sum(-1), *n.lengths)
    losses = METHODS['rdpo'](*logps, *n.reference, beta=0.3, **SMOOTHED)
    return jnp.mean(weights * losses)

  compare(loss, expected)


def test_mixture_with_the_likelihood_of_the_chosen():
  n = numbers()
  expected = theirs(
    loss_types=['sigmoid', 'bco_pair', 'sft'],
    loss_weights=[0.7, 0.2, 1.1],
    beta=0.3,
  )

  def loss(policy):
    chosen = jnp.sum(policy[0] * n.mask[0], axis=-1)
    nll = terms.nll_per_token(chosen, n.lengths[0], np.ones(PAIRS))
    return (
      0.7 * ours(METHODS['dpo'], policy, beta=0.3)
      + 0.2 * ours(METHODS['bco_pair'], policy, beta=0.3)
      + 1.1 * nll.value()
    )

  compare(loss, expected)


@pytest.mark.parametrize('label_smoothing', [0.0, 0.2])
@pytest.mark.parametrize('name', ['cpo', 'simpo', 'alphapo'])
def test_cpo_trainer(name, label_smoothing):
  """Its scores are sums (CPO) or means over tokens (SimPO, AlphaPO)."""
  torch, n = peer('torch'), numbers()
  alpha = {'alpha': 0.3} if name == 'alphapo' else {}
  gamma = {'gamma': 0.6} if name != 'cpo' else {}
  keywords = {'beta': 1.6, 'label_smoothing': label_smoothing}
  trainer = types.SimpleNamespace(
    **{'alpha': 0.0, **alpha, **keywords},
    simpo_gamma=0.6,
    loss_type='simpo' if gamma else 'sigmoid',
    accelerator=types.SimpleNamespace(device='cpu'),
  )
  policy = torch.tensor(n.policy, requires_grad=True)
  scores = policy.sum(-1)
  if gamma:
    scores = scores / torch.tensor(n.lengths)
  cpo = peer('trl.experimental.cpo').CPOTrainer
  value = cpo.cpo_loss(trainer, *scores)[0].mean()
  value.backward()
  keywords |= alpha | gamma | lengths_for(name)

  def loss(policy):
    logps = jnp.sum(policy * n.mask, axis=-1)
    return jnp.mean(METHODS[name](*logps, **keywords))

  compare(loss, (value.item(), policy.grad.numpy()))


def test_orpo_trainer():
  """TRL computes it in float32 and returns minus the loss."""
  torch, n = peer('torch'), numbers()
  trainer = types.SimpleNamespace(
    beta=0.3, accelerator=types.SimpleNamespace(device='cpu')
  )
  policy = torch.tensor(n.policy, requires_grad=True)
  scores = policy.sum(-1) / torch.tensor(n.lengths)
  orpo = peer('trl.experimental.orpo').ORPOTrainer
  value = -orpo.odds_ratio_loss(trainer, *scores)[0].mean()
  value.backward()

  def loss(policy):
    logps = jnp.sum(policy * n.mask, axis=-1)
    return jnp.mean(METHODS['orpo'](*logps, beta=0.3, **lengths_for('orpo')))

  compare(loss, (value.item(), policy.grad.numpy()), rtol=1e-5)

"""The dictionary of methods: totality, symmetries, what is refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alignment.losses import preference
from alignment.losses.preference import (
  AGGREGATES,
  BATCH_COUPLED,
  METHODS,
  OF_DIFFERENCE,
  hyperparameters,
  reads,
)
from tests.losses.random_batch import BATCH, HYPER
from tests.losses.random_batch import inputs as batch_inputs

KEYS = (
  'dpo cdpo rdpo ipo ripo hinge exo nca bco_pair sppo_hard aot aot_unpaired '
  'apo_zero apo_down discopop sigmoid_norm simpo cpo orpo alphapo forward '
  'sympo gce truncated_gce sce ropo holder_dpo dpo_pro soft_label'
).split()

_RNG = np.random.default_rng(8)


def test_the_names_are_these():
  assert sorted(METHODS) == sorted(KEYS)
  assert set(AGGREGATES) == {
    'mean',
    'dr_dpo',
    'kldpo',
    'wdpo',
    'winsor',
    'trimmed',
  }


def _extreme_logps(name, beta):
  """Log-probabilities whose margins reach ±1e4, split in several ways."""
  z = np.asarray(
    [s * m for m in (0, 1e-3, 1, 20, 88, 90, 105, 1e3, 1e4) for s in (1, -1)]
  )
  splits = [(z, 0 * z), (0 * z, -z), (z / 2, -z / 2)]
  policy = np.concatenate([np.stack(pair) for pair in splits], 1) / beta
  if 'reference_chosen_logps' in reads(name):
    return [*policy, *np.zeros_like(policy)]
  return list(policy - np.maximum(policy.max(0), 0.0))


@pytest.mark.parametrize('name', KEYS)
def test_finite_up_to_1e4_with_finite_gradients_and_traced_beta(name):
  defaults = hyperparameters(name)
  logps = [jnp.asarray(x) for x in _extreme_logps(name, defaults['beta'])]
  size = logps[0].shape
  data = {'label_prob': jnp.linspace(0, 1, size[0])}
  data |= {
    key: jnp.ones(size) for key in ('chosen_lengths', 'rejected_lengths')
  }
  data = batch_inputs(name, data)

  @jax.jit
  def both(logps, beta):
    def total(*logps):
      losses = METHODS[name](*logps, beta=beta, **data)
      return jnp.sum(losses), losses

    return jax.grad(total, tuple(range(len(logps))), has_aux=True)(*logps)

  gradients, losses = both(logps, defaults['beta'])
  assert losses.dtype == jnp.float32 and losses.shape == size
  assert np.isfinite(losses).all()
  for gradient in gradients:
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize('name', KEYS)
def test_permuting_the_batch_permutes_the_losses(name):
  order = _RNG.permutation(9)
  inputs = batch_inputs(name)
  permuted = {key: value[order] for key, value in inputs.items()}
  np.testing.assert_allclose(
    METHODS[name](**permuted),
    np.asarray(METHODS[name](**inputs))[order],
    rtol=1e-6,
    atol=1e-7,
  )


@pytest.mark.parametrize('name', KEYS)
def test_only_batch_coupled_losses_mix_pairs(name):
  inputs = batch_inputs(name)
  policy = inputs.pop('policy_chosen_logps')
  jacobian = jax.jacobian(
    lambda x: METHODS[name](policy_chosen_logps=x, **inputs)
  )(jnp.asarray(policy))
  off_diagonal = np.asarray(jacobian - jnp.diag(jnp.diag(jacobian)))
  mixes = bool(np.abs(off_diagonal).max() > 0)
  if name in BATCH_COUPLED:
    # Ranks move in jumps: change one entry and look at the others.
    moved = policy.copy()
    moved[0] += 100.0
    before, after = (
      METHODS[name](policy_chosen_logps=x, **inputs) for x in (policy, moved)
    )
    mixes = bool(np.abs(np.asarray(before - after)[1:]).max() > 1e-3)
  assert mixes == (name in BATCH_COUPLED)
  assert preference.is_separable(name) == (name not in BATCH_COUPLED)


@pytest.mark.parametrize('name', sorted(OF_DIFFERENCE))
def test_losses_of_the_difference_do_not_see_the_normaliser(name):
  """log Z(x) added to both log-ratios changes nothing, lengths being equal."""
  inputs = batch_inputs(name)
  inputs |= {k: np.full(9, 7) for k in inputs if k.endswith('_lengths')}
  shift = _RNG.normal(size=9) * 20
  shifted = inputs | {
    key: inputs[key] + shift
    for key in ('policy_chosen_logps', 'policy_rejected_logps')
  }
  with jax.enable_x64(True):
    np.testing.assert_allclose(
      METHODS[name](**shifted), METHODS[name](**inputs), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize('name', sorted(OF_DIFFERENCE))
def test_another_divergence_at_the_reference_kl_changes_nothing(name):
  method = preference.with_divergence(name, 'alpha', alpha=1.0)
  assert inspect.signature(method) == inspect.signature(METHODS[name])
  np.testing.assert_allclose(
    method(**batch_inputs(name)),
    METHODS[name](**batch_inputs(name)),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('name', sorted(set(METHODS) - OF_DIFFERENCE))
def test_other_losses_refuse_another_divergence(name):
  with pytest.raises(ValueError, match=f"f-divergence = '{name}' is none of"):
    preference.with_divergence(name, 'forward_kl')


def test_the_family_relations():
  inputs = batch_inputs('dpo')
  dpo = METHODS['dpo'](**inputs)
  zero = np.zeros(9)
  same = {
    'cdpo': {'label_smoothing': 0.0},
    'rdpo': {'label_smoothing': 0.0},
    'forward': {'label_smoothing': 0.0},
    'soft_label': {'label_prob': 1.0},
    'dpo_pro': {'label_prob': 1.0},
    'gce': {'q': 0.0},
    'sce': {'forward_weight': 1.0, 'reverse_weight': 0.0},
  }
  for name, keywords in same.items():
    np.testing.assert_allclose(
      METHODS[name](**inputs, **keywords), dpo, rtol=1e-6, err_msg=name
    )
  free = {k: v for k, v in inputs.items() if k.startswith('policy')}
  np.testing.assert_allclose(
    METHODS['cpo'](**free),
    METHODS['dpo'](
      **free, reference_chosen_logps=zero, reference_rejected_logps=zero
    ),
  )
  lengths = {'chosen_lengths': BATCH['chosen_lengths']}
  lengths['rejected_lengths'] = BATCH['rejected_lengths']
  np.testing.assert_allclose(
    METHODS['alphapo'](**free, **lengths, alpha=0.0),
    METHODS['simpo'](**free, **lengths),
  )


def test_ropo_is_sce_on_the_margin():
  alpha = 14.0
  scale = 4 * alpha / (1 + alpha) ** 2
  np.testing.assert_allclose(
    METHODS['ropo'](**batch_inputs('ropo'), alpha=alpha),
    METHODS['sce'](
      **batch_inputs('sce'),
      forward_weight=scale,
      reverse_weight=scale * alpha / 4.0,
      log_zero=-4.0,
    ),
    rtol=1e-6,
  )


def test_rdpo_over_flips_is_dpo_exactly():
  swapped = {
    key: BATCH[key.replace('chosen', 'x').replace('rejected', 'chosen').replace(
      'x', 'rejected'
    )]
    for key in reads('dpo')
  }  # fmt: skip
  flip = _RNG.uniform(0, 0.45, 9)
  with jax.enable_x64(True):
    kept = METHODS['rdpo'](**batch_inputs('dpo'), label_smoothing=flip)
    turned = METHODS['rdpo'](**swapped, label_smoothing=flip)
    np.testing.assert_allclose(
      (1 - flip) * kept + flip * turned,
      METHODS['dpo'](**batch_inputs('dpo')),
      rtol=1e-10,
    )


@pytest.mark.parametrize(
  'name', [n for n in KEYS if 'label_smoothing' in reads(n)]
)
def test_the_flip_rate_may_be_per_example_and_traced(name):
  rates = jnp.asarray(_RNG.uniform(0.01, 0.4, 9), jnp.float32)
  inputs = batch_inputs(name)
  together = jax.jit(
    lambda rates: METHODS[name](**inputs, label_smoothing=rates)
  )(rates)
  for i in (0, 5):
    np.testing.assert_allclose(
      together[i],
      METHODS[name](**inputs, label_smoothing=float(rates[i]))[i],
      rtol=1e-5,
    )


@pytest.mark.parametrize(
  'name', [n for n in KEYS if 'label_smoothing' in reads(n)]
)
@pytest.mark.parametrize('value', [0.5, -0.2, float('nan')])
def test_bad_flip_rates_are_refused(name, value):
  with pytest.raises(ValueError, match='label_smoothing = .* is outside'):
    METHODS[name](**batch_inputs(name), label_smoothing=value)


@pytest.mark.parametrize('name', KEYS)
def test_bad_beta_and_unused_keywords_are_refused(name):
  for beta in (0.0, -0.1, float('nan'), float('inf')):
    with pytest.raises(ValueError, match=r'beta = .* is outside \(0, inf\)'):
      METHODS[name](**batch_inputs(name), beta=beta)
  unused = next(k for k in HYPER if k not in hyperparameters(name))
  with pytest.raises(TypeError, match=f"{name}: .*'{unused}'"):
    METHODS[name](**batch_inputs(name), **{unused: 0.3})


def test_other_refusals():
  with pytest.raises(ValueError, match="loss = 'dpoo' is none of"):
    hyperparameters('dpoo')
  with pytest.raises(ValueError, match="link = 'tanh' is none of"):
    METHODS['sympo'](**batch_inputs('sympo'), link='tanh')
  with pytest.raises(ValueError, match='label_prob = 2 is outside'):
    METHODS['dpo_pro'](**batch_inputs('dpo'), label_prob=2.0)
  with pytest.raises(TypeError, match="simpo: .*'chosen_lengths'"):
    METHODS['simpo'](np.zeros(2), np.zeros(2))
  with pytest.raises(ValueError, match='chosen_lengths or rejected_lengths'):
    METHODS['ipo'](**batch_inputs('dpo'))


def test_what_a_method_takes_is_read_from_its_signature():
  assert hyperparameters('rdpo') == {'beta': 0.1, 'label_smoothing': 0.1}
  assert hyperparameters('ipo') == {'normalisation': 'mean', 'beta': 0.1}
  assert 'label_prob' not in hyperparameters('soft_label')
  assert reads('simpo') == (
    'policy_chosen_logps',
    'policy_rejected_logps',
    'chosen_lengths',
    'rejected_lengths',
    'label_smoothing',
  )
  assert reads('wdpo') == ('losses', 'weights', 'swapped_losses')
  assert preference.aggregate_hyperparameters('dr_dpo') == {'beta_prime': 1.0}
  assert not preference.is_separable('dpo', 'dr_dpo')


def test_half_precision_is_widened():
  logps = [jnp.full(3, -1.5, jnp.bfloat16)] * 4
  assert METHODS['dpo'](*logps).dtype == jnp.float32
